"""The blocks of a bridge, callable one at a time, on any mix of positions.

A Transformers model prepares what its blocks need (rotary tables, masks, a cache) inside one
long forward. To run only a suffix, and each row only from its own layer on, the engine has to
call blocks itself. It needs no code per family: `Blocks.record` runs one ordinary forward pass and
keeps the arguments that the model gave to each block. Later calls repeat these arguments, with the
rows of the position-dependent ones that the tokens at hand need. `verification.verify` then checks
that the same tokens, run block by block, give the same log probabilities as the ordinary pass.
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
    """The keys and values of earlier tokens, as a block asks for them: a cache's one method.

    Attributes:
        earlier: these keys and values.
        joined: whether `update` returns them before the new ones.
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


#: Arguments that depend on the tokens, and that can be made anew for other tokens.
_KNOWN = ("attention_mask", "position_ids", "position_embeddings")
#: Placeholders in a recorded call for its cache, mask and positions, which are not kept.
_PAST, _MASK, _POSITIONS = object(), object(), object()


class Way(IntEnum):
    """How blocks run, from the fastest way to the one that asks least of a model.

    ATTEND: Transformers' own modules, with the engine's attention.
    OWN: Transformers' own modules.
    BRIDGE: through the bridge's components, as always where a hook watches the inside of a module.
    """

    ATTEND = 0
    OWN = 1
    BRIDGE = 2


@dataclass(frozen=True)
class BlockCall:
    """The arguments, by name, with which a model calls one of its blocks.

    Attributes:
        arguments: by name; placeholders stand for the cache, the mask and the positions.
        window: how many tokens back the block sees; None where there is no sliding window.
    """

    arguments: dict[str, Any]
    window: int | None

    @staticmethod
    def of(arguments: dict[str, Any], n_tokens: int, own: list[OwnMask]) -> "BlockCall":
        """Keep what is needed to repeat a call that was made for tokens 0 .. `n_tokens` - 1.

        Raises:
            ModelError: where a block is given tensors that cannot be made for other tokens, or a
                mask that the engine cannot make.
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
    """The positions of the tokens that run, and what these pick from a model's position tables.

    Attributes:
        of_tokens: every token's position.
    """

    def __init__(self, of_tokens: Int[Tensor, "batch token"]) -> None:
        self.of_tokens = of_tokens
        self._picked: dict[int, tuple[Tensor, ...]] = {}

    def rows_of(self, tables: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Rows of tables recorded at positions 0, 1, 2, ...; most blocks have the same tables."""
        if id(tables) not in self._picked:
            # A model may lie on several devices, its tables on another than its tokens.
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
        calls: how the model calls each block, once that is recorded.
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
        """Make new twins of blocks whose modules were exchanged since the last call."""
        for layer, block in enumerate(self.bridge.blocks):
            parts = self._parts[layer]
            if parts is None or not parts.same():
                self._parts[layer] = Parts(block)
                self._twins[layer] = self._twin(block)

    def _twin(self, block: Any) -> OwnModules | None:
        return None if self.way is Way.BRIDGE else OwnModules.of(block, self.way is Way.ATTEND)

    def fall_back(self) -> bool:
        """Run blocks the next, slower way; false where there is none."""
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
            ModelError: where a block's call cannot be made for other tokens, or differs from
                the call recorded for a shorter prompt.
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
        positions: Positions,
        masks: Masks,
        past: Past,
    ) -> Float[Tensor, "batch token d_model"]:
        """Run one block, with the bridge's hooks, on the first tokens that have positions."""
        n, twin = hidden.shape[1], self._twins[layer]
        context = Context(past.earlier, masks)
        with ExitStack() as stack:
            for own in self._own[layer]:
                stack.enter_context(own.off())
            run: Any = self.bridge.blocks[layer]
            attends = False
            if twin is not None and stack.enter_context(twin.running(context)):
                run, attends = twin.module, twin.attends
            else:
                stack.enter_context(computed_once(self._norms[layer]))
            past.joined = not attends
            # Where `attend` has its own masks, any tensor tells a module that it has one.
            mask = masks.compact if attends else masks.whole(n)
            out = run(hidden, **self.calls[layer].at(positions, n, mask, past))
        if attends and not context.attended:
            raise ModelError("its attention does not ask how to attend")
        return out[0] if isinstance(out, tuple) else out


def _refuse_other_tables(short: Sequence[BlockCall], long: Sequence[BlockCall]) -> None:
    """Raise ModelError where position tables depend on the length of the prompt.

    RoPE may depend on the length ("longrope", "dynamic"). One table serves prompts of all lengths
    here, so that they can share a batch.
    """
    for before, after in zip(short, long, strict=False):
        for old, new in zip(before.tables, after.tables, strict=True):
            n = old.shape[1]
            # Last bits may depend on a table's length; another frequency differs by far more.
            tolerance = max(1e-4, 2 * torch.finfo(old.dtype).eps)
            if not torch.allclose(old, new[:, :n], atol=tolerance, rtol=0):
                raise ModelError(
                    f"its position embeddings depend on the prompt's length: those of {n} and of "
                    f"{new.shape[1]} tokens differ (shorter prompts may run)"
                )
