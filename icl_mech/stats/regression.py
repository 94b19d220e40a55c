"""R²: the share of the variance of one number that a straight line in another one explains."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from icl_mech.stats.estimate import ENDS, Estimate


def r_squared(
    x: Float[np.ndarray, "*draw row"],
    y: Float[np.ndarray, "*draw row"],
    groups: Sequence[object] | None = None,
) -> Float[np.ndarray, "*draw"]:
    """R² of the straight line through the rows: the square of their correlation.

    With `groups` (one label per row), each group's mean is subtracted first: R² is then the share
    of the variance within groups that x explains. NaN if x or y does not vary.

    Example:
        >>> x = np.array([0.0, 1.0, 2.0])
        >>> float(r_squared(x, 1 - 2 * x))
        1.0
    """
    if groups is not None:
        _, index = np.unique([str(group) for group in groups], return_inverse=True)
        member = np.equal.outer(index, index)
        averaging = member / member.sum(axis=1)
        x, y = x - x @ averaging, y - y @ averaging
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    explained, spread = (x * y).sum(-1) ** 2, (x**2).sum(-1) * (y**2).sum(-1)
    enough = spread > 1e-18
    return np.where(enough, explained / np.where(enough, spread, 1), np.nan)


def r_squared_estimate(
    x: Float[np.ndarray, "row"],
    y: Float[np.ndarray, "row"],
    drawn_x: Float[np.ndarray, "draw row"],
    drawn_y: Float[np.ndarray, "draw row"],
    groups: Sequence[object] | None = None,
) -> Estimate:
    """`r_squared` with the percentile interval of its bootstrap draws; `n` counts the rows.

    R² cannot be negative, so an interval that begins near 0 is no evidence of a relation.

    Example:
        >>> x = np.array([0.0, 1.0, 2.0])
        >>> drawn = np.stack([x, x + 1])
        >>> print(r_squared_estimate(x, 2 * x, drawn, 2 * drawn))
        1.00 [1.00, 1.00]
    """
    drawn = r_squared(drawn_x, drawn_y, groups)
    drawn = drawn[np.isfinite(drawn)]
    value = float(r_squared(x, y, groups))
    if not len(drawn) or np.isnan(value):
        return Estimate(value, float("nan"), float("nan"), len(x))
    low, high = np.quantile(drawn, ENDS)
    return Estimate(value, float(low), float(high), len(x))
