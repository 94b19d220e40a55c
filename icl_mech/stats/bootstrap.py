"""Percentile bootstrap over prompts.

Percentile and not BCa, which is undefined where all values are the same. A mean over a resample
is a weighted mean, so all resamples of all cells are one matrix product: `scipy.stats.bootstrap`
gives the same intervals (a test), a cell at a time.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import spearmanr

from icl_mech.stats.estimate import ENDS, Estimate, Estimates

#: Bootstrap draws; fewer of statistics that are themselves slow.
N_RESAMPLES = 2000
N_RESAMPLES_SLOW = 500
#: Cells of an array that are resampled at once: more would only take memory.
_CELLS = 2048


def mean(values: Float[np.ndarray, "n"], seed: int = 0) -> Estimate:
    """Mean with a percentile bootstrap interval; no interval (NaN) for a single value."""
    return means(values, seed).at()


def means(values: Float[np.ndarray, "n *cell"], seed: int = 0) -> Estimates:
    """Mean of every cell over the rows (prompts), with percentile bootstrap intervals.

    No interval (NaN) for a single row.
    """
    values = values.astype(float)
    ends = np.full((2, *values.shape[1:]), np.nan)
    if len(values) > 1:
        drawn = resampled_means(values, seed, N_RESAMPLES)
        ends = np.quantile(drawn, ENDS, axis=0)
    low, high = map(np.asarray, ends)
    return Estimates(np.asarray(values.mean(axis=0)), low, high, len(values))


def paired_difference(
    first: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    second: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    seed: int = 0,
) -> Estimate:
    """Mean of `first - second` over the same prompts, with a bootstrap interval."""
    return mean(np.asarray(first, dtype=float) - np.asarray(second, dtype=float), seed)


def crossed(
    values: Bool[np.ndarray, "n draw"] | Float[np.ndarray, "n draw"], seed: int = 0
) -> Estimate:
    """Mean over prompts and draws, both resampled: neither is all there could be."""
    n, n_draws = values.shape
    rng = np.random.default_rng(seed)
    rows = _shares(n, rng, N_RESAMPLES)
    columns = _shares(n_draws, rng, N_RESAMPLES)
    drawn = np.einsum("bn,nd,bd->b", rows, values.astype(float), columns)
    low, high = np.quantile(drawn, ENDS)
    return Estimate(float(values.mean()), float(low), float(high), n)


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
    shares = _shares(n, np.random.default_rng(seed), N_RESAMPLES)
    below = shares @ denominator
    least, most = np.quantile(below, ENDS)
    if n > 1 and not least <= 0 <= most:
        cells, flat = numerator.reshape(n, -1), ends.reshape(2, -1)
        with np.errstate(divide="ignore", invalid="ignore"):  # a rare resample may have mean 0
            for i in range(0, cells.shape[1], _CELLS):
                part = slice(i, i + _CELLS)
                ratios = shares @ cells[:, part] / below[:, None]
                flat[:, part] = np.quantile(ratios, ENDS, axis=0)
    low, high = map(np.asarray, ends)
    return Estimates(value, low, high, n)


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
    low, high = np.quantile(drawn, ENDS)
    return Estimate(value, float(low), float(high), n)


def resampled_means(
    values: Float[np.ndarray, "n *cell"], seed: int = 0, n_draws: int = N_RESAMPLES_SLOW
) -> Float[np.ndarray, "draw *cell"]:
    """Means over bootstrap resamples of the rows (prompts), a row per resample."""
    shares = _shares(len(values), np.random.default_rng(seed), n_draws)
    return (shares @ values.reshape(len(values), -1)).reshape(n_draws, *values.shape[1:])


def _shares(n: int, rng: np.random.Generator, n_draws: int) -> Float[np.ndarray, "draw n"]:
    """The weight of each of `n` rows in every resample."""
    return rng.multinomial(n, np.full(n, 1 / n), size=n_draws) / n
