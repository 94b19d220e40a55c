"""Means over pairs of points, bootstrapped over points: pairs that share one hang together."""

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_mech.stats.estimate import ENDS, Estimates
from icl_mech.stats.resampling import N_RESAMPLES_SLOW

#: With fewer points in a group most resamples hold hardly any pair.
_LEAST = 3


def pair_means(
    distances: Float[np.ndarray, "*cell n n"],
    counted: Bool[np.ndarray, "n n"],
    groups: Int[np.ndarray, "n"],
    seed: int = 0,
) -> Estimates:
    """Mean of every cell over the counted pairs, with percentile intervals over the points.

    A resample draws as many points of every group as it has. A point that is drawn twice makes
    no pair with itself: a distance of 0 to itself says nothing about others. No interval (NaN)
    where a group that counts has fewer than three points.

    Args:
        distances: between any two points; the diagonal is never looked at.
        counted: which pairs; none of a point with itself.
        groups: which points are drawn together (here: the vectors of one task).
        seed: of the bootstrap.

    Raises:
        ValueError: where a point is paired with itself, or nothing is counted.
    """
    if counted.diagonal().any():
        raise ValueError("a point is counted with itself; expected pairs of different points")
    if not counted.any():
        raise ValueError("no pair is counted; expected at least one")
    n = len(groups)
    cells = np.where(counted, distances, 0).astype(float).reshape(-1, n, n)
    value = cells.sum(axis=(1, 2)) / counted.sum()
    shape = distances.shape[:-2]
    ends = np.full((2, len(cells)), np.nan)
    involved = counted.any(axis=0) | counted.any(axis=1)
    sizes = [int((groups == g).sum()) for g in np.unique(groups[involved])]
    if min(sizes) >= _LEAST:
        weights = _resamples(groups, seed)
        pairs = np.einsum("bi,bi->b", weights @ counted, weights)
        weights, pairs = weights[pairs > 0], pairs[pairs > 0]
        drawn = [np.einsum("bi,bi->b", weights @ cell, weights) / pairs for cell in cells]
        ends = np.quantile(drawn, ENDS, axis=1)
    low, high = (end.reshape(shape) for end in ends)
    return Estimates(value.reshape(shape), low, high, n)


def unrelated_distance(
    within: Float[np.ndarray, "*cell"], n_groups: int, n_each: int
) -> Float[np.ndarray, "*cell"]:
    """Mean cosine distance between groups of vectors, minus the mean of all, that share nothing.

    Not 1: what is left when the mean of all is subtracted adds up to 0, so that the groups point
    away from one another. All cosines together, each vector's with itself included, add up to 0
    (for vectors of one length), and the mean distance within groups says what is left for the
    pairs between: 1 + 1 / (n_groups - 1) where a group is one point, 1 where it is only noise.
    Hence the mean over all groups lies there whatever the groups are; a pair of them that is
    nearer than this is alike, beside the others.

    Args:
        within: mean cosine distance within a group.
        n_groups: how many.
        n_each: vectors in each.

    >>> unrelated_distance(np.array([0.0, 1.0]), 3, 1000).round(2)
    array([1.5, 1. ])
    """
    return np.asarray(1 + (1 + (n_each - 1) * (1 - within)) / (n_each * (n_groups - 1)))


def _resamples(groups: Int[np.ndarray, "n"], seed: int) -> Float[np.ndarray, "draw n"]:
    """How often every point is drawn, group by group."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((N_RESAMPLES_SLOW, len(groups)))
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        weights[:, own] = rng.multinomial(
            len(own), np.full(len(own), 1 / len(own)), size=N_RESAMPLES_SLOW
        )
    return weights
