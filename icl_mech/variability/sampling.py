"""Draws many demonstration sets of one task, as disjoint as its pairs allow."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from icl_mech.errors import InputError
from icl_mech.prompts import Episode, check_counts, cut, generator
from icl_mech.tasks import Pair, Task

#: The largest share of the pairs that may be asked; the others are shown.
ASKED = 0.3
#: After this many rounds through the pairs without a new set, drawing gives up.
N_TRIES = 50


@dataclass(frozen=True)
class Sets:
    """The demonstration sets of one task; each gives one vector, used on one query.

    Attributes:
        task: the task.
        test: the test episodes. No two have the same demonstrations; queries are never shown.
        dev: further episodes with other queries, on which a layer is chosen.
        n_disjoint: how many sets (with their dummies) can be made without using a pair twice;
            further sets use every pair again, in another order.
        overlap: the share of a set's demonstrations that another set has too, mean over pairs of
            sets.
        n_queries, n_dev_queries: the number of different queries.
    """

    task: Task
    test: tuple[Episode, ...]
    dev: tuple[Episode, ...]
    n_disjoint: int
    overlap: float
    n_queries: int
    n_dev_queries: int


def draw_sets(
    task: Task, n_prompts: int, n_dev: int, n_shots: int, n_dummies: int, seed: int
) -> Sets:
    """Divide a task's pairs into queries and pairs to show, and these into demonstration sets.

    Every round divides all pairs to show into disjoint sets; the next round begins when these are
    used up. Counts and seed: see `VariabilitySettings`.

    Raises:
        InputError: if a count is too small, the seed is negative, or there are too few pairs.

    Example:
        >>> from icl_mech.tasks import load_task
        >>> sets = draw_sets(load_task("antonyms"), 4, 2, 3, 2, 0)
        >>> len(sets.test), sets.n_disjoint
        (4, 74)
    """
    counts = {"n_prompts": n_prompts, "n_dev": n_dev, "n_shots": n_shots, "n_dummies": n_dummies}
    n_prompts, n_dev, n_shots, n_dummies = check_counts(counts, seed)
    if n_prompts < 2:
        raise InputError("n_prompts is 1; expected at least 2, for distances between vectors")
    size = n_shots + n_dummies
    if len(task) < size + 2:
        raise InputError(
            f"task {task.name!r} has {len(task)} pairs, too few: expected at least {size + 2} "
            f"({n_shots} shots + {n_dummies} dummy queries + 1 dev query + 1 test query)"
        )
    rng = generator(seed, task.name, "variability")
    order = [task.pairs[i] for i in rng.permutation(len(task))]
    n_dev_queries, n_asked = cut(len(task), size, n_dev, n_prompts, ASKED)
    dev, test, shown = order[:n_dev_queries], order[n_dev_queries:n_asked], order[n_asked:]
    blocks = _blocks(task, shown, n_shots, size, rng)
    found = tuple(_episode(next(blocks), test, i, n_shots) for i in range(n_prompts))
    return Sets(
        task,
        found,
        tuple(_episode(next(blocks), dev, i, n_shots) for i in range(n_dev)),
        len(shown) // size,
        _overlap(found),
        min(len(test), n_prompts),
        n_dev_queries,
    )


def _blocks(
    task: Task, shown: Sequence[Pair], n_shots: int, size: int, rng: np.random.Generator
) -> Iterator[list[Pair]]:
    """Yield the pairs of one set after the other; no two sets show the same demonstrations."""
    seen: set[frozenset[str]] = set()
    fruitless = 0
    while fruitless < N_TRIES:
        order = [shown[i] for i in rng.permutation(len(shown))]
        fruitless += 1
        for start in range(0, len(order) - size + 1, size):
            block = order[start : start + size]
            key = frozenset(pair.x for pair in block[:n_shots])
            if key not in seen:
                seen.add(key)
                fruitless = 0
                yield block
    raise InputError(
        f"task {task.name!r}: its {len(shown)} pairs to show make too few different sets of "
        f"{n_shots} (found {len(seen)}); expected one for every vector (fewer vectors, another "
        "number of shots, or a larger task)"
    )


def _episode(block: Sequence[Pair], queries: Sequence[Pair], i: int, n_shots: int) -> Episode:
    return Episode(tuple(block[:n_shots]), queries[i % len(queries)], tuple(block[n_shots:]))


def _overlap(episodes: Sequence[Episode]) -> float:
    """The share of a set's demonstrations that another set has too, mean over pairs of sets.

    A pair that is in `n` sets is shared by `n (n - 1) / 2` pairs of sets: counting these takes
    time in proportion to the number of sets, not to its square.
    """
    sets = [{pair.x for pair in e.demonstrations} for e in episodes]
    seen = Counter(x for each in sets for x in each)
    shared = sum(n * (n - 1) for n in seen.values())
    return shared / (len(sets) * (len(sets) - 1) * len(sets[0]))
