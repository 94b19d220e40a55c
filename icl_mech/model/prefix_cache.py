"""Runs branches of tokens on top of a shared prefix that is already computed.

A *prefix* holds the keys and values of a prompt's first tokens, once per prompt. A *branch* is a
sequence of tokens that continues it: another query after the same demonstrations, or the same
suffix with an edit in it. All branches of a batch run side by side as one longer sequence; each
sees the prefix and itself, never another branch. So the prefix is not copied per branch, and only
a branch's own tokens are computed. A branch may enter at any block: an edit after block `l`
changes nothing below, so the lower blocks do not run for it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.model.blocks import Blocks, Positions
from icl_mech.model.knockouts import Hidden
from icl_mech.model.masks import Masks

Observer = Callable[[int, Float[Tensor, "prompt branch token d_model"]], None]
#: Called with (block, residual stream after it) of whole prompts.
AfterBlock = Callable[[int, Float[Tensor, "prompt token d_model"]], None]
#: Called with (block, keys, values), both `[prompt, kv_head, branch x token, d_head]`.
Keeper = Callable[[int, Tensor, Tensor], None]


@dataclass(frozen=True)
class Prefix:
    """Keys and values of each prompt's first tokens.

    Attributes:
        keys, values: per layer, `[prompt, kv_head, key, d_head]`.
        positions: the position of each key; -1 where a column is padding.
    """

    keys: list[Tensor]
    values: list[Tensor]
    positions: Int[Tensor, "prompt key"]

    @staticmethod
    def empty(n_prompts: int, device: torch.device) -> "Prefix":
        """A prefix without tokens."""
        return Prefix([], [], torch.empty(n_prompts, 0, dtype=torch.long, device=device))

    def before(self, limit: Int[Tensor, "prompt"]) -> "Prefix":
        """The part of the prefix at positions below `limit`."""
        kept = self.positions < limit[:, None]
        width = int(kept.sum(dim=1).max()) if kept.numel() else 0
        return Prefix(
            [k[:, :, :width] for k in self.keys],
            [v[:, :, :width] for v in self.values],
            self.positions.masked_fill(~kept, -1)[:, :width],
        )

    def rows(self, kept: Int[Tensor, "kept"]) -> "Prefix":
        """The prefix of these prompts only."""
        return Prefix(
            [k[kept.to(k.device)] for k in self.keys],
            [v[kept.to(v.device)] for v in self.values],
            self.positions[kept],
        )

    def then(
        self, keys: list[Tensor], values: list[Tensor], positions: Int[Tensor, "prompt token"]
    ) -> "Prefix":
        """This prefix with the keys and values of more tokens appended."""
        return Prefix(
            [torch.cat(pair, dim=2) for pair in zip(self.keys, keys, strict=True)],
            [torch.cat(pair, dim=2) for pair in zip(self.values, values, strict=True)],
            torch.cat([self.positions, positions], dim=1),
        )


class _EnoughError(Exception):
    """Raised inside the last block when its keys and values are known."""


class _Past:
    """Gives one block the prefix's keys and values, and keeps those of the tokens that run.

    Attributes:
        earlier: keys and values of the prefix in this block; None where it has no tokens.
        joined: whether `update` returns them together with the new ones. If not, the block's
            attention takes them from its context (`attention.Context`).
        keys, values: of the tokens that ran.
    """

    def __init__(self, prefix: Prefix, layer: int, stop: bool) -> None:
        self.earlier = (prefix.keys[layer], prefix.values[layer]) if prefix.keys else None
        self.joined, self.stop = True, stop
        self.keys = self.values = torch.empty(0)

    def update(
        self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        # OLMo in half precision rotates its keys in float32: Transformers' cache widens the values.
        values = values.to(torch.promote_types(keys.dtype, values.dtype))
        self.keys, self.values = keys, values
        if self.stop:
            raise _EnoughError
        if self.earlier is None or not self.joined:
            return keys, values
        earlier_keys, earlier_values = self.earlier
        return torch.cat([earlier_keys, keys], dim=2), torch.cat([earlier_values, values], dim=2)


def advance(
    blocks: Blocks,
    prefix: Prefix,
    entering: dict[int, Float[Tensor, "prompt branch token d_model"]],
    positions: Int[Tensor, "prompt branches token"],
    observe: Observer | None = None,
    keep: Keeper | None = None,
    hidden: Hidden | None = None,
) -> Float[Tensor, "prompt branches token d_model"]:
    """Run branches through the blocks and return the residual stream after the last one.

    Args:
        blocks: the model's blocks, recorded for every position used.
        prefix: what the branches continue.
        entering: block -> residual stream entering it, for the branches that start there;
            block `n_layers` means "after the last block".
        positions: of every token of every branch, in the order in which branches enter.
        observe: called with (block, residual stream after it), for the branches that have entered.
        keep: called with (block, keys, values) of the own tokens of the branches that have entered.
        hidden: keys that branches do not see because of knockouts.
    """
    n_tokens = positions.shape[2]
    masks: dict[tuple[int | None, tuple[int, ...]], Masks] = {
        (window, ()): Masks(prefix.positions, positions, window, blocks.dtype)
        for window in set(blocks.windows)
    }

    def masks_of(layer: int) -> Masks:
        window, cuts = blocks.windows[layer], () if hidden is None else hidden.active(layer)
        if hidden is not None and (window, cuts) not in masks:
            masks[window, cuts] = masks[window, ()].without(hidden.mask(cuts))
        return masks[window, cuts]

    places = Positions(positions.flatten(1))
    stream: Tensor | None = None
    for layer in range(min(entering), blocks.n_layers + 1):
        if layer in entering:
            fresh = rearrange(entering[layer], "p b s d -> p (b s) d")
            stream = (
                fresh if stream is None else torch.cat([stream, fresh.to(stream.device)], dim=1)
            )
        assert stream is not None
        if layer == blocks.n_layers:
            break
        past = _Past(prefix, layer, stop=False)
        stream = blocks.block(layer, stream, places, masks_of(layer), past)
        if keep is not None:
            keep(layer, past.keys, past.values)
        if observe is not None:
            observe(layer, rearrange(stream, "p (b s) d -> p b s d", s=n_tokens))
    assert stream is not None
    return rearrange(stream.to(positions.device), "p (b s) d -> p b s d", s=n_tokens)


@dataclass(frozen=True)
class Prefill:
    """A batch of whole prompts after one pass.

    Attributes:
        prefix: keys and values of all tokens.
        resid_pre: per block, the stream that enters it, from token `start` on. The stream after the
            last block is one more entry, unless the pass stopped at that block's keys and values.
        start: the first token kept in `resid_pre`.
        lengths: tokens per prompt.
    """

    prefix: Prefix
    resid_pre: list[Float[Tensor, "prompt token d_model"]]
    start: int
    lengths: Int[Tensor, "prompt"]


@dataclass(frozen=True)
class _Entering:
    """Whole prompts at the first block.

    Attributes:
        hidden: the residual stream that enters it.
        positions: of every token.
        places: the same, with their rows of the model's position tables.
        masks: by window.
        nothing: the prefix, which has no tokens.
    """

    hidden: Float[Tensor, "prompt token d_model"]
    positions: Int[Tensor, "prompt token"]
    places: Positions
    masks: dict[int | None, Masks]
    nothing: Prefix

    @staticmethod
    def of(blocks: Blocks, tokens: Int[Tensor, "prompt token"]) -> "_Entering":
        n_prompts, n_tokens = tokens.shape
        positions = torch.arange(n_tokens, device=tokens.device).expand(n_prompts, -1)
        nothing = Prefix.empty(n_prompts, tokens.device)
        masks = {
            window: Masks(nothing.positions, positions[:, None], window, blocks.dtype)
            for window in set(blocks.windows)
        }
        hidden = blocks.embed(tokens, positions)
        return _Entering(hidden, positions, Positions(positions), masks, nothing)


def run_through(
    blocks: Blocks, tokens: Int[Tensor, "prompt token"], after_block: AfterBlock | None = None
) -> None:
    """Run right-padded prompts through every block once, and keep nothing of them.

    Args:
        blocks: the model's blocks, recorded for every position used.
        tokens: of the prompts; padding comes after the real tokens.
        after_block: called with (block, residual stream after it).
    """
    entering = _Entering.of(blocks, tokens)
    hidden = entering.hidden
    for layer, window in enumerate(blocks.windows):
        past = _Past(entering.nothing, layer, stop=False)
        hidden = blocks.block(layer, hidden, entering.places, entering.masks[window], past)
        if after_block is not None:
            after_block(layer, hidden)


def prefill(
    blocks: Blocks,
    tokens: Int[Tensor, "prompt token"],
    lengths: Int[Tensor, "prompt"],
    start: int,
    keys_only: bool,
) -> Prefill:
    """Run right-padded prompts once, keeping every block's keys and values.

    Padding comes after the real tokens, so they never see it. With `keys_only` the last block stops
    when its keys and values are known, because its output is not needed.
    """
    entering = _Entering.of(blocks, tokens)
    hidden, positions = entering.hidden, entering.positions
    keys: list[Tensor] = []
    values: list[Tensor] = []
    resid_pre = [hidden[:, start:].clone()]
    for layer, window in enumerate(blocks.windows):
        past = _Past(entering.nothing, layer, stop=keys_only and layer == blocks.n_layers - 1)
        try:
            hidden = blocks.block(layer, hidden, entering.places, entering.masks[window], past)
            resid_pre.append(hidden[:, start:].to(tokens.device, copy=True))
        except _EnoughError:
            pass
        keys.append(past.keys)
        values.append(past.values)
    seen = positions.masked_fill(positions >= lengths[:, None], -1)
    return Prefill(Prefix(keys, values, seen), resid_pre, start, lengths)
