"""Intervals as plotly's error bars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from icl_mech.stats import Estimate


def whiskers(value: ArrayLike, low: ArrayLike, high: ArrayLike, **options: Any) -> dict[str, Any]:
    """What `error_x` and `error_y` take.

    Args:
        value: where the marks stand.
        low, high: ends of their intervals; an end on the wrong side of its mark counts as on it.
        options: more of plotly's, or others than the usual ones.
    """
    at = np.asarray(value, dtype=float)
    return {
        "type": "data",
        "symmetric": False,
        "array": (np.asarray(high, dtype=float) - at).clip(min=0),
        "arrayminus": (at - np.asarray(low, dtype=float)).clip(min=0),
        "thickness": 1.2,
        "width": 4,
        **options,
    }


def interval_whiskers(estimates: Sequence[Estimate], **options: Any) -> dict[str, Any]:
    """The intervals of estimates, as `whiskers`."""
    ends = ([getattr(e, name) for e in estimates] for name in ("value", "low", "high"))
    return whiskers(*ends, **options)
