"""Means of any values, with intervals that hold for few and for skewed values.

Two intervals are computed: Student's t with the standard error of a clustered mean, which needs no
resampling, and the studentised bootstrap (Efron and Tibshirani 1993, chapter 12.5), which follows
the skew. The result has the lower one of the two lower ends and the higher one of the two upper
ends. A percentile bootstrap would be too narrow for few values. The README.md of this folder has
the measured coverage.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from icl_mech.stats.estimate import CONFIDENCE, Estimate, Estimates
from icl_mech.stats.quantiles import student_t
from icl_mech.stats.resampling import (
    N_RESAMPLES_SLOW,
    Clusters,
    cluster_index,
    cluster_sums,
    draw_counts,
    draw_weights,
    effective_clusters,
    too_few,
)

#: Cells of an array that are resampled at once; more would need more memory and save no time.
_CELLS = 512


def mean(values: Float[np.ndarray, "n"], seed: int = 0, clusters: Clusters = None) -> Estimate:
    """Mean with a 95 % interval; see `means`.

    Example:
        >>> print(mean(np.array([-1.0, -0.5, -2.0, -1.5])))
        -1.25 [-2.86, 0.36]
    """
    return means(values, seed, clusters).at()


def means(
    values: Float[np.ndarray, "n *cell"], seed: int = 0, clusters: Clusters = None
) -> Estimates:
    """Mean of every cell over the rows (prompts), with 95 % intervals.

    Args:
        values: a row per prompt.
        seed: of the bootstrap.
        clusters: which rows are not independent (prompts that share a query).

    Returns:
        An estimate per cell. There is no interval (NaN) for fewer than four rows or clusters
        (clusters of very different sizes count as fewer), or if a value is NaN. If all values are
        the same, the interval has no width, because the values do not show how they vary. For
        values that are right or wrong, use `shares`.

    Example:
        >>> found = means(np.arange(8.0).reshape(4, 2))
        >>> found.value.tolist(), found.n
        ([3.0, 4.0], 4)
    """
    values = np.asarray(values, dtype=float)
    n, shape = len(values), values.shape[1:]
    index = cluster_index(n, clusters)
    k = int(index.max()) + 1
    ends = np.full((2, *shape), np.nan)
    if not too_few(index):
        cells, flat = values.reshape(n, -1), ends.reshape(2, -1)
        for i in range(0, cells.shape[1], _CELLS):
            part = slice(i, i + _CELLS)
            flat[:, part] = _ends(cells[:, part], index, seed)
    low, high = map(np.asarray, ends)
    return Estimates(np.asarray(values.mean(axis=0)), low, high, n, k)


@dataclass(frozen=True)
class Spread:
    """How the clusters of a mean differ from it.

    Attributes:
        residuals: of every cluster, its sum minus what its size and the mean predict.
        variance: of the mean.
    """

    residuals: Float[np.ndarray, "cluster cell"]
    variance: Float[np.ndarray, "cell"]


def spread(values: Float[np.ndarray, "n cell"], index: Int[np.ndarray, "n"]) -> Spread:
    """The cluster-robust variance of the mean over the rows."""
    n, k = len(values), int(index.max()) + 1
    sizes = np.bincount(index).astype(float)
    residuals = cluster_sums(values, index) - sizes[:, None] * values.mean(axis=0)
    return Spread(residuals, k / max(k - 1, 1) * (residuals**2).sum(axis=0) / n**2)


def _ends(
    values: Float[np.ndarray, "n cell"], index: Int[np.ndarray, "n"], seed: int
) -> Float[np.ndarray, "end cell"]:
    """Both ends of every cell's interval."""
    mean, error = values.mean(axis=0), np.sqrt(spread(values, index).variance)
    n_effective = effective_clusters(index)
    reach = student_t(n_effective - 1, (1 + CONFIDENCE) / 2)
    low, high = _studentised(values, mean, index, n_effective, seed)
    # Draws of very few different clusters have hardly any spread, so their scores are meaningless.
    low, high = np.maximum(low, -2 * reach), np.minimum(high, 2 * reach)
    # An error as small as rounding counts as 0.
    error = np.where(error > 1e-12 * abs(mean), error, 0)
    with np.errstate(invalid="ignore"):
        return np.stack(
            [mean + np.minimum(-reach, low) * error, mean + np.maximum(reach, high) * error]
        )


def _studentised(
    values: Float[np.ndarray, "n cell"],
    mean: Float[np.ndarray, "cell"],
    index: Int[np.ndarray, "n"],
    n_effective: float,
    seed: int,
) -> tuple[Float[np.ndarray, "cell"], Float[np.ndarray, "cell"]]:
    """The ends of a studentised interval, in standard errors below and above the mean.

    Resampled clusters vary less than real ones. So with few clusters the ends are taken further
    out; the coverage study in this folder's README.md was used to choose how far.
    """
    tail = (1 - CONFIDENCE) / 2 * (1 - min(0.5, 5 / n_effective))
    k = int(index.max()) + 1
    counts = draw_counts(k, seed)
    sums, sizes = cluster_sums(values - mean, index), np.bincount(index).astype(float)
    weight = (counts @ sizes)[:, None]
    drawn = counts @ sums / weight
    # The sum of squared residuals of a draw, multiplied out so that it is three matrix products.
    squares = (
        counts @ sums**2
        - 2 * drawn * (counts @ (sums * sizes[:, None]))
        + drawn**2 * (counts @ sizes**2)[:, None]
    )
    variance = k / (k - 1) * squares.clip(min=0) / weight**2
    least = 1e-9 * (sums**2).sum(axis=0) / sizes.sum() ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(variance > least, drawn / np.sqrt(variance), np.sign(drawn) * np.inf)
    # A draw of a single cluster has no spread: its score is infinite, or 0 if it is the mean.
    scores = np.where(np.isnan(scores), 0, scores)
    last = len(scores) - 1
    at = int(tail * last), int(np.ceil((1 - tail) * last))
    low, high = np.partition(scores, at, axis=0)[list(at)]
    finite = [np.where(np.isfinite(end), end, 0) for end in (low, high)]
    return -finite[1], -finite[0]


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
    half = float(student_t(n - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / n**0.5)
    return Estimate(value, value - half, value + half, n)


def resampled_means(
    values: Float[np.ndarray, "n *cell"],
    seed: int = 0,
    n_draws: int = N_RESAMPLES_SLOW,
    clusters: Clusters = None,
) -> Float[np.ndarray, "draw *cell"]:
    """Means over bootstrap draws of the rows (prompts), a row per draw.

    Example:
        >>> resampled_means(np.ones((5, 2)), n_draws=3).shape
        (3, 2)
    """
    n = len(values)
    weights = draw_weights(n, seed, n_draws, clusters)
    return (weights @ values.reshape(n, -1)).reshape(n_draws, *values.shape[1:])
