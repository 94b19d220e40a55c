"""Clusters of values that are not independent, and bootstrap draws of whole clusters."""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int, Shaped

#: Bootstrap draws; fewer of statistics that are themselves slow.
N_RESAMPLES = 2000
N_RESAMPLES_SLOW = 500
#: With fewer clusters no interval here has its stated coverage (see README.md in this folder).
MIN_CLUSTERS = 4

#: Which values belong together (the query of every prompt): labels of any kind, or None.
Clusters = Shaped[np.ndarray, "n"] | None


def shared(clusters: Clusters) -> Int[np.ndarray, "n"] | None:
    """The cluster of every value, counted from 0; None where each has one of its own.

    >>> shared(np.array(["b", "a", "b"]))
    array([1, 0, 1])
    >>> shared(np.array(["b", "a", "c"])) is None
    True
    """
    if clusters is None:
        return None
    names, index = np.unique(clusters, return_inverse=True)
    return None if len(names) == len(clusters) else index


def cluster_index(n: int, clusters: Clusters = None) -> Int[np.ndarray, "n"]:
    """The cluster of each of `n` values, counted from 0."""
    index = shared(clusters)
    return np.arange(n) if index is None else index


def effective_clusters(index: Int[np.ndarray, "n"]) -> float:
    """The effective number of clusters: their number if all have the same size, fewer if a few of
    them hold most of the values.

    >>> effective_clusters(np.array([0, 0, 1, 1])), effective_clusters(np.array([0, 0, 0, 1]))
    (2.0, 1.6)
    """
    return float(len(index) ** 2 / (np.bincount(index) ** 2).sum())


def too_few(index: Int[np.ndarray, "n"]) -> bool:
    """Whether there are too few clusters for any interval (see `MIN_CLUSTERS`)."""
    return round(effective_clusters(index)) < MIN_CLUSTERS


def cluster_sums(
    values: Float[np.ndarray, "n *cell"], index: Int[np.ndarray, "n"]
) -> Float[np.ndarray, "cluster *cell"]:
    """Sum over the values of every cluster."""
    if len(index) == int(index.max()) + 1 and (index == np.arange(len(index))).all():
        return values
    sums = np.zeros((int(index.max()) + 1, *values.shape[1:]))
    np.add.at(sums, index, values)
    return sums


@lru_cache(maxsize=16)
def draw_counts(
    n_clusters: int, seed: int = 0, n_draws: int = N_RESAMPLES
) -> Float[np.ndarray, "draw cluster"]:
    """How often every cluster is drawn in each bootstrap draw. Cached, as many cells share them."""
    counts = np.random.default_rng(seed).multinomial(
        n_clusters, np.full(n_clusters, 1 / n_clusters), size=n_draws
    )
    return counts.astype(float)


def draw_weights(
    n: int, seed: int = 0, n_draws: int = N_RESAMPLES, clusters: Clusters = None
) -> Float[np.ndarray, "draw n"]:
    """The weight of each of `n` values in every bootstrap draw; a draw's weights add up to 1.

    Values of one cluster (prompts that share a query) are not independent, so they are drawn
    together. If every value has its own cluster, this is the plain bootstrap.

    Example:
        >>> weights = draw_weights(3, n_draws=5, clusters=np.array(["a", "a", "b"]))
        >>> weights.shape, bool((weights[:, 0] == weights[:, 1]).all())
        ((5, 3), True)
    """
    index = cluster_index(n, clusters)
    drawn = draw_counts(int(index.max()) + 1, seed, n_draws)[:, index]
    return drawn / drawn.sum(axis=1, keepdims=True)
