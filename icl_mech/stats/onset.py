"""The step of training at which a curve rises, and which of two curves rises first."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from icl_mech.errors import InputError
from icl_mech.stats.estimate import Estimate

#: The share of its whole change that a curve has made at its onset.
FRACTION = 0.5


def onset(
    steps: Sequence[int],
    curve: Float[np.ndarray, "step"],
    fraction: float = FRACTION,
    log: bool = False,
) -> float:
    """The step at which a curve has gone a fraction of the way from its start to its end, for good.

    Between two checkpoints the curve is taken as straight. The crossing is the last one: a peak
    that is lost again is no onset. NaN for a curve that ends where it began.

    Args:
        steps: of the checkpoints, rising.
        curve: a value at each.
        fraction: of the whole change, between 0 and 1.
        log: the curve is straight over `log_position` instead, for checkpoints whose distances
            grow.

    Raises:
        InputError: where the fraction is not between 0 and 1, or there are not two checkpoints.

    >>> onset([0, 10, 20, 30], np.array([1.0, 1.0, 0.0, 0.0]))
    15.0
    >>> round(onset([1, 99], np.array([0.0, 1.0]), log=True), 3)
    13.142
    """
    return float(crossings(steps, share_of_change(curve, fraction), fraction, log))


def share_of_change(
    curves: Float[np.ndarray, "*batch step"], fraction: float
) -> Float[np.ndarray, "..."]:
    """Each curve minus its start, over its whole change; NaN if it ends where it began.

    Raises:
        InputError: where the fraction that they are compared with is not between 0 and 1.

    >>> share_of_change(np.array([2.0, 3.0, 4.0]), 0.5)
    array([0. , 0.5, 1. ])
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction is {fraction}; expected between 0 and 1")
    first, change = curves[..., :1], curves[..., -1:] - curves[..., :1]
    share: np.ndarray = (curves - first) / np.where(change == 0, np.nan, change)
    return share


def crossing(
    steps: Sequence[int], curve: Float[np.ndarray, "step"], level: float, log: bool = False
) -> float:
    """The step at which a curve rises above a level for good, straight between checkpoints.

    NaN for a curve that does not end above it, or was never below.

    Raises:
        InputError: where there are not two checkpoints.

    >>> crossing([0, 10, 20], np.array([0.0, 0.0, 4.0]), 1.0)
    12.5
    """
    return float(crossings(steps, curve, level, log))


def crossings(
    steps: Sequence[int],
    curves: Float[np.ndarray, "*batch step"],
    level: float,
    log: bool = False,
) -> Float[np.ndarray, "*batch"]:
    """`crossing` of every curve.

    Raises:
        InputError: where there are not two checkpoints.

    >>> crossings([0, 10], np.array([[0.0, 1.0], [1.0, 1.0]]), 0.5)
    array([ 5., nan])
    """
    if len(steps) < 2:
        raise InputError(f"{len(steps)} checkpoints; expected at least 2")
    n = len(steps)
    at = log_position(steps, steps) if log else np.asarray(steps, dtype=float)
    below = curves < level
    last = n - 1 - below[..., ::-1].argmax(axis=-1)  # the last checkpoint below the level
    there = below.any(axis=-1) & (last < n - 1)
    before = np.where(there, last, 0)
    low, high = (
        np.take_along_axis(curves, (before + i)[..., None], axis=-1)[..., 0] for i in (0, 1)
    )
    share = (level - low) / np.where(there, high - low, 1)
    found = at[before] + share * (at[before + 1] - at[before])
    if log:
        found = np.expm1(found) * _unit(steps)
    return np.asarray(np.where(there, found, np.nan), dtype=float)


def log_position(values: ArrayLike, steps: Sequence[int]) -> Float[np.ndarray, "*value"]:
    """Positions of steps on a logarithmic axis that also has a place for step 0.

    The position is log(1 + step / first), where `first` is the first checkpoint after step 0. Step
    0 is then about as far to the left of `first` as a step twice as late is to the right of it.

    Args:
        values: steps, whole or not; NaN stays.
        steps: of all checkpoints.

    >>> log_position([0, 100, 300], [0, 100, 1000]).round(3)
    array([0.   , 0.693, 1.386])
    """
    return np.log1p(np.asarray(values, dtype=float) / _unit(steps))


def _unit(steps: Sequence[int]) -> float:
    return float(min((step for step in steps if step > 0), default=1))


def known_step(steps: Sequence[int], step: int | None) -> int:
    """A checkpoint's step; the last one for None.

    >>> known_step([0, 10, 100], None)
    100

    Raises:
        InputError: where there is no such checkpoint, with the nearest.
    """
    if step is None:
        return steps[-1]
    if step not in steps:
        near = min(steps, key=lambda known: abs(known - step))
        raise InputError(f"no checkpoint after {step} steps; the nearest is after {near}")
    return step


def lead_in_words(lead: Estimate | float) -> str:
    """A lead in words: a negative one is said to lag.

    >>> lead_in_words(1886.6), lead_in_words(-624.0)
    ('leads by 1,887', 'lags by 624')
    >>> lead_in_words(Estimate(-624.0, -803.0, -445.0, 3))
    'lags by 624 [445, 803]'
    """
    if not isinstance(lead, Estimate):
        return (
            "no onset" if lead != lead else f"{'lags' if lead < 0 else 'leads'} by {abs(lead):,.0f}"
        )
    low, high = (-lead.high, -lead.low) if lead.value < 0 else (lead.low, lead.high)
    interval = "" if low != low else f" [{low:,.0f}, {high:,.0f}]"
    return lead_in_words(lead.value) + interval
