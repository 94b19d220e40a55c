"""Who is near whom, and for which task the nearest vote."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from sklearn.metrics import pairwise_distances

#: Vote shares that differ by less are equal: they are sums of a few fractions.
_EQUAL = 1e-6


def distances(
    points: Float[np.ndarray, "point d"], metric: str, normalise: str
) -> Float[np.ndarray, "point point"]:
    """Distance between any two points, in double precision.

    Points that are equal have equal distances to everything else, exactly: matrix products round
    the last digit differently from place to place, and would break their ties.

    Args:
        points: representations at one layer.
        metric: `"cosine"` or `"euclidean"`.
        normalise: `"standardise"` gives every dimension mean 0 and standard deviation 1 over the
            points (labels play no part); a dimension that does not vary stays 0. `"none"`: as is.
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

    Neighbours are chosen by index: a point is never its own, nor is any of its group, however
    near. Where several are equally far and not all of them fit, they share the places left: each
    has a part of a vote, the average over drawing them at random. The label that then wins need
    not win as often as over such draws.

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
    """The label that most votes are for; labels with equally many share one credit.

    That is what breaking ties at random gives on average, so that votes which say nothing are
    right for one label in `n_labels`, and not for none or for the first.
    """
    wins = shares >= shares.max(axis=-1, keepdims=True) - _EQUAL
    return wins / wins.sum(axis=-1, keepdims=True)


def credit(
    shares: Float[np.ndarray, "point label"], labels: Int[np.ndarray, "point"]
) -> Float[np.ndarray, "point"]:
    """How right the vote is about every point: 1, 0, or a share where labels tie."""
    return decoded(shares)[np.arange(len(labels)), labels]
