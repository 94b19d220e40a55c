"""Intervals. The one home of every statistic that figures and tables show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import binom, binomtest, bootstrap, spearmanr

CONFIDENCE = 0.95
#: Bootstrap draws; fewer of statistics that are themselves slow.
N_RESAMPLES = 2000
N_RESAMPLES_SLOW = 500
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

    def at(self, *cell: int) -> Estimate:
        """One of them."""
        value, low, high = (float(a[cell]) for a in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.n)


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


def resampled_means(
    values: Float[np.ndarray, "n *cell"], seed: int = 0, n_draws: int = N_RESAMPLES_SLOW
) -> Float[np.ndarray, "draw *cell"]:
    """Means over bootstrap resamples of the rows (prompts), a row per resample."""
    n = len(values)
    rng = np.random.default_rng(seed)
    shares = rng.multinomial(n, np.full(n, 1 / n), size=n_draws) / n
    return (shares @ values.reshape(n, -1)).reshape(n_draws, *values.shape[1:])


def cluster_weights(clusters: Int[np.ndarray, "n"], seed: int = 0) -> Int[np.ndarray, "draw n"]:
    """How often each value counts in every bootstrap draw of whole clusters.

    Values of one cluster (prompts that share a query) are not independent: they are drawn
    together or not at all.
    """
    names, index = np.unique(clusters, return_inverse=True)
    n = len(names)
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)
    return counts[:, index]


def cluster_means(
    values: Float[np.ndarray, "row n"],
    clusters: Int[np.ndarray, "n"],
    seed: int = 0,
    *,
    shares: bool,
) -> list[Estimate]:
    """Mean of every row with a percentile bootstrap interval over clusters, not over values.

    `n` of an estimate is the number of clusters. No interval (NaN) for a single cluster.

    Args:
        values: NaN makes a row's mean and interval NaN.
        clusters: which values belong together.
        seed: of the bootstrap.
        shares: the values are shares of 1, not differences. A row that is 0 or 1 throughout has
            nothing to resample: it gets the Wilson interval of as many trials as clusters.
    """
    n = len(np.unique(clusters))
    weights = cluster_weights(clusters, seed).astype(float)
    drawn = values.astype(float) @ weights.T / weights.sum(axis=1)
    ends = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
    estimates = []
    for row, low, high in zip(values, *ends, strict=True):
        value = float(row.mean())
        if n < 2:
            low = high = np.nan
        elif shares and row.min() == row.max() and value in (0, 1):
            trials = proportion(np.full(n, value == 1))
            low, high = trials.low, trials.high
        estimates.append(Estimate(value, float(low), float(high), n))
    return estimates


def r_squared(
    x: Float[np.ndarray, "*draw row"],
    y: Float[np.ndarray, "*draw row"],
    groups: Sequence[object] | None = None,
) -> Float[np.ndarray, "*draw"]:
    """R² of the straight line through the rows: the square of their correlation.

    With `groups` (one label per row), of lines of one slope that each go through their own
    group's mean: what x explains of the differences within groups. NaN where x or y does not vary.
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
    """
    drawn = r_squared(drawn_x, drawn_y, groups)
    drawn = drawn[np.isfinite(drawn)]
    value = float(r_squared(x, y, groups))
    if not len(drawn) or np.isnan(value):
        return Estimate(value, float("nan"), float("nan"), len(x))
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high), len(x))


def means(values: Float[np.ndarray, "n *cell"], seed: int = 0) -> Estimates:
    """Mean of every cell over the rows (prompts), with percentile bootstrap intervals.

    No interval (NaN) for a single row.
    """
    values = values.astype(float)
    ends = np.full((2, *values.shape[1:]), np.nan)
    if len(values) > 1:
        drawn = resampled_means(values, seed, N_RESAMPLES)
        ends = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)
    return Estimates(values.mean(axis=0), ends[0], ends[1], len(values))


def crossed(
    values: Bool[np.ndarray, "n draw"] | Float[np.ndarray, "n draw"], seed: int = 0
) -> Estimate:
    """Mean over prompts and draws, both resampled: neither is all there could be."""
    n, n_draws = values.shape
    rng = np.random.default_rng(seed)
    rows = rng.multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES) / n
    columns = rng.multinomial(n_draws, np.full(n_draws, 1 / n_draws), size=N_RESAMPLES) / n_draws
    drawn = np.einsum("bn,nd,bd->b", rows, values.astype(float), columns)
    low, high = np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(float(values.mean()), float(low), float(high), n)
