"""Percentile bootstrap over prompts, or over what prompts share (`clusters`: their queries).

Percentile and not BCa, which is undefined where all values are the same. A mean over a resample
is a weighted mean, so all resamples of all cells are one matrix product: `scipy.stats.bootstrap`
gives the same intervals (a test), a cell at a time.
"""

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import spearmanr

from icl_mech.stats.estimate import ENDS, Estimate, Estimates
from icl_mech.stats.exact import proportion
from icl_mech.stats.resampling import (
    N_RESAMPLES,
    N_RESAMPLES_SLOW,
    Clusters,
    draw_weights,
    n_units,
)

#: Cells of an array that are resampled at once: more would only take memory.
_CELLS = 2048


def mean(values: Float[np.ndarray, "n"], seed: int = 0, clusters: Clusters = None) -> Estimate:
    """Mean with a percentile bootstrap interval; see `means`."""
    return means(values, seed, clusters).at()


def means(
    values: Float[np.ndarray, "n *cell"], seed: int = 0, clusters: Clusters = None
) -> Estimates:
    """Mean of every cell over the rows (prompts), with percentile bootstrap intervals.

    Rows that share a cluster are drawn together. No interval (NaN) for a single row or cluster.
    """
    values = values.astype(float)
    ends = np.full((2, *values.shape[1:]), np.nan)
    if n_units(len(values), clusters) > 1:
        drawn = resampled_means(values, seed, N_RESAMPLES, clusters)
        ends = np.quantile(drawn, ENDS, axis=0)
    low, high = map(np.asarray, ends)
    return Estimates(np.asarray(values.mean(axis=0)), low, high, len(values))


def paired_difference(
    first: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    second: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    seed: int = 0,
    clusters: Clusters = None,
) -> Estimate:
    """Mean of `first - second` over the same prompts, with a bootstrap interval (see `means`)."""
    return mean(np.asarray(first, dtype=float) - np.asarray(second, dtype=float), seed, clusters)


def crossed(
    values: Bool[np.ndarray, "n draw"] | Float[np.ndarray, "n draw"],
    seed: int = 0,
    clusters: Clusters = None,
    *,
    shares: bool,
) -> Estimate:
    """Mean over prompts and draws, both resampled: neither is all there could be.

    No interval (NaN) for a single prompt or cluster of prompts.

    Args:
        values: a row per prompt.
        seed: of the bootstrap.
        clusters: which prompts are drawn together.
        shares: the values are shares of 1, not differences. Where all are 0 or all are 1 there is
            nothing to resample: they get the Wilson interval of as many trials as there are
            prompts (clusters) or draws, whichever are fewer. What only some draws do, more
            prompts would not have shown, and the other way round.
    """
    n, n_draws = values.shape
    value, units = float(values.mean()), n_units(n, clusters)
    if units < 2:
        return Estimate(value, float("nan"), float("nan"), n)
    if shares and (values == values.flat[0]).all() and value in (0, 1):
        trials = proportion(np.full(min(units, n_draws), value == 1))
        return Estimate(value, trials.low, trials.high, n)
    rng = np.random.default_rng(seed)
    rows = draw_weights(n, rng, N_RESAMPLES, clusters)
    columns = draw_weights(n_draws, rng, N_RESAMPLES)
    drawn = np.einsum("bn,nd,bd->b", rows, values.astype(float), columns)
    low, high = np.quantile(drawn, ENDS)
    return Estimate(value, float(low), float(high), n)


def ratio_of_means(
    numerator: Float[np.ndarray, "n *cell"],
    denominator: Float[np.ndarray, "n"],
    seed: int = 0,
    clusters: Clusters = None,
) -> Estimates:
    """Mean of every cell over the mean of `denominator`, with percentile bootstrap intervals.

    The rows (prompts) are resampled, numerator and denominator together; rows that share a
    cluster are drawn together. Means before the ratio: a single denominator may be near 0. The
    value is NaN where the mean denominator is 0. There is no interval (NaN) for a single row or
    cluster, nor where that of the mean denominator covers 0: the ratio is not bounded then.
    Where it does not, a rare resample may still have a mean denominator of exactly 0: it has no
    ratio, and is left out.

    >>> ratio_of_means(np.array([[1.0, 4.0], [3.0, 4.0]]), np.array([3.0, 5.0])).value
    array([0.5, 1. ])
    """
    n = len(denominator)
    numerator, denominator = numerator.astype(float), denominator.astype(float)
    value = np.asarray(numerator.mean(axis=0) / (denominator.mean() or np.nan))
    ends = np.full((2, *value.shape), np.nan)
    weights = draw_weights(n, np.random.default_rng(seed), N_RESAMPLES, clusters)
    below = weights @ denominator
    least, most = np.quantile(below, ENDS)
    if n_units(n, clusters) > 1 and not least <= 0 <= most:
        weights, below = weights[below != 0], below[below != 0]
        cells, flat = numerator.reshape(n, -1), ends.reshape(2, -1)
        for i in range(0, cells.shape[1], _CELLS):
            part = slice(i, i + _CELLS)
            ratios = weights @ cells[:, part] / below[:, None]
            flat[:, part] = np.quantile(ratios, ENDS, axis=0)
    low, high = map(np.asarray, ends)
    return Estimates(value, low, high, n)


def rank_correlation(
    first: Float[np.ndarray, "n item"],
    second: Float[np.ndarray, "n item"],
    seed: int = 0,
    clusters: Clusters = None,
) -> Estimate:
    """Spearman's correlation over items of two means over prompts, bootstrapped over prompts.

    Prompts that share a cluster are drawn together. No interval (NaN) for a single one.
    """
    n = len(first)
    value = float(spearmanr(first.mean(axis=0), second.mean(axis=0)).statistic)
    if n_units(n, clusters) < 2:
        return Estimate(value, float("nan"), float("nan"), n)
    weights = draw_weights(n, np.random.default_rng(seed), N_RESAMPLES_SLOW, clusters)
    pairs = zip(weights @ first, weights @ second, strict=True)
    low, high = np.quantile([float(spearmanr(x, y).statistic) for x, y in pairs], ENDS)
    return Estimate(value, float(low), float(high), n)


def resampled_means(
    values: Float[np.ndarray, "n *cell"],
    seed: int = 0,
    n_draws: int = N_RESAMPLES_SLOW,
    clusters: Clusters = None,
) -> Float[np.ndarray, "draw *cell"]:
    """Means over bootstrap resamples of the rows (prompts), a row per resample."""
    n = len(values)
    weights = draw_weights(n, np.random.default_rng(seed), n_draws, clusters)
    return (weights @ values.reshape(n, -1)).reshape(n_draws, *values.shape[1:])
