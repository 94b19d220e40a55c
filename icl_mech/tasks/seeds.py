"""Whole numbers that a caller gives, and random generators for data that are drawn."""

from collections.abc import Iterable
from operator import index
from typing import Any
from zlib import crc32

import numpy as np

from icl_mech.errors import InputError


def whole(name: str, value: Any) -> int:
    """A count or a seed as a plain integer, whatever kind of integer it came as (numpy's too).

    >>> whole("n_prompts", np.int64(3))
    3

    Raises:
        InputError: where it is no whole number.
    """
    try:
        return index(value)
    except TypeError:
        said = value if isinstance(value, float) else repr(value)
        raise InputError(f"{name} is {said}; expected a whole number") from None


def whole_numbers(name: str, value: Any) -> list[int]:
    """One whole number or several, as they come.

    >>> whole_numbers("n_shots", 4), whole_numbers("n_shots", (1, 4))
    ([4], [1, 4])

    Raises:
        InputError: where one is no whole number.
    """
    # Text can be gone through too, but "12" is not the numbers 1 and 2.
    is_one = isinstance(value, str) or not isinstance(value, Iterable)
    return [whole(name, number) for number in ([value] if is_one else value)]


def generator(seed: int, *labels: str) -> np.random.Generator:
    """A random generator of its own for each purpose, the same in every process.

    Raises:
        InputError: where the seed is negative or no whole number.
    """
    seed = whole("seed", seed)
    if seed < 0:
        raise InputError(f"seed is {seed}; expected 0 or more")
    return np.random.default_rng([seed, *(crc32(label.encode()) for label in labels)])
