"""Distances between points, and the votes of each point's nearest neighbours for a task."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import pairwise_distances

#: Vote shares that differ by less than this are equal (they are sums of a few fractions).
_EQUAL = 1e-6


def distances(
    points: Float[np.ndarray, "point d"], metric: str, normalise: str
) -> Float[np.ndarray, "point point"]:
    """Distance between any two points, in double precision.

    Equal points get exactly equal distances to every other point. A matrix product rounds the last
    digit differently from entry to entry, which would break their ties.

    Args:
        points: representations at one layer.
        metric: `"cosine"` or `"euclidean"`.
        normalise: `"standardise"` gives every dimension mean 0 and standard deviation 1 over all
            points; a dimension that does not vary becomes 0. `"none"` changes nothing.
    """
    unique, index = np.unique(points.astype(np.float64), axis=0, return_inverse=True)
    if normalise == "standardise":
        spread = points.std(axis=0, dtype=np.float64)
        mean = points.mean(axis=0, dtype=np.float64)
        unique = (unique - mean) / np.where(spread > 0, spread, 1)
    found = pairwise_distances(unique, metric=metric)
    found = (found + found.T) / 2
    return found[index[:, None], index]


def vote_shares(
    between: Float[np.ndarray, "point point"],
    labels: Int[np.ndarray, "point"],
    groups: Int[np.ndarray, "point"],
    ks: Sequence[int],
) -> Float[np.ndarray, "k point label"]:
    """Share of each label among the `k` nearest neighbours of every point.

    A point of the same group is never a neighbour. If several points are equally far and too many
    for the remaining places, they share these places: each gets a fraction of a vote, which is the
    average over drawing them at random. (The label that wins by this average need not win most of
    such draws.)

    Args:
        between: distances.
        labels: 0, 1, ...; the task of every point.
        groups: points with the same number are not neighbours.
        ks: how many neighbours, one answer for each.
    """
    allowed = np.where(groups[:, None] == groups, np.inf, between)
    one_hot = np.eye(labels.max() + 1)[labels]
    nearest = np.sort(np.partition(allowed, max(ks) - 1, axis=1)[:, : max(ks)], axis=1)
    shares = []
    for k in ks:
        farthest = nearest[:, k - 1 : k]
        nearer, tied = allowed < farthest, allowed == farthest
        left = (k - nearer.sum(axis=1)) / tied.sum(axis=1)
        shares.append((nearer @ one_hot + left[:, None] * (tied @ one_hot)) / k)
    return np.stack(shares)


def decoded(shares: Float[np.ndarray, "*rest label"]) -> Float[np.ndarray, "*rest label"]:
    """1 for the label with most votes, 0 for the others; labels that tie share the 1.

    Breaking ties at random gives this on average. So if all labels tie, a point gets a credit of
    1 / (number of labels).
    """
    wins = shares >= shares.max(axis=-1, keepdims=True) - _EQUAL
    return wins / wins.sum(axis=-1, keepdims=True)


def credit(
    shares: Float[np.ndarray, "point label"], labels: Int[np.ndarray, "point"]
) -> Float[np.ndarray, "point"]:
    """Credit of every point: 1 if the vote is right, 0 if it is wrong, a share if labels tie."""
    return decoded(shares)[np.arange(len(labels)), labels]
