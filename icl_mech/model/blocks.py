"""Runs the blocks of a bridge one at a time, for tokens at any positions.

A Transformers model prepares the arguments of its blocks (rotary tables, masks, a cache) inside one
long forward pass. The engine has to call blocks itself in order to run only a suffix, and each row
only from its own layer on. This needs no code per model family: `Blocks.record` runs one ordinary
forward pass and keeps the arguments that the model gave to each block. Later calls repeat these
arguments; of arguments that depend on positions, they take the rows of the tokens that run.
`verification.verify` then checks that the same tokens, run block by block, give the same log
probabilities as the ordinary pass.
"""

import inspect
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import Cache

from icl_mech.errors import ModelError
from icl_mech.model.attention import Context
from icl_mech.model.families import why_not_replayed
from icl_mech.model.masks import Masks, OwnMask, window_of
from icl_mech.model.network import architecture_of, device_of, is_bridge, module_of, some_tokens
from icl_mech.model.norms import computed_once, norms_in
from icl_mech.model.own_modules import OwnModules, Parts


@runtime_checkable
class Past(Protocol):
    """Keys and values of earlier tokens, with the one method of a cache that blocks call.

    Attributes:
        earlier: these keys and values.
        joined: whether `update` returns them in front of the new ones.
    """

    earlier: tuple[Tensor, Tensor] | None
    joined: bool

    def update(self, keys: Tensor, values: Tensor, layer: int) -> tuple[Tensor, Tensor]: ...


class ReplayError(ModelError):
    """The blocks of a model cannot be run one at a time.

    Attributes:
        why: the reason, without the name of the model.
    """

    def __init__(self, bridge: Any, why: str) -> None:
        self.why = why
        super().__init__(
            f"{architecture_of(bridge)} cannot run block by block: {why}. "
            "engine='plain' runs it: a full forward pass for every edit"
        )


#: Arguments that depend on the tokens, and that the engine can compute for other tokens.
_KNOWN = ("attention_mask", "position_ids", "position_embeddings")
#: Placeholders for the cache, mask and positions in a recorded call, which does not keep them.
_PAST, _MASK, _POSITIONS = object(), object(), object()


class Way(IntEnum):
    """How blocks run, from the fastest way to the one that works for the most models.

    ATTEND: Transformers' own modules, with the engine's attention.
    OWN: Transformers' own modules.
    BRIDGE: the bridge's components. A block with hooks inside a module always runs in this way.
    """

    ATTEND = 0
    OWN = 1
    BRIDGE = 2


@dataclass(frozen=True)
class BlockCall:
    """The arguments with which a model calls one of its blocks.

    Attributes:
        arguments: by name, with placeholders for the cache, the mask and the positions.
        window: how many tokens back the block sees; None where there is no sliding window.
    """

    arguments: dict[str, Any]
    window: int | None

    @staticmethod
    def of(arguments: dict[str, Any], n_tokens: int, own: list[OwnMask]) -> "BlockCall":
        """Keep what is needed to repeat a call that was made for tokens 0 .. `n_tokens` - 1.

        Raises:
            ModelError: where a block takes tensors that the engine cannot compute for other
                tokens, or a mask that it cannot build.
        """
        mask = arguments.get("attention_mask")
        if not isinstance(mask, Tensor):
            raise ModelError("its blocks take no mask (eager attention is needed)")
        kept: dict[str, Any] = {"attention_mask": _MASK}
        for name, value in arguments.items():
            tensors = value if isinstance(value, tuple | list) else [value]
            if name not in _KNOWN and any(isinstance(t, Tensor) for t in tensors):
                raise ModelError(f"its blocks take {name!r}, which depends on the tokens")
            if isinstance(value, Cache):
                kept[name] = _PAST
            elif name == "position_ids":
                kept[name] = _POSITIONS
            elif name != "attention_mask":
                kept[name] = value
        return BlockCall(kept, window_of(mask, n_tokens, own))

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """Position tables (RoPE cosines, sines), `[1, position, d]`; empty in many models."""
        return tuple(self.arguments.get("position_embeddings") or ())

    def at(self, positions: "Positions", n: int, mask: Tensor, past: Past) -> dict[str, Any]:
        """The arguments of the same call for the first `n` tokens, with another mask and cache."""
        ours: dict[str, Any] = {}
        for name, value in self.arguments.items():
            if value is _PAST:
                ours[name] = past
            elif value is _MASK:
                ours[name] = mask
            elif value is _POSITIONS:
                ours[name] = positions.of_tokens[:, :n]
            elif name == "position_embeddings" and value is not None:
                ours[name] = tuple(table[:, :n] for table in positions.rows_of(value))
            else:
                ours[name] = value
        return ours


class Positions:
    """The positions of the tokens that run, and their rows of a model's position tables.

    Attributes:
        of_tokens: every token's position.
    """

    def __init__(self, of_tokens: Int[Tensor, "batch token"]) -> None:
        self.of_tokens = of_tokens
        self._picked: dict[int, tuple[Tensor, ...]] = {}

    def rows_of(self, tables: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The tokens' rows of tables that were recorded at positions 0, 1, 2, ...

        The rows are kept, because most blocks have the same tables.
        """
        if id(tables) not in self._picked:
            # If a model lies on several devices, tables and tokens may be on different ones.
            picked = (table[0][self.of_tokens.to(table.device)] for table in tables)
            self._picked[id(tables)] = tuple(picked)
        return self._picked[id(tables)]


class _EmbeddedError(Exception):
    """Raised before block 0 runs; holds the residual stream that would enter it."""

    def __init__(self, hidden: Tensor) -> None:
        super().__init__()
        self.hidden = hidden


class Blocks:
    """Embedding, blocks and unembedding of a TransformerLens bridge, one step at a time.

    Attributes:
        bridge: the model.
        n_layers, device, dtype: of the model.
        calls: the recorded call of each block; empty before `record`.
        windows: how many tokens back each block sees; None where there is no sliding window.
        n_verified: the number of positions for which `calls` were recorded.
        verification_tokens: the tokens of the recorded pass, `[1, n_verified]`.

    Raises:
        ReplayError: where a block has no attention, as in state-space models and hybrids, or the
            family is known not to run block by block.
    """

    def __init__(self, bridge: Any) -> None:
        if not is_bridge(bridge):
            raise ReplayError(
                bridge, "it is a HookedTransformer, whose blocks make their own masks"
            )
        why = why_not_replayed(module_of(bridge).config)
        if why is not None:
            raise ReplayError(bridge, why)
        for layer, block in enumerate(bridge.blocks):
            if not hasattr(block, "attn"):
                raise ReplayError(bridge, f"block {layer} has no attention")
        self.bridge = bridge
        self.n_layers: int = bridge.cfg.n_layers
        self.forget()
        self.verification_tokens = torch.empty((1, 0), dtype=torch.long)
        self.device, self.dtype = device_of(bridge), next(module_of(bridge).parameters()).dtype
        self._own = [OwnMask.of(block.attn.original_component) for block in bridge.blocks]
        self._norms = [norms_in(block) for block in bridge.blocks]
        self._parts: list[Parts | None] = [None for _ in bridge.blocks]
        self._twins: list[OwnModules | None] = [None for _ in bridge.blocks]
        self.way = Way.ATTEND
        self.renew()

    def renew(self) -> None:
        """Make new twins of blocks whose modules were replaced since the last call."""
        for layer, block in enumerate(self.bridge.blocks):
            parts = self._parts[layer]
            if parts is None or not parts.same():
                self._parts[layer] = Parts(block)
                self._twins[layer] = self._twin(block)

    def _twin(self, block: Any) -> OwnModules | None:
        return None if self.way is Way.BRIDGE else OwnModules.of(block, self.way is Way.ATTEND)

    def fall_back(self) -> bool:
        """Switch to the next, slower way of running blocks; false if there is none."""
        if self.way is Way.BRIDGE:
            return False
        self.way = Way(self.way + 1)
        self._twins = [self._twin(block) for block in self.bridge.blocks]
        return True

    def forget(self) -> None:
        """Drop all recorded calls, so that the next prompt records and verifies again."""
        self._learn([], 0)

    def _learn(self, calls: list[BlockCall], n_positions: int) -> None:
        self.calls, self.n_verified = calls, n_positions
        self.windows = [call.window for call in calls]

    def record(self, n_positions: int) -> Float[Tensor, "1 d_vocab"]:
        """Record every block's call for positions 0 .. `n_positions` - 1.

        Returns:
            The model's logits at the last position, for `verification` to compare with.

        Raises:
            ModelError: where a block's call cannot be repeated for other tokens, or its position
                tables differ from those recorded for a shorter prompt.
        """
        calls: list[BlockCall] = []

        def record(block: Any, args: tuple, kwargs: dict[str, Any]) -> None:
            signature = inspect.signature(block.original_component.forward)
            bound = signature.bind(*args, **kwargs).arguments
            extra = bound.pop("kwargs", {})
            named = {k: v for k, v in {**bound, **extra}.items() if v is not None}
            named.pop("hidden_states")
            calls.append(BlockCall.of(named, n_positions, self._own[len(calls)]))

        handles = [
            block.register_forward_pre_hook(record, with_kwargs=True)
            for block in self.bridge.blocks
        ]
        positions = torch.arange(n_positions, device=self.device)[None]
        tokens = some_tokens(self.bridge.cfg.d_vocab, n_positions)
        self.verification_tokens = torch.tensor([tokens], device=self.device)
        try:
            logits = self.bridge(
                self.verification_tokens, position_ids=positions, use_cache=True, logits_to_keep=1
            )
        finally:
            for handle in handles:
                handle.remove()
        _refuse_other_tables(self.calls, calls)
        self._learn(calls, n_positions)
        return logits[:, -1]

    def embed(
        self, tokens: Int[Tensor, "batch token"], positions: Int[Tensor, "batch token"]
    ) -> Float[Tensor, "batch token d_model"]:
        """The residual stream that enters block 0."""

        def stop(*args: Any, **kwargs: Any) -> None:
            raise _EmbeddedError(args[0] if args else kwargs["hidden_states"])

        # Not `stop_at_layer=0`: it would call block 0's hooks, which the real run calls again. Nor
        # a hook: every block would then be searched for new hooks.
        first = vars(self.bridge.blocks[0])
        own = first.get("forward")  # where accelerate set one
        first["forward"] = stop
        try:
            self.bridge(tokens, position_ids=positions)
        except _EmbeddedError as embedded:
            return embedded.hidden
        finally:
            del first["forward"]
            if own is not None:
                first["forward"] = own
        raise AssertionError("the model never reached its first block")

    def block(
        self,
        layer: int,
        hidden: Float[Tensor, "batch token d_model"],
        positions: Positions,
        masks: Masks,
        past: Past,
    ) -> Float[Tensor, "batch token d_model"]:
        """Run one block with the bridge's hooks; `positions` may cover more tokens than `hidden`.

        The tokens of `hidden` are then the first of them.
        """
        n, twin = hidden.shape[1], self._twins[layer]
        context = Context(past.earlier, masks)
        watched = None if twin is None else twin.watched()
        attends = twin is not None and watched is not None and twin.attends
        past.joined = not attends
        # `attend` has its own masks; the module only needs some tensor as its mask.
        mask = masks.compact if attends else masks.whole(n)
        arguments = self.calls[layer].at(positions, n, mask, past)
        with ExitStack() as stack:
            for own in self._own[layer]:
                stack.enter_context(own.off())
            if twin is None or watched is None:
                stack.enter_context(computed_once(self._norms[layer]))
                out = self.bridge.blocks[layer](hidden, **arguments)
            else:
                out = twin.run(hidden, arguments, context, watched)
        if attends and not context.attended:
            raise ModelError("its attention does not ask how to attend")
        return out[0] if isinstance(out, tuple) else out


def _refuse_other_tables(short: Sequence[BlockCall], long: Sequence[BlockCall]) -> None:
    """Raise ModelError where position tables depend on the length of the prompt.

    RoPE may depend on the length ("longrope", "dynamic"). The engine uses one table for prompts of
    all lengths, so that they can share a batch.
    """
    for before, after in zip(short, long, strict=False):
        for old, new in zip(before.tables, after.tables, strict=True):
            n = old.shape[1]
            # A table's length may change the last bits; another frequency changes far more.
            tolerance = max(1e-4, 2 * torch.finfo(old.dtype).eps)
            if not torch.allclose(old, new[:, :n], atol=tolerance, rtol=0):
                raise ModelError(
                    f"its position embeddings depend on the prompt's length: those of {n} and of "
                    f"{new.shape[1]} tokens differ (shorter prompts may run)"
                )
