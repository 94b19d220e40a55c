"""Bootstrap over clusters: values that belong together are drawn together."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from icl_mech.stats.estimate import ENDS, Estimate
from icl_mech.stats.exact import proportion, proportions
from icl_mech.stats.resampling import N_RESAMPLES, Clusters, shared


def cluster_weights(clusters: Shaped[np.ndarray, "n"], seed: int = 0) -> Int[np.ndarray, "draw n"]:
    """How often each value counts in every bootstrap draw of whole clusters.

    Values of one cluster (prompts that share a query) are not independent: they are drawn
    together or not at all.
    """
    names, index = np.unique(clusters, return_inverse=True)
    return _counts(len(names), seed)[:, index]


@lru_cache(maxsize=16)
def _counts(n: int, seed: int) -> Int[np.ndarray, "draw n"]:
    """How often each of `n` is drawn. Kept: many rows of figures and tables share the draws."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=N_RESAMPLES)


def cluster_means(
    values: Float[np.ndarray, "row n"],
    clusters: Shaped[np.ndarray, "n"],
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
    ends = np.quantile(drawn, ENDS, axis=1)
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


def share(
    values: Bool[np.ndarray, "n"] | Float[np.ndarray, "n"], clusters: Clusters, seed: int = 0
) -> Estimate:
    """`shares` of one row."""
    return shares(values[None], clusters, seed)[0]


def shares(
    values: Bool[np.ndarray, "row n"] | Float[np.ndarray, "row n"],
    clusters: Clusters,
    seed: int = 0,
) -> list[Estimate]:
    """Mean of every row of shares of 1 (right or wrong), with the interval that fits the prompts.

    Where no two prompts share a cluster (their query), each is a trial, and the interval is
    Wilson's. Where some do, it is the bootstrap's over clusters (`cluster_means`): Wilson's for
    50 prompts of 10 queries would cover the truth two times in three, not 95 %. It is never
    narrower than Wilson's: with hardly any answer right or wrong the bootstrap has too little to
    draw from, and prompts that share queries do not say more than those that do not.

    Values between 0 and 1 (a chance of being right) are no trials: always the bootstrap.

    Args:
        values: 0 to 1; a column per prompt.
        clusters: the query of every prompt; None where all differ.
        seed: of the bootstrap.

    Returns:
        An estimate per row; `n` is the number of prompts. No interval (NaN) where all prompts
        are of one cluster, but for a single prompt that is right or wrong.
    """
    n = values.shape[1]
    trials = values.dtype == bool or bool(np.isin(values, (0, 1)).all())
    index = shared(clusters)
    if index is None and trials:
        return proportions(values.astype(bool))
    over = np.arange(n) if index is None else index
    found = cluster_means(values.astype(float), over, seed, shares=True)
    least = proportions(values.astype(bool)) if trials else found
    return [
        # In this order a NaN of the first is kept: min(NaN, x) is NaN.
        Estimate(e.value, min(e.low, w.low), max(e.high, w.high), n)
        for e, w in zip(found, least, strict=True)
    ]


def repeated(tasks: Sequence[str], n_queries: Sequence[int], n_prompts: int) -> list[str]:
    """A caveat for every task that is too small for the number of prompts."""
    return [
        f"{task}: {n} different queries in {n_prompts} prompts (a small task); intervals are over "
        "queries, for prompts that share one are not independent"
        for task, n in zip(tasks, n_queries, strict=True)
        if n < n_prompts
    ]
