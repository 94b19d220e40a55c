"""Batches that fit into memory: after an out-of-memory error, warn and halve them."""

import warnings
from collections.abc import Iterator
from typing import TypeVar

import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from icl_mech.errors import ModelError, first_line

T = TypeVar("T")


class MemoryWarning(UserWarning):
    """A batch did not fit into memory; later batches are half as large."""


#: The number of halvings after which an error says that the model does not fit into memory.
MAX_HALVINGS = 10


class Budget:
    """The number of tokens that may run at once; it is halved when memory runs out.

    Attributes:
        tokens: the largest number of tokens that run through a block together, at least 1.
        halvings: how often `tokens` was halved (recorded in a result's provenance).
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.halvings = 0

    @property
    def share(self) -> float:
        """The factor by which chunks of logits shrink: one half for every halving."""
        return 0.5**self.halvings

    def survives(self, error: BaseException) -> bool:
        """Whether `error` means that memory ran out; if so, halve the budget and warn.

        Raises:
            ModelError: where nothing is left to halve.
        """
        if not out_of_memory(error):
            return False
        if self.tokens <= 1 and self.halvings >= MAX_HALVINGS:
            raise ModelError(
                f"out of memory on a single prompt ({first_line(error)}), after batches were "
                f"halved {self.halvings} times; expected memory for one prompt. Free memory, or "
                "use a smaller model, shorter prompts or dtype='bfloat16'"
            ) from error
        self.tokens = max(1, self.tokens // 2)
        self.halvings += 1
        clear_device_cache()
        warnings.warn(
            f"out of memory: from now on, batches of {self.tokens} tokens",
            MemoryWarning,
            stacklevel=3,
        )
        return True


def out_of_memory(error: BaseException) -> bool:
    """Whether an error, from any library, means that memory ran out.

    >>> out_of_memory(MemoryError()), out_of_memory(ValueError())
    (True, False)
    """
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, Exception) and should_reduce_batch_size(error)
    )


def runs(sizes: list[int], limit: int, equal: bool = False) -> Iterator[slice]:
    """Cut items into consecutive runs whose padded size (count x largest) is at most `limit`.

    >>> [(s.start, s.stop) for s in runs([3, 3, 4, 9], 10)]
    [(0, 2), (2, 3), (3, 4)]

    Args:
        sizes: of the items.
        limit: the largest padded size of a run; a larger item is a run by itself.
        equal: whether all items of a run must have the same size.
    """
    start, largest = 0, 0
    for i, size in enumerate(sizes):
        largest = max(largest, size)
        other = equal and size != sizes[start]
        if i > start and (other or (i - start + 1) * largest > limit):
            yield slice(start, i)
            start, largest = i, size
    if start < len(sizes):
        yield slice(start, len(sizes))


def even(n: int, most: int) -> int:
    """The batch size that cuts n items into nearly equal batches of at most `most` items.

    >>> even(10, 4)
    4
    >>> even(9, 4), even(0, 4)
    (3, 4)
    """
    return -(-n // -(-n // most)) if n else most
