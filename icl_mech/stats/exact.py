"""Intervals that need no resampling: of a proportion, a median, and a mean of a few values."""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binom, binomtest, t

from icl_mech.stats.estimate import CONFIDENCE, Estimate


def proportion(right: Bool[np.ndarray, "n"]) -> Estimate:
    """Share of `True` with its Wilson interval (one trial per prompt).

    >>> print(proportion(np.array([True, True, True, False])))
    0.75 [0.30, 0.95]
    """
    n, k = len(right), int(right.sum())
    interval = binomtest(k, n).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(k / n, float(interval.low), float(interval.high), n)


def proportions(right: Bool[np.ndarray, "row n"]) -> list[Estimate]:
    """`proportion` of every row."""
    return [proportion(row) for row in right]


def median(values: Float[np.ndarray, "n"]) -> Estimate:
    """Median with its distribution-free interval (order statistics, ends from the binomial).

    Values may be infinite, as "never" is among waiting times; then the median or an end of the
    interval may be. No interval (NaN) for fewer than 6 values: none of 95 % exists.

    >>> print(median(np.array([3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 7.0])))
    4.00 [1.00, 7.00]
    """
    n, ordered = len(values), np.sort(values)
    value = float(np.median(ordered)) if n else float("nan")
    k = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5)) if n else 0
    if k < 1:
        return Estimate(value, float("nan"), float("nan"), n)
    return Estimate(value, float(ordered[k - 1]), float(ordered[n - k]), n)


def few_mean(values: Float[np.ndarray, "n"]) -> Estimate:
    """Mean of a few independent values (training seeds) with Student's t interval.

    No interval (NaN) for a single value.

    >>> print(few_mean(np.array([1.0, 2.0, 3.0])))
    2.00 [-0.48, 4.48]
    """
    n = len(values)
    value = float(np.mean(values)) if n else float("nan")
    if n < 2:
        return Estimate(value, float("nan"), float("nan"), n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * np.std(values, ddof=1) / n**0.5)
    return Estimate(value, value - half, value + half, n)
