"""How often each value counts in every bootstrap draw."""

import numpy as np
from jaxtyping import Float, Int, Shaped

#: Bootstrap draws; fewer of statistics that are themselves slow.
N_RESAMPLES = 2000
N_RESAMPLES_SLOW = 500

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


def n_units(n: int, clusters: Clusters = None) -> int:
    """How many things are drawn: the clusters where some are shared, else the `n` values."""
    index = shared(clusters)
    return n if index is None else int(index.max()) + 1


def draw_weights(
    n: int, rng: np.random.Generator, n_draws: int, clusters: Clusters = None
) -> Float[np.ndarray, "draw n"]:
    """The weight of each of `n` values in every draw; the weights of a draw add up to 1.

    Values of one cluster (prompts that share a query) are not independent: they are drawn
    together or not at all. Where no two share one, this is the plain bootstrap.
    """
    index, k = shared(clusters), n_units(n, clusters)
    counts = rng.multinomial(k, np.full(k, 1 / k), size=n_draws)
    if index is None:
        return counts / n
    drawn = counts[:, index].astype(float)
    return drawn / drawn.sum(axis=1, keepdims=True)
