"""What a representation that says nothing scores: the vote of random neighbours."""

from functools import lru_cache
from math import comb

import numpy as np
from jaxtyping import Float, Int


def chances(
    labels: Int[np.ndarray, "row"], groups: Int[np.ndarray, "row"], k: int
) -> Float[np.ndarray, "label"]:
    """The expected credit of a vote of `k` random neighbours, of every label's points.

    The nearest neighbours of a point are as good as drawn from those that are allowed, where the
    representation says nothing. Points of its own group are not: where that leaves a label fewer
    points than the others, as in tasks that ask inputs of their own, fewer votes are for it.

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
    credit = [
        _credit(int(row[own]), _others(row, own), k)
        for row, own in zip(allowed, labels.tolist(), strict=True)
    ]
    return np.array(credit) @ one_hot / one_hot.sum(axis=0)


def _others(allowed: Int[np.ndarray, "label"], own: int) -> tuple[int, ...]:
    """How many neighbours of the other labels there are; their order does not matter."""
    return tuple(sorted(int(n) for n in np.delete(allowed, own)))


def own_inputs_chances(
    queries: Int[np.ndarray, "task point"], k: int, leave_out: str
) -> Float[np.ndarray, "task"]:
    """`chances` of tasks with inputs of their own, which have fewer neighbours of their own task
    than of each other one: a point's query is left out of its own task only.

    Args:
        queries: a number per query text.
        k: how many neighbours vote.
        leave_out: with the point every other of its `"query"`, or the `"point"` alone.
    """
    labels = np.repeat(np.arange(len(queries)), queries.shape[1])
    groups = queries.ravel() if leave_out == "query" else np.arange(queries.size)
    return chances(labels, groups, k)


@lru_cache(maxsize=4096)
def _credit(own: int, others: tuple[int, ...], k: int) -> float:
    """Expected credit of `k` votes drawn from `own` right and `others` wrong neighbours.

    Exact: for every number of right votes, the ways in which no other label has more, counted by
    how many have as many, for these share the credit.
    """
    credit = 0.0
    for most in range(1, min(k, own) + 1):
        # ways[used, tied]: the labels so far have `used` votes, `tied` of them `most`.
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
