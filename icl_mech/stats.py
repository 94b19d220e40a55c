"""Intervals. The one home of every statistic that figures and tables show."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binom, binomtest, bootstrap, spearmanr

CONFIDENCE = 0.95
#: Bootstrap draws of statistics that are themselves slow.
N_RESAMPLES_SLOW = 500
N_RESAMPLES = 2000
#: Cells of an array that are resampled at once: more would only take memory.
_CELLS = 2048


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.low != self.low:  # NaN: a single prompt has no interval
            return f"{self.value:.2f} (no interval)"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Estimates:
    """An array of numbers, each with its 95 % interval."""

    value: Float[np.ndarray, "*cell"]
    low: Float[np.ndarray, "*cell"]
    high: Float[np.ndarray, "*cell"]
    n: int


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
        n_resamples=N_RESAMPLES,
        rng=np.random.default_rng(seed),
    )
    interval = drawn.confidence_interval
    return Estimate(value, float(interval.low), float(interval.high), len(values))


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


def paired_difference(
    first: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    second: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    seed: int = 0,
) -> Estimate:
    """Mean of `first - second` over the same prompts, with a bootstrap interval."""
    return mean(np.asarray(first, dtype=float) - np.asarray(second, dtype=float), seed)


def ratio_of_means(
    numerator: Float[np.ndarray, "n *cell"], denominator: Float[np.ndarray, "n"], seed: int = 0
) -> Estimates:
    """Mean of every cell over the mean of `denominator`, with percentile bootstrap intervals.

    The rows (prompts) are resampled, numerator and denominator together. Means before the ratio:
    a single denominator may be near 0. The value is NaN where the mean denominator is 0. There
    is no interval (NaN) for a single row, nor where that of the mean denominator covers 0: the
    ratio is not bounded then.

    >>> ratio_of_means(np.array([[1.0, 4.0], [3.0, 4.0]]), np.array([3.0, 5.0])).value
    array([0.5, 1. ])
    """
    n = len(denominator)
    numerator, denominator = numerator.astype(float), denominator.astype(float)
    value = np.asarray(numerator.mean(axis=0) / (denominator.mean() or np.nan))
    ends = np.full((2, *value.shape), np.nan)
    rng = np.random.default_rng(seed)
    shares = rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES) / n
    below = shares @ denominator
    quantiles = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    least, most = np.quantile(below, quantiles)
    if n > 1 and not least <= 0 <= most:
        cells, flat = numerator.reshape(n, -1), ends.reshape(2, -1)
        with np.errstate(divide="ignore", invalid="ignore"):  # a rare resample may have mean 0
            for i in range(0, cells.shape[1], _CELLS):
                part = slice(i, i + _CELLS)
                flat[:, part] = np.quantile(
                    shares @ cells[:, part] / below[:, None], quantiles, axis=0
                )
    return Estimates(value, ends[0], ends[1], n)


def rank_correlation(
    first: Float[np.ndarray, "prompt item"], second: Float[np.ndarray, "prompt item"], seed: int = 0
) -> Estimate:
    """Spearman's correlation over items of two means over prompts, bootstrapped over prompts."""

    def correlation(rows: np.ndarray) -> float:
        return float(spearmanr(first[rows].mean(axis=0), second[rows].mean(axis=0)).statistic)

    n = len(first)
    value = correlation(np.arange(n))
    if n < 2:
        return Estimate(value, float("nan"), float("nan"), n)
    rng = np.random.default_rng(seed)
    drawn = [correlation(rng.integers(n, size=n)) for _ in range(N_RESAMPLES_SLOW)]
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), n)
