"""Intervals. The one home of every statistic that figures and tables show."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binomtest, bootstrap

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


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


def mean(values: Float[np.ndarray, "n"], seed: int = 0) -> Estimate:
    """Mean with a percentile bootstrap interval; no interval (NaN) for a single value.

    Percentile and not BCa, which is undefined where all values are the same.
    """
    value = float(values.mean())
    if len(values) < 2:
        return Estimate(value, float("nan"), float("nan"), len(values))
    drawn: Any = bootstrap(
        (values,),
        np.mean,
        confidence_level=CONFIDENCE,
        method="percentile",
        n_resamples=2000,
        rng=np.random.default_rng(seed),
    )
    interval = drawn.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), len(values))


def paired_difference(
    first: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    second: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    seed: int = 0,
) -> Estimate:
    """Mean of `first - second` over the same prompts, with a bootstrap interval."""
    return mean(np.asarray(first, dtype=float) - np.asarray(second, dtype=float), seed)
