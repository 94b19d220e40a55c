"""Random generators for data that are drawn and not stored."""

from zlib import crc32

import numpy as np

from icl_mech.errors import InputError


def generator(seed: int, *labels: str) -> np.random.Generator:
    """A random generator of its own for each purpose, the same in every process.

    Raises:
        InputError: where the seed is negative.
    """
    if seed < 0:
        raise InputError(f"seed is {seed}; expected 0 or more")
    return np.random.default_rng([seed, *(crc32(label.encode()) for label in labels)])
