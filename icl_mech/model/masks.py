"""Builds the engine's attention masks, and finds the sliding windows of a model's own masks.

A model's masks are recorded in one ordinary forward pass and compared, key by key, with the masks
that the engine builds. So a sliding window is found without knowing where a family stores its
length (on the module, in the config, per layer or for all layers).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_mech.errors import ModelError

#: The lowest float16: added to a score, it hides a key in any number format.
_HIDES = torch.finfo(torch.float16).min
#: Longer than any sequence. A mask of this size is a view of one number and takes no memory.
_ENDLESS = 2**31


def visible(
    prefix: Int[Tensor, "prompt key"],
    branches: Int[Tensor, "prompt branch token"],
    window: int | None,
) -> Bool[Tensor, "prompt query all_keys"]:
    """Which keys (the prefix's, then the branches' own) each branch token sees.

    >>> first, own = torch.tensor([[0, 1]]), torch.tensor([[[2, 3], [2, 3]]])  # two branches
    >>> visible(first, own, window=None)[0].int()
    tensor([[1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 1, 0, 0, 1, 0],
            [1, 1, 0, 0, 1, 1]], dtype=torch.int32)
    """
    n_prompts, n_branches, n_tokens = branches.shape
    queries = branches.flatten(1)
    index = torch.arange(n_branches * n_tokens, device=queries.device)
    branch, offset = index // n_tokens, index % n_tokens
    own = (branch[:, None] == branch) & (offset[:, None] >= offset)
    earlier = (prefix[:, None] >= 0) & (prefix[:, None] <= queries[..., None])
    seen = torch.cat([earlier, own.expand(n_prompts, -1, -1)], dim=-1)
    if window is not None:
        keys = torch.cat([prefix, queries], dim=1)
        seen &= queries[..., None] - keys[:, None] < window
    return seen


def additive(seen: Bool[Tensor, "prompt query key"], dtype: torch.dtype) -> Tensor:
    """The mask that attention adds to its scores: 0 where seen, the lowest number elsewhere.

    >>> additive(torch.tensor([[[True, False]]]), torch.float16)
    tensor([[[[     0., -65504.]]]], dtype=torch.float16)
    """
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


@dataclass(frozen=True)
class Masks:
    """The masks of branches on a prefix, for blocks with the same sliding window.

    Attributes:
        prefix: position of each key of the prefix; -1 where a column is padding.
        branches: position of each token of each branch.
        window: how many tokens back a token sees; None for all.
        dtype: of the masks.
        hidden: further keys (the prefix's, then the branch's own) that tokens of branches do not
            see; it has one head if it is the same for all heads.
    """

    prefix: Int[Tensor, "prompt key"]
    branches: Int[Tensor, "prompt branch token"]
    window: int | None
    dtype: torch.dtype
    hidden: Bool[Tensor, "prompt head branch token all_keys"] | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens per branch."""
        return self.branches.shape[2]

    @property
    def causal(self) -> bool:
        """Whether these are whole sequences whose tokens see all tokens before them."""
        alone = self.prefix.shape[1] == 0 and self.branches.shape[1] == 1 and self.hidden is None
        return alone and (self.window is None or self.window >= self.n_tokens)

    def without(self, hidden: Bool[Tensor, "prompt head branch token all_keys"]) -> "Masks":
        """The same masks with some further keys hidden."""
        return replace(self, hidden=hidden)

    @cached_property
    def compact(self) -> Float[Tensor, "prompt head query key"]:
        """The mask of every branch token over the prefix's keys, then those of its own branch.

        It has one head if all heads see the same keys.
        """
        n_branches, n = self.branches.shape[1:]
        queries = self.branches.flatten(1)[..., None]
        own = torch.ones(n, n, dtype=torch.bool, device=queries.device).tril().repeat(n_branches, 1)
        earlier = (self.prefix[:, None] >= 0) & (self.prefix[:, None] <= queries)
        seen = torch.cat([earlier, own.expand(len(queries), -1, -1)], dim=2)
        if self.window is not None:
            theirs = self.branches.repeat_interleave(n, dim=1)
            keys = [self.prefix[:, None].expand(-1, theirs.shape[1], -1), theirs]
            seen &= queries - torch.cat(keys, dim=2) < self.window
        mask = additive(seen, self.dtype)
        if self.hidden is None:
            return mask
        return mask.masked_fill(self.hidden.flatten(2, 3), torch.finfo(self.dtype).min)

    @cached_property
    def _whole(self) -> Float[Tensor, "prompt head query key"]:
        mask = additive(visible(self.prefix, self.branches, self.window), self.dtype)
        if self.hidden is None:
            return mask
        n_earlier, n = self.prefix.shape[1], self.n_tokens
        lowest = torch.finfo(self.dtype).min
        mask = mask.repeat(1, self.hidden.shape[1], 1, 1)
        earlier, own = self.hidden.split([n_earlier, n], dim=-1)
        mask[..., :n_earlier].masked_fill_(earlier.flatten(2, 3), lowest)
        for branch in range(self.branches.shape[1]):
            rows = slice(branch * n, (branch + 1) * n)
            columns = slice(n_earlier + rows.start, n_earlier + rows.stop)
            mask[:, :, rows, columns].masked_fill_(own[:, :, branch], lowest)
        return mask

    def whole(self, n: int) -> Float[Tensor, "prompt head query key"]:
        """The mask of the first `n` branch tokens over the prefix's keys, then those `n` tokens."""
        return self._whole[:, :, :n, : self.prefix.shape[1] + n]


@dataclass(frozen=True)
class OwnMask:
    """A mask that an attention module stores itself, by column (GPT-Neo's local attention).

    Branches run side by side, so the column of a key is not its position. While the engine's mask
    is used, this one must let every key through.
    """

    module: torch.nn.Module
    name: str

    @property
    def seen(self) -> Bool[Tensor, "1 1 query key"]:
        """Which keys (columns) each query (row) sees."""
        return self.module.get_buffer(self.name)

    @staticmethod
    def of(attention: torch.nn.Module) -> list["OwnMask"]:
        """Every such mask below a module."""
        return [
            OwnMask(module, name)
            for module in attention.modules()
            for name, buffer in module.named_buffers(recurse=False)
            if buffer.dtype == torch.bool and buffer.ndim == 4
        ]

    @contextmanager
    def off(self) -> Iterator[None]:
        """Let every key through temporarily, in sequences of any length."""
        kept = self.seen
        everything = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=kept.device)
        setattr(self.module, self.name, everything.expand(1, 1, _ENDLESS, _ENDLESS))
        try:
            yield
        finally:
            setattr(self.module, self.name, kept)


def window_of(mask: Tensor, n_tokens: int, own: list[OwnMask]) -> int | None:
    """How many tokens back a block saw in one forward pass over tokens 0, 1, 2, ...

    >>> window_of(torch.ones(1, 1, 4, 4, dtype=torch.bool).tril().triu(-1), 4, [])
    2

    Args:
        mask: the block's mask, `[1, head or 1, token, key]`: true or 0 where a key is seen. It may
            have more keys than there were tokens.
        n_tokens: the number of tokens.
        own: masks of the attention module itself, which hide keys too.

    Returns:
        The length of the sliding window; None if every token saw all earlier ones.

    Raises:
        ModelError: where the mask is not causal, or has chunks or biases.
    """
    if mask.ndim != 4:
        raise ModelError(f"its mask has {mask.ndim} axes; expected 4: batch, head, token, key")
    mask = mask[..., :n_tokens]
    seen = mask if mask.dtype == torch.bool else mask == 0
    if mask.dtype != torch.bool and not bool((seen | (mask <= _HIDES)).all()):
        raise ModelError("its mask does more than hide tokens (biases by position, as in ALiBi)")
    for theirs in own:
        seen = seen & theirs.seen[..., :n_tokens, :n_tokens].to(seen.device)
    last = int(seen[0, 0, -1].sum())
    window = None if last == n_tokens else last
    positions = torch.arange(n_tokens, device=mask.device)[None]
    expected = visible(positions[:, :0], positions[:, None], window)[:, None]
    if seen.shape[2:] != expected.shape[2:] or not bool((seen == expected).all()):
        raise ModelError(
            "its tokens see others than all before them, or the last so many (chunks of "
            "attention, or tokens that see what comes after)"
        )
    return window
