"""Factors on vectors that are added."""

from collections.abc import Iterable
from math import isfinite
from typing import Any

from icl_mech.errors import InputError


def check_scales(scale: Any) -> list[float]:
    """One factor or several, as plain numbers.

    Raises:
        InputError: where there is none, or one is no finite number.
    """
    is_one = isinstance(scale, str) or not isinstance(scale, Iterable)
    scales = []
    for given in [scale] if is_one else scale:
        try:
            scales.append(float(given))
        except (TypeError, ValueError):
            raise InputError(f"scale is {given!r}; expected a number") from None
        if not isfinite(scales[-1]):
            raise InputError(f"scale is {given}; expected a finite number")
    if not scales:
        raise InputError("no scale; expected at least one number")
    return scales
