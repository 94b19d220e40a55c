"""The chance level of task decodability: the expected credit of random neighbours."""

from functools import lru_cache
from math import comb

import numpy as np
from jaxtyping import Float, Int


def chances(
    labels: Int[np.ndarray, "row"], groups: Int[np.ndarray, "row"], k: int
) -> Float[np.ndarray, "label"]:
    """The expected credit of a vote of `k` random neighbours, for every label's points.

    If the representation is not informative, a point's nearest neighbours are a random draw from
    the points outside its own group. A label with fewer points in this pool gets fewer votes. This
    happens to a point's own task if tasks have inputs of their own: leaving out the point's query
    then removes points of its own task only.

    Args:
        labels: 0, 1, ...; the task of every row.
        groups: rows with the same number are never neighbours.
        k: how many neighbours vote.
    """
    one_hot = np.eye(labels.max() + 1, dtype=int)[labels]
    _, index = np.unique(groups, return_inverse=True)
    of_group = np.zeros((index.max() + 1, one_hot.shape[1]), dtype=int)
    np.add.at(of_group, index, one_hot)
    allowed = one_hot.sum(axis=0) - of_group[index]
    # The order of the other labels does not matter; sorting them makes more calls hit the cache.
    credit = [
        _credit(int(row[own]), tuple(sorted(np.delete(row, own).tolist())), k)
        for row, own in zip(allowed, labels.tolist(), strict=True)
    ]
    return np.array(credit) @ one_hot / one_hot.sum(axis=0)


@lru_cache(maxsize=4096)
def _credit(own: int, others: tuple[int, ...], k: int) -> float:
    """Expected credit of `k` votes drawn from `own` right and `others` wrong neighbours.

    Exact: for every number of right votes, count the draws in which no other label has more votes,
    separately by how many labels have as many, because these share the credit.
    """
    credit = 0.0
    for most in range(1, min(k, own) + 1):
        # ways[used, tied]: number of draws in which the labels so far have `used` votes together,
        # and `tied` of these labels have `most` votes each.
        ways = np.zeros((k + 1, len(others) + 1))
        ways[0, 0] = 1
        for n in others:
            after = np.zeros_like(ways)
            for votes in range(min(most, n, k) + 1):
                tie = int(votes == most)
                after[votes:, tie:] += (
                    comb(n, votes) * ways[: k + 1 - votes, : len(others) + 1 - tie]
                )
            ways = after
        shared = ways[k - most] / (1 + np.arange(len(others) + 1))
        credit += comb(own, most) * float(shared.sum())
    return credit / comb(own + sum(others), k)
