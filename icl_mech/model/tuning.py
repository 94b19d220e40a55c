"""A plain Transformers model with low-rank adapters (LoRA) on some of its blocks, to be trained.

Hu et al. 2021 (arXiv 2106.09685). Everything but the adapters is frozen. Autograd starts at the
first block that has an adapter: below it, nothing is kept and there is no backward pass. Logits are
computed only at the requested tokens: over a vocabulary of 262,144, the logits of every token would
take more memory than the model.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from icl_mech.errors import InputError, ModelError, nearest, shown
from icl_mech.model.adapters import base_hash, linear_sizes, refuse_unmergeable, write_record
from icl_mech.model.gguf import quiet_transformers
from icl_mech.model.network import CONTEXT
from icl_mech.model.placement import Placement
from icl_mech.model.plain import explained, read_config, read_plain
from icl_mech.model.sources import Source, find
from icl_mech.prompts import Encoder, Sink, Template, wants_leading_space

#: Parts of a block, and the names by which a linear map's path shows that it is in this part.
KINDS: Mapping[str, tuple[str, ...]] = {
    "attention": ("attn", "attention"),
    "mlp": ("mlp", "feed_forward", "ffn", "fc1", "fc2"),
}


@dataclass(frozen=True)
class Outline:
    """The structure of a model, known before its weights are read.

    Attributes:
        source: from `find`.
        blocks: the path of the list of blocks in the model, such as `"model.layers"`.
        n_layers: how many blocks there are.
        maps: the linear maps of a block by their path inside it, such as `"self_attn.q_proj"`.
        context: the most tokens that a prompt can have; None where there is no limit.
    """

    source: Source
    blocks: str
    n_layers: int
    maps: tuple[str, ...]
    context: int | None

    def choose(self, targets: Sequence[str]) -> tuple[str, ...]:
        """The linear maps that the targets name.

        Args:
            targets: `"attention"`, `"mlp"`, or names of maps, with or without the part of the
                block that they are in.

        Raises:
            InputError: where there is no such map; it names the nearest.
        """
        chosen: set[str] = set()
        for target in targets:
            found = [name for name in self.maps if _is(name, target)]
            if not found:
                kinds = [kind for kind in KINDS if any(_is(name, kind) for name in self.maps)]
                names = [*kinds, *dict.fromkeys(n.rpartition(".")[2] for n in self.maps)]
                near = nearest(target, [*names, *self.maps]) if isinstance(target, str) else None
                hint = f"; did you mean {near!r}?" if near else "."
                raise InputError(
                    f"unknown target {shown(target)}{hint} Choose from: {', '.join(names)}"
                )
            chosen |= set(found)
        return tuple(name for name in self.maps if name in chosen)


def _is(name: str, target: str) -> bool:
    """Whether a map has the name, or is in the part of a block, that a target gives."""
    if target in KINDS:
        return any(part in name.lower() for part in KINDS[target])
    return target in (name, name.rpartition(".")[2])


def outline(source: str | Path, trust_remote_code: bool = False) -> Outline:
    """Read a model's configuration, and build the model without its weights.

    Raises:
        InputError: where there is no such model, or it is quantised.
        ModelError: where the files are damaged, the family cannot be edited, or no list of blocks
            is found in it.

    Example:
        >>> outline("gemma-3-270m").choose(["q_proj", "mlp"])
        ('self_attn.q_proj', 'mlp.gate_proj', 'mlp.up_proj', 'mlp.down_proj')
    """
    with quiet_transformers():
        found = find(source)
        config = read_config(found, trust_remote_code)
        if getattr(config, "quantization_config", None):
            raise InputError(
                f"{found.given} is quantised; expected full-precision weights, to which adapters "
                "can be added exactly"
            )
        with explained(found), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    text = config.get_text_config()
    n_layers = int(text.num_hidden_layers)
    lists = ((n, m) for n, m in model.named_modules() if isinstance(m, nn.ModuleList))
    place = next((pair for pair in lists if len(pair[1]) == n_layers), None)
    if place is None:
        raise ModelError(
            f"{found.given}: no list of {n_layers} blocks is found in {type(model).__name__}; "
            "expected a decoder with one"
        )
    maps = dict.fromkeys(
        name for block in place[1] for name, m in block.named_modules() if linear_sizes(m)
    )
    context = next((int(v) for n in CONTEXT if (v := getattr(text, n, None))), None)
    return Outline(found, place[0], n_layers, tuple(maps), context)


class TunedModel:
    """A plain model with adapters, made by `load_tuned`.

    Attributes:
        name: of the model without adapters.
        base_hash: the hash of that model's weights.
        outline: of the model.
        layers: the blocks that have adapters.
        targets: the maps that have adapters, by their path in the block.
        weights: the trainable weights, by name.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        sink: Sink,
        outline: Outline,
        lora: Mapping[str, Any],
        layers: Sequence[int],
        targets: Sequence[str],
    ) -> None:
        from peft import LoraConfig, TaskType, get_peft_model

        self.name = outline.source.name
        self.outline, self.layers, self.targets = outline, tuple(layers), tuple(targets)
        self.tokenizer, self.sink = tokenizer, sink
        self.base_hash = base_hash(model)
        # peft writes this into an adapter's files as the base. It must not be a path.
        base = self.name if outline.source.local else outline.source.location
        model.config._name_or_path = model.name_or_path = base
        config = LoraConfig(
            task_type=TaskType.CAUSAL_LM,
            revision=outline.source.revision,
            target_modules=list(targets),
            layers_to_transform=list(layers),
            layers_pattern=outline.blocks.rpartition(".")[2],
            fan_in_fan_out=any(isinstance(m, Conv1D) for m in model.modules()),
            **lora,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of Transformers, to peft
            self.peft = get_peft_model(model, config)
        self.weights = {n: p for n, p in self.peft.named_parameters() if p.requires_grad}
        self._head = model.get_output_embeddings()
        self.n_tokens = model.get_input_embeddings().weight.shape[0]
        self._check()

    def _check(self) -> None:
        """Refuse adapters on other maps than those that were chosen.

        Raises:
            ModelError: naming those that are missing.
        """
        wanted = {f"{self.outline.blocks}.{b}.{t}" for b in self.layers for t in self.targets}
        got = {
            name.removeprefix("base_model.model.").partition(".lora_")[0] for name in self.weights
        }
        if not got or got - wanted:
            raise ModelError(
                f"{self.name}: peft put adapters on {len(got)} maps, {sorted(got - wanted)[:3]} "
                f"among them; expected {len(wanted)}"
            )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(iter(self.weights.values())).device

    @property
    def n_trainable(self) -> int:
        """The number of trainable weights."""
        return sum(p.numel() for p in self.weights.values())

    def encoder(
        self, template: str, words: Sequence[str], leading_space: bool | None = None
    ) -> Encoder:
        """An encoder for the model's tokenizer; as `HookedModel.encoder`."""
        if leading_space is None:
            leading_space = wants_leading_space(self.tokenizer, words)
        made = Template(template, leading_space=leading_space)
        return Encoder(self.tokenizer, made, self.sink.token, self.n_tokens)

    def train(self, on: bool) -> None:
        """Switch dropout on or off."""
        self.peft.train(on)

    def answer_logits(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]
    ) -> tuple[Float[Tensor, "token vocab"], Int[Tensor, "token"], Int[Tensor, "token"]]:
        """Logits that predict each token of every answer (teacher forcing), in one list of rows.

        Rows are padded on the right, so no token attends to the padding.

        Args:
            prompts: token ids of every prompt.
            answers: token ids of every prompt's answer, at least one.

        Returns:
            Logits, the answers' token ids, and the index of the prompt that each belongs to.
        """
        rows = [[*p, *a[:-1]] for p, a in zip(prompts, answers, strict=True)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [self.sink.token] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        owner = torch.tensor([i for i, a in enumerate(answers) for _ in a])
        at = torch.tensor(
            [len(p) - 1 + j for p, a in zip(prompts, answers, strict=True) for j in range(len(a))]
        )
        targets = torch.tensor([token for a in answers for token in a])
        ids, mask, owner, at, targets = (t.to(self.device) for t in (ids, mask, owner, at, targets))
        with self._read_at(owner, at):
            logits = self.peft(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
        return logits, targets, owner

    @contextmanager
    def _read_at(self, owner: Int[Tensor, "token"], at: Int[Tensor, "token"]) -> Iterator[None]:
        """Give the unembedding these tokens only; the model's scale or cap of logits still acts."""

        def pick(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return (given[0][owner, at][None], *given[1:])

        handle = self._head.register_forward_pre_hook(pick)
        try:
            yield
        finally:
            handle.remove()

    def save(self, folder: Path) -> None:
        """Write a complete adapter in peft's format, and a record of the weights it belongs to."""
        # Otherwise peft would ask the hub whether the vocabulary was extended. It was not.
        self.peft.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
        # peft writes a page about the adapter that is an empty form.
        (folder / "README.md").unlink(missing_ok=True)
        write_record(folder, {"base": self.name, "base_hash": self.base_hash})


def load_tuned(
    outline: Outline,
    layers: Sequence[int],
    targets: Sequence[str],
    *,
    rank: int = 16,
    alpha: int = 16,
    dropout: float = 0.1,
    seed: int = 0,
    device: torch.device | None = None,
    trust_remote_code: bool = False,
    sink: str | int | None = None,
    attention: str = "eager",
) -> TunedModel:
    """Read a model in float32 and add adapters to it, which change nothing yet (B is zero).

    Args:
        outline: from `outline`.
        layers: blocks that get adapters.
        targets: maps of these blocks, from `Outline.choose`.
        rank, alpha, dropout: of LoRA.
        seed: of A's initial values. The state of PyTorch's own generator is restored.
        device: of the weights; the CPU by default.
        trust_remote_code, sink: as in `load_model`.
        attention: Transformers' implementation of attention.

    Raises:
        InputError: where the model is quantised or cannot be reached.
        ModelError: where its files are damaged.

    Example:
        >>> found = outline("gemma-3-270m")
        >>> tuned = load_tuned(found, [0], found.choose(["q_proj"]), rank=2)
        >>> tuned.n_trainable  # 2 (640 + 1024)
        3328
    """
    device = torch.device("cpu") if device is None else device
    with quiet_transformers():
        model, tokenizer, chosen = read_plain(
            outline.source,
            Placement(device),
            trust_remote_code=trust_remote_code,
            sink=sink,
            attention=attention,
        )
    refuse_unmergeable(model, outline.source.name)
    lora = {"r": rank, "lora_alpha": alpha, "lora_dropout": dropout}
    with seeded(seed, device):
        return TunedModel(model, tokenizer, chosen, outline, lora, layers, targets)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Context with PyTorch's generator seeded; its state is restored afterwards.

    Args:
        seed: any whole number.
        device: if it is a CUDA device, its generator is seeded and restored, too.

    Example:
        >>> with seeded(1, torch.device("cpu")):
        ...     first = torch.rand(1)
        >>> with seeded(1, torch.device("cpu")):
        ...     bool(first == torch.rand(1))
        True
    """
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed % 2**63)
        yield
