"""Accuracies: shares of prompts that are right, also if prompts share queries.

If no two prompts share a query, the interval is Wilson's. Otherwise it is Wilson's for the
effective number of trials, with Student's t in place of the normal quantile. The effective number
follows from the design effect (Kish 1965): the variance of the prompts' mean over that of as many
independent trials. With few clusters the estimate of the design effect is poor. So it is shrunk
towards complete dependence, as if two more clusters had been seen, each all right or all wrong.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_mech.stats.estimate import CONFIDENCE, Estimate, Estimates
from icl_mech.stats.means import means, spread
from icl_mech.stats.quantiles import normal, student_t
from icl_mech.stats.resampling import (
    MIN_CLUSTERS,
    Clusters,
    cluster_index,
    effective_clusters,
    too_few,
)

#: The number of clusters of complete dependence that are added to the real ones (see above).
_PRIOR_CLUSTERS = 2


def proportion(right: Bool[np.ndarray, "n"]) -> Estimate:
    """Share of `True` with its Wilson interval (one trial per prompt).

    >>> print(proportion(np.array([True, True, True, False])))
    0.75 [0.30, 0.95]
    """
    return share(right, None)


def proportions(right: Bool[np.ndarray, "row n"]) -> list[Estimate]:
    """`proportion` of every row.

    Example:
        >>> [str(found) for found in proportions(np.array([[True, False, True, True]]))]
        ['0.75 [0.30, 0.95]']
    """
    return shares(right, None)


def share(
    values: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"], clusters: Clusters, seed: int = 0
) -> Estimate:
    """`shares` of one row.

    Example:
        >>> print(share(np.array([True, True, True, False]), None))
        0.75 [0.30, 0.95]
    """
    return shares(values[None], clusters, seed)[0]


def shares(
    values: Bool[np.ndarray, "row n"] | Float[np.ndarray, "row n"],
    clusters: Clusters,
    seed: int = 0,
) -> list[Estimate]:
    """Mean of every row of shares of 1 (right or wrong), with a 95 % interval.

    Rows with values other than 0 and 1 (chances of being right) are no trials. Their interval is
    that of `means`, cut at 0 and 1; if all values of a row are the same, it is that of trials.

    Args:
        values: 0 to 1; a column per prompt. NaN makes a row's mean and interval NaN.
        clusters: the query of every prompt; None where all differ.
        seed: of the bootstrap of rows that are no trials.

    Returns:
        An estimate per row. There is no interval (NaN) if prompts share queries and there are fewer
        than four different queries.

    Example:
        >>> queries = np.repeat(["a", "b", "c", "d"], 5)
        >>> print(shares(np.ones((1, 20)), queries)[0])
        1.00 [0.28, 1.00]
    """
    n = values.shape[1]
    index = cluster_index(n, clusters)
    k = int(index.max()) + 1
    columns = np.asarray(values, dtype=float).T
    ends = share_ends(columns, index)
    chances = ~is_trials(columns)
    if chances.any():
        found = means(columns[:, chances], seed, clusters)
        wide = np.stack([found.low, found.high]).clip(0, 1)
        # If all chances are the same, their variance is unknown: treat them as trials.
        ends[:, chances] = np.where(wide[0] == wide[1], ends[:, chances], wide)
    return Estimates(columns.mean(axis=0), ends[0], ends[1], n, k).rows()


def is_trials(values: Float[np.ndarray, "n cell"]) -> Bool[np.ndarray, "cell"]:
    """Whether all values of a cell are 0 or 1."""
    found: np.ndarray = ((values == 0) | (values == 1)).all(axis=0)
    return found


def share_ends(
    right: Float[np.ndarray, "n cell"], index: Int[np.ndarray, "n"], small: bool = False
) -> Float[np.ndarray, "end cell"]:
    """Both ends of the interval of every cell's share.

    Args:
        right: 0 or 1.
        index: the cluster of every row.
        small: use Student's t also if each row is a cluster of its own (for differences of shares).
    """
    n, k = len(right), int(index.max()) + 1
    mean = right.mean(axis=0)
    if k < n and too_few(index):
        return np.full((2, len(mean)), np.nan)
    z = normal((1 + CONFIDENCE) / 2)
    if k < n or (small and k > 1):
        z = student_t(effective_clusters(index) - 1, (1 + CONFIDENCE) / 2)
    trials = n / _design_effect(right, index)
    middle = (mean + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = np.sqrt(mean * (1 - mean) / trials + (z / (2 * trials)) ** 2) * z / (1 + z**2 / trials)
    # Rounding must not leave the share itself outside.
    return np.stack([np.minimum(middle - half, mean), np.maximum(middle + half, mean)]).clip(0, 1)


def _design_effect(
    right: Float[np.ndarray, "n cell"], index: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "cell"]:
    """The variance of the mean over that of independent trials, shrunk towards full dependence."""
    n, k = len(right), int(index.max()) + 1
    size = (np.bincount(index) ** 2).sum() / n  # of the cluster that a value is in, on average
    if size == 1:
        return np.ones(right.shape[1])
    mean = right.mean(axis=0)
    single = mean * (1 - mean)
    effect = spread(right, index).variance * n / np.where(single > 0, single, 1)
    within = ((effect - 1) / (size - 1)).clip(0, 1)  # correlation of values of one cluster
    seen = 4 * single * k
    within = (seen * within + _PRIOR_CLUSTERS) / (seen + _PRIOR_CLUSTERS)
    return 1 + (size - 1) * within


def repeated(tasks: Sequence[str], n_queries: Sequence[int], n_prompts: int) -> list[str]:
    """A caveat for every task whose prompts share queries, or with too few for an interval.

    Example:
        >>> repeated(["to_upper"], [3], 50)
        ['to_upper: 3 different queries; fewer than 4 give no interval, ...']
    """
    return [
        (
            f"{task}: {n} different queries in {n_prompts} prompts (a small task); intervals are "
            "over queries, for prompts that share one are not independent"
            if n >= MIN_CLUSTERS
            else f"{task}: {n} different queries; fewer than {MIN_CLUSTERS} give no interval, and "
            "nothing can be told from another"
        )
        for task, n in zip(tasks, n_queries, strict=True)
        if n < max(n_prompts, MIN_CLUSTERS)
    ]
