"""Computes what single heads add to the residual stream, and directly to the logits.

TransformerLens's `direct_logit_attribution` needs folded weights (compatibility mode, which changes
the bridge for all its users) and does not handle norms between attention and the residual stream
(Gemma). Here no weights are folded: every norm is linear once its scale is fixed to that of the
real run (the cached scale).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import InputError, ModelError
from icl_mech.model.adapted import is_adapter_layer
from icl_mech.model.chunked_logits import ChunkedLogits
from icl_mech.model.edits import HOOKS
from icl_mech.model.engine import Engine, Tokens
from icl_mech.model.network import Unembedding, architecture_of, at_hand, is_quantised
from icl_mech.model.readout import pad_rows

#: How far the sum of the parts may be from the total, relative to the largest part. (Transformers'
#: RMS norms compute in float32 even in a float64 model.)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-4}
TOLERANCE_HALF = 5e-2
_POST_NORM = "ln1_post"


@dataclass(frozen=True)
class FrozenNorm:
    """A normalisation with a fixed scale, which is a linear map plus a constant.

    Attributes:
        gain: the learned factor, `[d_model]`; `[1]` where nothing is learned.
        scale: the divisor, one for each vector that was normalised.
        centred: whether the mean is subtracted first (LayerNorm, but not RMSNorm).
        shift: the learned constant that is added, if any.
    """

    gain: Float[Tensor, "#d_model"]
    scale: Float[Tensor, "*batch 1"]
    centred: bool
    shift: Float[Tensor, "d_model"] | None

    @staticmethod
    def of(norm: Any, scale: Float[Tensor, "*batch 1"]) -> "FrozenNorm":
        """A TransformerLens norm with the scale that its `hook_scale` gave."""
        if hasattr(norm, "original_component"):
            inner, rms = norm.original_component, norm.uses_rms_norm
            weight, bias = getattr(inner, "weight", None), getattr(inner, "bias", None)
        else:  # a HookedTransformer's, which may be folded into the weights that follow
            rms = "RMS" in type(norm).__name__
            weight, bias = getattr(norm, "w", None), getattr(norm, "b", None)
        # OLMo's norms have no weight.
        gain = torch.ones_like(scale[..., :1]).flatten()[:1] if weight is None else weight.detach()
        if weight is not None and _adds_one(norm):
            gain = 1 + gain
        shift = None if rms or bias is None else bias.detach().to(scale)
        return FrozenNorm(gain.to(scale), scale, not rms, shift)

    def apply(self, part: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """Apply the norm to a part of its input, without the learned constant."""
        centred = part - part.mean(-1, keepdim=True) if self.centred else part
        return centred * self.gain / self.scale

    def pull(self, out: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_model"]:
        """The direction whose dot product with the input equals that of `out` with the output.

        The learned constant is left out of the output.
        """
        weighed = out * self.gain / self.scale
        return weighed - weighed.mean(-1, keepdim=True) if self.centred else weighed


def _adds_one(norm: Any) -> bool:
    """Whether a bridge's norm multiplies by one plus its weight, as Gemma's norms do."""
    if not hasattr(norm, "original_component"):
        return False  # a HookedTransformer's weight includes the one
    if hasattr(norm, "uses_weight_offset"):
        return bool(norm.uses_weight_offset)
    # TransformerLens 3 has one setting for all RMSNorms of a model.
    return norm.uses_rms_norm and bool(getattr(norm.config, "rmsnorm_uses_offset", False))


@dataclass(frozen=True)
class LogitScale:
    """What a model does to its logits after the unembedding: it applies a factor, then a soft cap.

    Attributes:
        factor: of Cohere (`logit_scale`) or Granite (one over `logits_scaling`); 1 elsewhere.
        cap: the soft cap of Gemma 2; None where there is none.
    """

    factor: float
    cap: float | None

    @staticmethod
    def of(bridge: Any) -> "LogitScale":
        """Find the factor and the cap by applying the bridge's logit transform to known numbers.

        Raises:
            ModelError: where the transform is neither a factor nor a soft cap, so that parts
                would not add up to the logit difference.
        """
        cap = float(getattr(bridge.cfg, "output_logits_soft_cap", None) or 0)
        numbers = torch.tensor([-300.0, -20.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 20.0, 300.0]).double()
        done = Unembedding.of(bridge).transform(numbers.clone())
        factor = float(done[5] / numbers[5])  # a soft cap leaves small numbers as they are
        expected = numbers * factor
        if cap > 0:
            expected = cap * torch.tanh(expected / cap)
        if not torch.allclose(done, expected, rtol=1e-4, atol=1e-9):
            raise ModelError(
                f"{architecture_of(bridge)} does more to its logits than scale them and cap them "
                "softly; expected one of these, so that parts add up to a logit difference"
            )
        return LogitScale(factor, cap if cap > 0 else None)


@dataclass(frozen=True)
class DirectEffects:
    """A logit difference, split into parts that add up to it.

    Attributes:
        heads: the part of every attention head.
        mlps: the part of every MLP.
        rest: embedding, output biases of attention, biases of norms and unembedding.
        total: the model's logit difference, including any scale of the logits, but before any
            soft cap.
    """

    heads: Float[Tensor, "prompt layer head"]
    mlps: Float[Tensor, "prompt layer"]
    rest: Float[Tensor, "prompt"]
    total: Float[Tensor, "prompt"]


@dataclass(frozen=True)
class _Attention:
    """The linear map from the heads' outputs of a block to its attention output."""

    w_o: Float[Tensor, "head d_head d_model"]
    bias: Float[Tensor, "d_model"]
    norm: FrozenNorm | None

    def heads(self, z: Float[Tensor, "prompt head d_head"]) -> Float[Tensor, "prompt head d_model"]:
        """What every head adds to the residual stream."""
        written = einsum(z, self.w_o, "p h e, h e d -> p h d")
        if self.norm is None:
            return written
        per_head = FrozenNorm(
            self.norm.gain, self.norm.scale[:, None], self.norm.centred, self.norm.shift
        )
        return per_head.apply(written)

    def constant(self) -> Float[Tensor, "d_model"] | Float[Tensor, "prompt d_model"]:
        """What attention adds to the residual stream besides its heads' outputs."""
        if self.norm is None:
            return self.bias
        bias = self.norm.apply(self.bias.expand(len(self.norm.scale), -1))
        return bias if self.norm.shift is None else bias + self.norm.shift


class DirectLogitAttribution:
    """Splits the residual stream at one token of every prompt into its parts.

    All sums are computed in float32 or better, also for a model in half precision.

    Raises:
        ModelError: where heads and bias do not add up to the attention output, as in a model that
            scales what attention adds.
    """

    def __init__(self, engine: Engine, prompts: Sequence[Tokens], positions: Sequence[int]) -> None:
        self.bridge, self.n_layers, self.dtype = engine.bridge, engine.n_layers, engine.dtype
        self.quantised = is_quantised(engine.bridge)
        at = engine.at_tokens([[p] for p in positions])
        sites = ("z", "attn_out", "mlp_out", "resid_pre", "resid_post")
        hooks = [HOOKS[site] for site in sites]
        self.wide = torch.promote_types(self.dtype, torch.float32)
        self.has_post_norm = f"blocks.0.{_POST_NORM}.hook_scale" in self.bridge.hook_dict
        if self.has_post_norm:
            hooks.append(f"blocks.{{}}.{_POST_NORM}.hook_scale")
        found = engine.observe(prompts, [(hook, at) for hook in hooks])
        self.z, attn_out, self.mlp_out, resid_pre, resid_post, *scale = (
            f[:, :, 0].to(self.wide) for f in found
        )
        self.embedding, self.final = resid_pre[:, 0], resid_post[:, -1]
        self.post_scale = scale[0] if scale else None
        self._check_attention(attn_out)

    @torch.no_grad()
    def _attention(self, layer: int) -> _Attention:
        block = self.bridge.blocks[layer]
        with at_hand(block):
            w_o, bias = self._output_map(block.attn)
            norm = None
            if self.post_scale is not None:
                norm = FrozenNorm.of(getattr(block, _POST_NORM), self.post_scale[:, layer])
        return _Attention(w_o, bias, norm)

    def _output_map(
        self, attention: Any
    ) -> tuple[Float[Tensor, "head d_head d_model"], Float[Tensor, "d_model"]]:
        """W_O and its bias, as numbers.

        For quantised weights, and those with an adapter, they are computed from the projection's
        outputs for a zero input and for each unit vector.
        """
        projection = getattr(getattr(attention, "o", None), "original_component", None)
        if projection is not None and (self.quantised or is_adapter_layer(projection)):
            n_heads, d_head = self.z.shape[2:]
            units = torch.eye(n_heads * d_head, device=self.z.device, dtype=self.dtype)
            bias = projection(torch.zeros_like(units[:1]))[0].to(self.z)
            w_o = projection(units).to(self.z) - bias
            return rearrange(w_o, "(h e) d -> h e d", h=n_heads), bias
        w_o = attention.W_O.detach().to(self.z)
        b_o = getattr(attention, "b_O", None)
        return w_o, torch.zeros_like(w_o[0, 0]) if b_o is None else b_o.detach().to(w_o)

    @torch.no_grad()
    def _check_attention(self, attn_out: Float[Tensor, "prompt layer d_model"]) -> None:
        """Raise ModelError unless heads and bias add up to what attention adds to the stream."""
        for layer in range(self.n_layers):
            attention = self._attention(layer)
            ours = attention.heads(self.z[:, layer]).sum(dim=1) + attention.constant()
            miss = (ours - attn_out[:, layer]).abs().amax()
            if not miss <= self._tolerance() * (1 + attn_out[:, layer].abs().amax()):
                raise ModelError(
                    f"the heads of block {layer} miss its attention output by {float(miss):.2g}; "
                    "expected blocks that add what heads write to the residual stream, unscaled"
                )

    def _tolerance(self) -> float:
        # Quantised layers round their inputs too.
        return TOLERANCE_HALF if self.quantised else TOLERANCE.get(self.dtype, TOLERANCE_HALF)

    @torch.no_grad()
    def mean_heads(
        self,
    ) -> tuple[Float[Tensor, "layer head d_model"], Float[Tensor, "layer d_model"]]:
        """The means over prompts of what heads, and the rest of attention, add to the stream."""
        heads, constants = [], []
        for layer in range(self.n_layers):
            attention = self._attention(layer)
            heads.append(attention.heads(self.z[:, layer]).mean(dim=0))
            constants.append(attention.constant().expand(len(self.z), -1).mean(dim=0))
        return torch.stack(heads), torch.stack(constants)

    @torch.no_grad()
    def direct(
        self,
        answers: Int[Tensor, "prompt"],
        rivals: Sequence[Sequence[int]],
    ) -> DirectEffects:
        """Split each answer's logit, minus the mean logit of its rivals, into parts.

        Raises:
            InputError: where the numbers of answers, sets of rivals and prompts differ.
            ModelError: where the parts do not add up, as in a model that scales what blocks add.
        """
        n = len(self.z)
        if not len(answers) == len(rivals) == n or not all(len(row) for row in rivals):
            raise InputError(
                f"{len(answers)} answers and {len(rivals)} sets of rivals for {n} prompts; "
                "expected one of each per prompt, and at least one rival in every set"
            )
        if not hasattr(self.bridge, "ln_final"):
            raise ModelError(
                f"{architecture_of(self.bridge)} has no norm after its last block, but norms of "
                "the whole stream in every block; expected blocks that add what they write to the "
                "residual stream"
            )
        logits = LogitScale.of(self.bridge)
        out, offset = self._unembedding(answers, rivals)
        out, offset = out * logits.factor, offset * logits.factor
        norm, constant = self._final_norm(out)
        towards = norm.pull(out)
        heads = []
        rest = einsum(self.embedding, towards, "p d, p d -> p") + constant + offset
        for layer in range(self.n_layers):
            attention = self._attention(layer)
            written = attention.heads(self.z[:, layer])
            heads.append(einsum(written, towards, "p h d, p d -> p h"))
            rest = rest + (attention.constant() * towards).sum(dim=-1)
        mlps = einsum(self.mlp_out, towards, "p l d, p d -> p l")
        total = self._logit_difference(answers, rivals, logits)
        effects = DirectEffects(torch.stack(heads, dim=1), mlps, rest, total)
        self._check_sum(effects)
        return effects

    def _logit_difference(
        self,
        answers: Int[Tensor, "prompt"],
        rivals: Sequence[Sequence[int]],
        logits: "LogitScale",
    ) -> Float[Tensor, "prompt"]:
        """The difference of the model's own logits (before any soft cap), not the sum of parts."""
        read = ChunkedLogits(self.bridge, self.final.to(self.dtype))
        ids = pad_rows([[int(a), *row] for a, row in zip(answers, rivals, strict=True)])
        known = ids.clamp_min(0).to(read.hidden.device)
        found = read.at(known) if logits.cap is None else read.raw(known) * logits.factor
        of_rivals = found[:, 1:].to(self.wide).masked_fill(ids[:, 1:].to(known) < 0, torch.nan)
        return (found[:, 0].to(self.wide) - of_rivals.nanmean(dim=1)).to(self.z)

    def _check_sum(self, effects: DirectEffects) -> None:
        """Raise ModelError unless the parts add up to the logit difference."""
        parts = [effects.heads.flatten(1), effects.mlps, effects.rest[:, None]]
        every = torch.cat(parts, dim=1)
        miss = (every.sum(dim=1) - effects.total).abs()
        if not bool((miss <= self._tolerance() * (1 + every.abs().amax(dim=1))).all()):
            raise ModelError(
                f"heads, MLPs and the rest miss the logit difference by {float(miss.max()):.2g}; "
                "expected blocks that add what they write to the residual stream, unscaled"
            )

    def _unembedding(
        self, answers: Int[Tensor, "prompt"], rivals: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "prompt d_model"], Float[Tensor, "prompt"]]:
        """The direction and the offset that give the logit difference after the final norm."""
        unembedding = Unembedding.of(self.bridge)
        w_u, b_u = unembedding.w_u, unembedding.b_u
        device = w_u.device
        answers = answers.to(device)
        out, offset = w_u[:, answers].T.to(self.wide), b_u[answers].to(self.wide)
        for row, tokens in enumerate(rivals):
            ids = torch.tensor(list(tokens), dtype=torch.long, device=device)
            out[row] -= w_u[:, ids].to(self.wide).mean(dim=1)
            offset[row] -= b_u[ids].to(self.wide).mean()
        return out.to(self.z), offset.to(self.z)  # the unembedding may lie on another device

    def _final_norm(
        self, out: Float[Tensor, "prompt d_model"]
    ) -> tuple[FrozenNorm, Float[Tensor, "prompt"]]:
        """The final norm with the scale of this run, and its constant's part of the difference."""
        seen: list[Tensor] = []

        def keep(scale: Tensor, hook: Any) -> None:
            seen.append(scale.clone())

        with self.bridge.hooks(fwd_hooks=[("ln_final.hook_scale", keep)]):
            place = Unembedding.of(self.bridge).place
            self.bridge.ln_final(self.final[None].to(place, self.dtype))
        with at_hand(self.bridge.ln_final):
            norm = FrozenNorm.of(self.bridge.ln_final, seen[0][0].to(self.z))
        constant = out.new_zeros(len(out)) if norm.shift is None else out @ norm.shift
        return norm, constant
