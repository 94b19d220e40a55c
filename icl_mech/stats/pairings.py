"""Two means of the same prompts: their difference and their ratio.

Intervals are computed from the intervals of the two means and their correlation (the method of
variance estimates recovery, MOVER: Zou and Donner 2008 for differences, Donner and Zou 2012 for
ratios). For right or wrong answers to different queries this is Newcombe's method for paired shares
(1998, Statistics in Medicine 17, 2635). If two arms agree on every prompt, the interval still has a
width: they may differ on prompts that were not drawn.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_mech.stats.estimate import ENDS, Estimate, Estimates
from icl_mech.stats.means import mean, means, spread
from icl_mech.stats.resampling import (
    N_RESAMPLES_SLOW,
    Clusters,
    cluster_index,
    draw_weights,
    too_few,
)
from icl_mech.stats.shares import is_trials, share, share_ends


def paired_difference(
    first: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    second: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"],
    seed: int = 0,
    clusters: Clusters = None,
) -> Estimate:
    """Mean of `first - second` over the same prompts, with a 95 % interval.

    Args:
        first, second: right or wrong, chances of being right, or numbers of any kind.
        seed: of the bootstrap, where they are not right or wrong.
        clusters: which prompts are not independent (they share a query).

    Returns:
        No interval (NaN) for fewer than four prompts or queries.

    >>> print(paired_difference(np.ones(20), np.ones(20)))
    0.00 [-0.18, 0.18]
    """
    one, two = (np.asarray(arm, dtype=float)[:, None] for arm in (first, second))
    index, both = cluster_index(len(one), clusters), np.concatenate([one, two])
    if not is_trials(both).all():
        found = mean(one[:, 0] - two[:, 0], seed, clusters)
        # If the difference is the same on all prompts, its variance is unknown: treat the values
        # as trials.
        if found.low < found.high or both.min() < 0 or both.max() > 1:
            return found
    k, value = int(index.max()) + 1, float(one.mean() - two.mean())
    ends = np.full(2, np.nan) if too_few(index) else _difference_ends(one, two, index)[:, 0]
    return Estimate(value, float(ends[0]), float(ends[1]), len(one), k)


def _difference_ends(
    first: Float[np.ndarray, "n cell"],
    second: Float[np.ndarray, "n cell"],
    index: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "end cell"]:
    """Both ends of the interval of a difference of two shares of the same rows."""
    (low, high), (low_2, high_2) = (share_ends(x, index, small=True) for x in (first, second))
    one, two = first.mean(axis=0), second.mean(axis=0)
    r = _correlation(first, second, index)

    def combined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.sqrt(np.maximum(first**2 + second**2 - 2 * r * first * second, 0))

    below, above = combined(one - low, high_2 - two), combined(high - one, two - low_2)
    return np.stack([one - two - below, one - two + above]).clip(-1, 1)


def _correlation(
    first: Float[np.ndarray, "n cell"],
    second: Float[np.ndarray, "n cell"] | Float[np.ndarray, "n 1"],
    index: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "cell"]:
    """Correlation over clusters of the means of two cells; 0 if one does not vary."""
    one, two = spread(first, index).residuals, spread(second, index).residuals
    size = np.sqrt((one**2).sum(axis=0) * (two**2).sum(axis=0))
    return np.where(size > 0, (one * two).sum(axis=0) / np.where(size > 0, size, 1), 0)


def ratio_of_means(
    numerator: Float[np.ndarray, "n *cell"],
    denominator: Float[np.ndarray, "n"],
    seed: int = 0,
    clusters: Clusters = None,
) -> Estimates:
    """Mean of every cell over the mean of `denominator`, with 95 % intervals.

    Means are taken before the ratio, because the denominator of a single prompt may be near 0. The
    value is NaN if the mean denominator is 0. There is no interval (NaN) for fewer than four rows
    or clusters, or if the interval of the mean denominator contains 0, because the ratio is then
    unbounded.

    Args:
        numerator: a row per prompt.
        denominator: of the same prompts.
        seed: of the bootstrap, where values are not right or wrong.
        clusters: which rows are not independent (prompts that share a query).

    >>> ratio_of_means(np.array([[1.0, 4.0], [3.0, 4.0]]), np.array([3.0, 5.0])).value
    array([0.5, 1. ])
    """
    n, shape = len(denominator), numerator.shape[1:]
    cells, denominator = numerator.astype(float).reshape(n, -1), denominator.astype(float)
    index = cluster_index(n, clusters)
    k = int(index.max()) + 1
    above, below = cells.mean(axis=0), float(denominator.mean())
    value = above / (below or np.nan)
    ends = np.full((2, len(above)), np.nan)
    (least,), (most,) = _ends(denominator[:, None], index, seed, clusters)
    if not too_few(index) and not least <= 0 <= most:
        # To first order: the mean of numerator - ratio * denominator, over the mean denominator.
        rest = means(cells - value * denominator[:, None], seed, clusters)
        ends = np.sort(np.stack([rest.low, rest.high]) / below, axis=0) + value
        counted = is_trials(abs(cells)) & is_trials(abs(denominator[:, None]))
        if counted.any():
            ends[:, counted] = _ratio_ends(cells[:, counted], denominator, index)
    low, high = (end.reshape(shape) for end in ends)
    return Estimates(value.reshape(shape), low, high, n, k)


def _ends(
    values: Float[np.ndarray, "n cell"], index: Int[np.ndarray, "n"], seed: int, clusters: Clusters
) -> Float[np.ndarray, "end cell"]:
    """Both ends of the interval of every cell's mean; cells are all outcomes, or all numbers."""
    if is_trials(abs(values)).all():
        return _outcome_ends(values, index)
    found = means(values, seed, clusters)
    return np.stack([found.low, found.high])


def _outcome_ends(
    values: Float[np.ndarray, "n cell"], index: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "end cell"]:
    """Both ends of the interval of every cell's mean of right or wrong (0, 1), or of differences
    of these (-1, 0, 1)."""
    ends = share_ends(abs(values), index, small=True)
    signed = ~is_trials(values)
    parts = values[:, signed].clip(min=0), (-values[:, signed]).clip(min=0)
    ends[:, signed] = _difference_ends(*parts, index)
    return ends


def _ratio_ends(
    cells: Float[np.ndarray, "n cell"],
    denominator: Float[np.ndarray, "n"],
    index: Int[np.ndarray, "n"],
) -> Float[np.ndarray, "end cell"]:
    """The ratios R at which the interval of `mean numerator - R * mean denominator` ends at 0."""
    if denominator.mean() < 0:
        cells, denominator = -cells, -denominator
    above, below = cells.mean(axis=0), denominator.mean()
    (least,), (most,) = _outcome_ends(denominator[:, None], index)
    r = _correlation(cells, denominator[:, None], index)
    found = []
    for end, side in zip(_outcome_ends(cells, index), (-1, 1), strict=True):
        width = abs(end - above)
        # The lower end of a positive ratio uses the upper end of the denominator; the upper end,
        # and both ends of a negative ratio, accordingly.
        against = np.where((end > 0) == (side < 0), most - below, below - least)
        square, middle = below**2 - against**2, above * below - r * width * against
        root = np.sqrt(np.maximum(middle**2 - square * (above**2 - width**2), 0))
        # The same root in two forms: the second also holds where the parabola turns.
        with np.errstate(divide="ignore", invalid="ignore"):
            usual, turned = (middle + side * root) / square, above**2 - width**2
            found.append(np.where(square > 0, usual, turned / (middle - side * root)))
    return np.stack(found)


def crossed(
    values: Bool[np.ndarray, "n draw"] | Float[np.ndarray, "n draw"],
    seed: int = 0,
    clusters: Clusters = None,
    minus: Bool[np.ndarray, "n"] | None = None,
) -> Estimate:
    """Share of 1 over prompts and draws, both of which are samples.

    Each half-width is the root of the sum of two squares: the half-width of the interval over
    prompts and that of the interval over draws. There is no interval (NaN) for fewer than four
    prompts (clusters) or draws.

    Args:
        values: right or wrong; a row per prompt.
        seed: of the bootstraps, where values are chances of being right.
        clusters: which prompts are not independent.
        minus: another arm of the same prompts, whose share is subtracted.

    Example:
        >>> crossed(np.ones((5, 4))).value
        1.0
    """
    by_prompt, by_draw = (values.astype(float).mean(axis=axis) for axis in (1, 0))
    same = is_trials(by_draw[:, None]).all()  # always right or always wrong
    draws = share(by_draw, None, seed) if same else mean(by_draw, seed)
    if minus is None:
        index = cluster_index(len(values), clusters).repeat(values.shape[1])
        prompts = share(values.astype(float).ravel(), index, seed)
    else:
        prompts = paired_difference(by_prompt, minus, seed, clusters)
    value, least = prompts.value, 0.0 if minus is None else -1.0
    low = value - np.hypot(value - prompts.low, draws.value - draws.low)
    high = value + np.hypot(prompts.high - value, draws.high - draws.value)
    low, high = np.clip([low, high], least, 1.0)
    return Estimate(value, float(low), float(high), len(values), prompts.n_clusters)


def mean_change(
    values: Float[np.ndarray, "n"], seed: int = 0, clusters: Clusters = None
) -> Estimate:
    """Mean of changes of right and wrong (-1, 0, 1) or of their averages, with a 95 % interval.

    It is the `paired_difference` of gains and losses. So the interval has a width even if no prompt
    changed.

    Example:
        >>> print(mean_change(np.zeros(20)))
        0.00 [-0.18, 0.18]
    """
    return paired_difference(values.clip(min=0), (-values).clip(min=0), seed, clusters)


def rank_correlation(
    first: Float[np.ndarray, "n item"],
    second: Float[np.ndarray, "n item"],
    seed: int = 0,
    clusters: Clusters = None,
) -> Estimate:
    """Spearman's rank correlation, over items, of two means over prompts.

    The interval is a percentile bootstrap over prompts (clusters). It shows how much the ranking
    depends on the choice of prompts. There is no interval (NaN) for fewer than four.

    Example:
        >>> values = np.random.default_rng(0).normal(size=(6, 9))
        >>> round(rank_correlation(values, values).value, 3)
        1.0
    """
    from scipy.stats import spearmanr  # takes half a second to import

    n, index = len(first), cluster_index(len(first), clusters)
    k = int(index.max()) + 1
    value = float(spearmanr(first.mean(axis=0), second.mean(axis=0)).statistic)
    if too_few(index):
        return Estimate(value, float("nan"), float("nan"), n, k)
    weights = draw_weights(n, seed, N_RESAMPLES_SLOW, clusters)
    pairs = zip(weights @ first, weights @ second, strict=True)
    low, high = np.quantile([float(spearmanr(x, y).statistic) for x, y in pairs], ENDS)
    return Estimate(value, float(low), float(high), n, k)
