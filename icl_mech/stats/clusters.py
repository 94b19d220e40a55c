"""Bootstrap over clusters: values that belong together are drawn together."""

import numpy as np
from jaxtyping import Float, Int

from icl_mech.stats.bootstrap import N_RESAMPLES
from icl_mech.stats.estimate import ENDS, Estimate
from icl_mech.stats.exact import proportion


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
