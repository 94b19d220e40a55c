"""Checks of whole numbers and seeds, and the random generators that draw data."""

from collections.abc import Iterable
from operator import index
from typing import Any
from zlib import crc32

import numpy as np

from icl_mech.errors import InputError, shown

#: The largest count of anything drawn: a share of so many prompts has an error of about .01.
MOST = 10_000
#: The largest seed that arrays and files can hold.
LARGEST_SEED = 2**63 - 1


def whole(name: str, value: Any) -> int:
    """A count or a seed as a plain integer, whatever kind of integer it came as (numpy's too).

    >>> whole("n_prompts", np.int64(3))
    3

    Raises:
        InputError: where it is no whole number.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return index(value)
    except TypeError:
        said = value if isinstance(value, float) else shown(value)
        raise InputError(f"{name} is {said}; expected a whole number") from None


def count(name: str, value: Any, least: int = 1) -> int:
    """A count of what is drawn or run, as a plain integer.

    >>> count("n_prompts", 100)
    100

    Args:
        name: as the caller typed it.
        value: the count.
        least: the smallest that works.

    Raises:
        InputError: where it is no whole number, less than `least` or more than `MOST`.
    """
    number = whole(name, value)
    if number < least:
        raise InputError(f"{name} is {shown(number)}; expected at least {least}")
    if number > MOST:
        raise InputError(
            f"{name} is {shown(number)}; expected at most {MOST:,}, of which a share is "
            "known to .01 (drawing far more takes minutes before anything is run)"
        )
    return number


def check_seed(seed: Any) -> int:
    """A seed as a plain integer.

    >>> check_seed(7)
    7

    Raises:
        InputError: where it is negative, no whole number, or more than 64 bits can hold.
    """
    number = whole("seed", seed)
    if number < 0:
        raise InputError(f"seed is {shown(number)}; expected 0 or more")
    if number > LARGEST_SEED:
        raise InputError(f"seed is {shown(number)}; expected at most {LARGEST_SEED}")
    return number


def whole_numbers(name: str, value: Any) -> list[int]:
    """One whole number or several, as a list in the given order.

    >>> whole_numbers("n_shots", 4), whole_numbers("n_shots", (1, 4))
    ([4], [1, 4])

    Raises:
        InputError: where one is no whole number.
    """
    # Text is iterable, too, but "12" does not mean the numbers 1 and 2. An array without axes
    # counts as an Iterable but cannot be iterated over.
    is_one = isinstance(value, str | bytes) or not isinstance(value, Iterable)
    is_one = is_one or getattr(value, "ndim", None) == 0
    return [whole(name, number) for number in ([value] if is_one else value)]


def generator(seed: int, *labels: str) -> np.random.Generator:
    """A separate random generator for each purpose (its labels), the same in every process.

    >>> bool(generator(0, "a").integers(10**6) == generator(0, "a").integers(10**6))
    True

    Raises:
        InputError: as `check_seed`.
    """
    seed = check_seed(seed)
    return np.random.default_rng([seed, *(crc32(label.encode()) for label in labels)])
