"""A GPT-2 that reads vectors instead of words, with TransformerLens's hooks.

The blocks are GPT-2's (a test compares them with Transformers'). One linear map reads tokens in,
another reads out one number at every position. Hook points have TransformerLens's names and shapes,
so that `run_with_hooks`, `run_with_cache`, `ActivationCache` and `transformer_lens.patching` work.
TransformerLens's own bridge cannot be used, because it needs token ids and a vocabulary.
"""

from dataclasses import dataclass
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.HookedRootModule import HookedRootModule

from icl_mech.errors import InputError
from icl_mech.synthetic.data import at_least

Stream = Float[Tensor, "seq pos d_model"]


@dataclass(frozen=True)
class ModelConfig:
    """Sizes; the defaults are the paper's.

    Attributes:
        n_layers, n_heads, d_model: blocks, heads per block, width of the residual stream.
        init_std: standard deviation of initial weights (GPT-2: .02).

    Raises:
        InputError: where the sizes do not go together.
    """

    n_layers: int = 12
    n_heads: int = 8
    d_model: int = 256
    init_std: float = 0.02

    def __post_init__(self) -> None:
        at_least(1, n_layers=self.n_layers, n_heads=self.n_heads, d_model=self.d_model)
        if self.d_model % self.n_heads:
            raise InputError(
                f"d_model is {self.d_model} with {self.n_heads} heads; expected a multiple of "
                "n_heads"
            )
        if not self.init_std > 0:
            raise InputError(f"init_std is {self.init_std}; expected above 0")


class RegressionTransformer(HookedRootModule):
    """Reads x1, y1, x2, y2, ..., x; at every x token it predicts the y that follows."""

    def __init__(self, config: ModelConfig, dim: int, n_examples: int, seed: int = 0) -> None:
        """Random weights.

        Args:
            config: sizes.
            dim: D, coordinates of x.
            n_examples: demonstrations; a sequence has 2 n_examples + 1 tokens.
            seed: of the weights.
        """
        super().__init__()
        self.config, self.dim, self.n_examples = config, dim, n_examples
        self.n_positions = 2 * n_examples + 1
        width = config.d_model
        # Linear layers draw weights from the global generator; its state belongs to the caller.
        with torch.random.fork_rng(devices=[]):
            self.read_in = nn.Linear(dim + 1, width)
            self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
            self.ln_final = Norm(width)
            self.read_out = nn.Linear(width, 1)
        self.position = nn.Parameter(torch.empty(self.n_positions, width))
        self.hook_embed, self.hook_pos_embed = HookPoint(), HookPoint()
        self._initialise(seed)
        self.setup()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.position.device

    @property
    def cfg(self) -> SimpleNamespace:
        """The sizes of the model, under the names that TransformerLens's tools use."""
        c = self.config
        return SimpleNamespace(
            n_layers=c.n_layers,
            n_heads=c.n_heads,
            n_key_value_heads=None,
            d_model=c.d_model,
            d_head=c.d_model // c.n_heads,
            d_mlp=4 * c.d_model,
            n_ctx=self.n_positions,
            attn_only=False,
            parallel_attn_mlp=False,
            normalization_type="LN",
            positional_embedding_type="standard",
            device=self.device,
            dtype=self.position.dtype,
        )

    def _initialise(self, seed: int) -> None:
        """As in GPT-2: normal weights, zero biases, smaller weights in maps to the stream."""
        generator = torch.Generator().manual_seed(seed)
        std = self.config.init_std
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                if not name.endswith("norm.weight"):
                    nn.init.zeros_(parameter)
                continue
            out = name.endswith(("attn.out.weight", "mlp.out.weight"))
            scale = (2 * self.config.n_layers) ** -0.5 if out else 1.0
            nn.init.normal_(parameter, std=std * scale, generator=generator)

    def tokens(
        self, xs: Float[Tensor, "seq pair dim"], ys: Float[Tensor, "seq pair"]
    ) -> Float[Tensor, "seq pos dim_and_y"]:
        """Pairs as tokens: x in the first D entries, y in the last; the query has no y token."""
        n, pairs, dim = xs.shape
        tokens = xs.new_zeros(n, pairs, 2, dim + 1)
        tokens[:, :, 0, :dim] = xs
        tokens[:, :, 1, dim] = ys
        return tokens.flatten(1, 2)[:, :-1].to(self.device)

    def forward(self, tokens: Float[Tensor, "seq pos dim_and_y"]) -> Float[Tensor, "seq pos"]:
        """The number that is read out at every position; at x tokens it predicts y.

        Raises:
            InputError: where there are more tokens than the model has positions.
        """
        if tokens.shape[1] > self.n_positions:
            raise InputError(
                f"{tokens.shape[1]} tokens; expected at most {self.n_positions} "
                f"({self.n_examples} examples and a query)"
            )
        read = self.hook_embed(self.read_in(tokens))
        position = self.position[: tokens.shape[1]].expand_as(read)
        resid = read + self.hook_pos_embed(position)
        for block in self.blocks:
            resid = block(resid)
        return self.read_out(self.ln_final(resid))[..., 0]

    def predict(
        self, xs: Float[Tensor, "seq pair dim"], ys: Float[Tensor, "seq pair"]
    ) -> Float[Tensor, "seq pair"]:
        """The prediction of every y from the pairs before it."""
        return self(self.tokens(xs, ys))[:, ::2]


class Block(nn.Module):
    """Attention, then MLP; each reads the normed stream and adds its output."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.ln1, self.attn = Norm(config.d_model), Attention(config)
        self.ln2, self.mlp = Norm(config.d_model), MLP(config)
        self.hook_resid_pre, self.hook_resid_mid = HookPoint(), HookPoint()
        self.hook_resid_post = HookPoint()
        self.hook_attn_out, self.hook_mlp_out = HookPoint(), HookPoint()

    def forward(self, resid: Stream) -> Stream:
        resid = self.hook_resid_pre(resid)
        resid = self.hook_resid_mid(resid + self.hook_attn_out(self.attn(self.ln1(resid))))
        return self.hook_resid_post(resid + self.hook_mlp_out(self.mlp(self.ln2(resid))))


class Norm(nn.Module):
    """Layer norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.hook_scale, self.hook_normalized = HookPoint(), HookPoint()

    def forward(self, resid: Stream) -> Stream:
        if self.hook_scale.has_hooks():
            centred = resid - resid.mean(-1, keepdim=True)
            variance = centred.pow(2).mean(-1, keepdim=True)
            scale = self.hook_scale((variance + self.norm.eps).sqrt())
            normed = centred / scale * self.norm.weight + self.norm.bias
        else:
            normed = self.norm(resid)
        return self.hook_normalized(normed)


class Attention(nn.Module):
    """Causal attention; the pattern is computed only if a hook reads it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model)
        self.out = nn.Linear(config.d_model, config.d_model)
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z = HookPoint()

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        """The output weights of each head, under TransformerLens's name."""
        return self.out.weight.T.unflatten(0, (self.n_heads, -1))

    @property
    def b_O(self) -> Float[Tensor, "d_model"]:
        """The output bias, shared by the heads."""
        return self.out.bias

    def forward(self, normed: Stream) -> Stream:
        q, k, v = self.qkv(normed).unflatten(-1, (3, self.n_heads, -1)).unbind(-3)
        q, k, v = self.hook_q(q), self.hook_k(k), self.hook_v(v)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        if self.hook_attn_scores.has_hooks() or self.hook_pattern.has_hooks():
            z = self._with_pattern(q, k, v)
        else:
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(self.hook_z(z.transpose(1, 2)).flatten(-2))

    def _with_pattern(
        self,
        q: Float[Tensor, "seq head pos d_head"],
        k: Float[Tensor, "seq head pos d_head"],
        v: Float[Tensor, "seq head pos d_head"],
    ) -> Float[Tensor, "seq head pos d_head"]:
        n = q.shape[-2]
        future = torch.ones(n, n, dtype=torch.bool, device=q.device).triu(1)
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf)
        return self.hook_pattern(self.hook_attn_scores(scores).softmax(-1)) @ v


class MLP(nn.Module):
    """Two linear maps with GPT-2's GELU between."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.d_model, 4 * config.d_model)
        self.out = nn.Linear(4 * config.d_model, config.d_model)
        self.hook_pre, self.hook_post = HookPoint(), HookPoint()

    def forward(self, normed: Stream) -> Stream:
        pre = self.hook_pre(self.inner(normed))
        return self.out(self.hook_post(F.gelu(pre, approximate="tanh")))
