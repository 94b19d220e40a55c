"""Which tokens attention sees: the masks that we make, and those that a model was seen to use.

A model's masks are read off one real forward. What every block saw there is compared, key by key,
with what the engine will let it see: an exact proof, in any number format. (Where the window of a
family is written down differs: on the module, in the config, per layer or for all.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from icl_mech.errors import ModelError

#: Added to a score, it hides a key in any format: the lowest float16.
_HIDES = torch.finfo(torch.float16).min
#: Larger than any sequence: a view of one number, which costs nothing.
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
class OwnMask:
    """A mask that an attention module keeps itself, by column (GPT-Neo's local attention).

    Branches lie side by side, so a key's column says nothing of its position: while our own mask
    is in force, this one has to let everything through.
    """

    module: torch.nn.Module
    name: str

    @property
    def seen(self) -> Bool[Tensor, "1 1 query key"]:
        """Which columns each row lets through."""
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
        """Let every key through for the while, in sequences of any length."""
        kept = self.seen
        everything = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=kept.device)
        setattr(self.module, self.name, everything.expand(1, 1, _ENDLESS, _ENDLESS))
        try:
            yield
        finally:
            setattr(self.module, self.name, kept)


def window_of(mask: Tensor, n_tokens: int, own: list[OwnMask]) -> int | None:
    """How many tokens back a block saw in one forward over tokens 0, 1, 2, ...

    >>> window_of(torch.ones(1, 1, 4, 4, dtype=torch.bool).tril().triu(-1), 4, [])
    2

    Args:
        mask: that the block was given, `[1, head or 1, token, key]`: true or 0 where seen. Its
            keys may be more than there were tokens.
        n_tokens: how many there were.
        own: masks of its attention module, which hide keys too.

    Returns:
        None where every token saw all that came before.

    Raises:
        ModelError: where that is not what it saw: chunks, biases, tokens to come.
    """
    if mask.ndim != 4:
        raise ModelError(f"its mask has {mask.ndim} axes; expected 4: batch, head, token, key")
    mask = mask[..., :n_tokens]
    seen = mask if mask.dtype == torch.bool else mask == 0
    if mask.dtype != torch.bool and not bool((seen | (mask <= _HIDES)).all()):
        raise ModelError("its mask does more than hide tokens (biases by position, as in ALiBi)")
    for theirs in own:
        seen = seen & theirs.seen[..., :n_tokens, :n_tokens]
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
