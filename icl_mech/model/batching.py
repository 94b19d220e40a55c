"""Batches that fit: halve on out-of-memory, say so, remember it."""

import warnings
from collections.abc import Iterator
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from icl_mech.errors import ModelError

T = TypeVar("T")


class MemoryWarning(UserWarning):
    """A batch did not fit into memory and was halved."""


class Budget:
    """How many tokens may run through a block at once; shrinks when memory runs out.

    Attributes:
        tokens: today's limit.
        halvings: how often it was halved since the start (goes into a result's provenance).
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.halvings = 0

    def survives(self, error: BaseException) -> bool:
        """True, with a warning and half the budget, if `error` means that memory ran out."""
        out_of_memory = isinstance(error, MemoryError) or (
            isinstance(error, Exception) and should_reduce_batch_size(error)
        )
        if not out_of_memory:
            return False
        if self.tokens <= 1:
            raise ModelError(
                "out of memory with a single token in the batch; expected room for one. "
                "Free memory, or use a smaller model or dtype='bfloat16'"
            ) from error
        self.tokens //= 2
        self.halvings += 1
        clear_device_cache()
        warnings.warn(
            f"out of memory: going on with batches of {self.tokens} tokens",
            MemoryWarning,
            stacklevel=3,
        )
        return True


def runs(sizes: list[int], limit: int) -> Iterator[slice]:
    """Cut items into consecutive runs whose padded size (count x largest) is at most `limit`.

    >>> [(s.start, s.stop) for s in runs([3, 3, 4, 9], 10)]
    [(0, 2), (2, 3), (3, 4)]
    """
    start, largest = 0, 0
    for i, size in enumerate(sizes):
        largest = max(largest, size)
        if i > start and (i - start + 1) * largest > limit:
            yield slice(start, i)
            start, largest = i, size
    if start < len(sizes):
        yield slice(start, len(sizes))
