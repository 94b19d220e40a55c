"""The blocks of a bridge, callable one at a time, on any mix of positions.

A Transformers model prepares what its blocks need (rotary tables, masks, a cache) inside one
long forward. To run only a suffix, and each row only from its own layer on, the engine has to
call blocks itself. Instead of knowing every family, the trunk *rehearses*: it watches one real
forward, keeps the arguments that each block was given, and later repeats the call with its own
rows of the position-dependent ones. The rehearsal ends with a proof: the same tokens, run
through the trunk, must give the same log probabilities.
"""

import inspect
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from icl_mech.errors import ModelError


@runtime_checkable
class Past(Protocol):
    """What a block sees of the tokens before its own: the one method of a cache that it calls."""

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]: ...


#: Arguments that depend on the tokens, and that we know how to make for other tokens.
_KNOWN = ("attention_mask", "position_ids", "position_embeddings")


@dataclass
class BlockCall:
    """The arguments, by name, with which a model calls one of its blocks.

    Raises:
        ModelError: where a block is given tensors of a kind that cannot be made for other tokens.
    """

    arguments: dict[str, Any]

    def __post_init__(self) -> None:
        if not isinstance(self.arguments.get("attention_mask"), Tensor):
            raise ModelError("its blocks take no mask (eager attention is needed)")
        for name, value in self.arguments.items():
            tensors = value if isinstance(value, tuple | list) else [value]
            if name not in _KNOWN and any(isinstance(t, Tensor) for t in tensors):
                raise ModelError(f"its blocks take {name!r}, which depends on the tokens")

    def at(self, positions: Int[Tensor, "batch token"], mask: Tensor, past: Past) -> dict[str, Any]:
        """The same call for tokens at `positions`, under our own mask and past."""
        ours: dict[str, Any] = {}
        for name, value in self.arguments.items():
            if isinstance(value, Cache):
                ours[name] = past
            elif name == "attention_mask":
                ours[name] = mask
            elif name == "position_ids":
                ours[name] = positions
            elif name == "position_embeddings" and value is not None:
                # Recorded for one row at positions 0, 1, 2, ...: pick what each token needs.
                ours[name] = tuple(table[0][positions] for table in value)
            else:
                ours[name] = value
        return ours


class _EmbeddedError(Exception):
    """Raised in front of block 0, with what would enter it."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class Trunk:
    """Embedding, blocks and unembedding of a TransformerLens bridge, one step at a time."""

    def __init__(self, bridge: Any) -> None:
        self.bridge = bridge
        self.n_layers: int = bridge.cfg.n_layers
        self.calls: list[BlockCall] = []
        self.n_rehearsed = 0
        self.rehearsal_tokens = torch.empty((1, 0), dtype=torch.long)
        parameter = next(bridge.original_model.parameters())
        self.device, self.dtype = parameter.device, parameter.dtype
        #: How many tokens back each block sees; None where there is no sliding window.
        self.windows: list[int | None] = [
            getattr(block.attn.original_component, "sliding_window", None)
            for block in bridge.blocks
        ]

    def rehearse(self, n_positions: int) -> Float[Tensor, "1 d_vocab"]:
        """Record every block's call for positions 0 .. `n_positions` - 1.

        Returns:
            The model's own logits at the last of them, to compare with.
        """
        calls: list[BlockCall] = []

        def record(block: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            signature = inspect.signature(block.original_component.forward)
            bound = signature.bind(*args, **kwargs).arguments
            extra = bound.pop("kwargs", {})
            named = {**bound, **extra}
            named.pop("hidden_states")
            calls.append(BlockCall({k: v for k, v in named.items() if v is not None}))

        handles = [
            block.register_forward_pre_hook(record, with_kwargs=True)
            for block in self.bridge.blocks
        ]
        positions = torch.arange(n_positions, device=self.device)[None]
        # Any tokens do; these are all different where the vocabulary allows.
        self.rehearsal_tokens = (positions * 7 + 3) % self.bridge.cfg.d_vocab
        try:
            logits = self.bridge(
                self.rehearsal_tokens, position_ids=positions, use_cache=True, logits_to_keep=1
            )
        finally:
            for handle in handles:
                handle.remove()
        self.calls, self.n_rehearsed = calls, n_positions
        return logits[:, -1]

    def embed(
        self, tokens: Int[Tensor, "batch token"], positions: Int[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The residual stream that enters block 0."""

        def stop(block: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            raise _EmbeddedError(args[0] if args else kwargs["hidden_states"])

        # Not `stop_at_layer=0`: that fires block 0's hooks here, and the real run once more.
        handle = self.bridge.blocks[0].register_forward_pre_hook(stop, with_kwargs=True)
        try:
            self.bridge(tokens, position_ids=positions)
        except _EmbeddedError as embedded:
            return embedded.hidden
        finally:
            handle.remove()
        raise AssertionError("the model never reached its first block")

    def block(
        self,
        layer: int,
        hidden: Float[Tensor, "batch token d_model"],
        positions: Int[Tensor, "batch token"],
        mask: Float[Tensor, "batch 1 token key"],
        past: Past,
    ) -> Float[Tensor, "batch token d_model"]:
        """Run one block, with the bridge's hooks, on tokens at any positions."""
        out = self.bridge.blocks[layer](hidden, **self.calls[layer].at(positions, mask, past))
        return out[0] if isinstance(out, tuple) else out
