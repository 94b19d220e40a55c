"""Episodes that match across tasks: the same queries and demonstration inputs, other answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from icl_mech.errors import InputError
from icl_mech.prompts.sampling import QUERY_SHARE, Episode, check_counts, mirrors
from icl_mech.tasks.seeds import generator
from icl_mech.tasks.task import Task


@dataclass(frozen=True)
class Matched:
    """The same number of episodes of every task, without dummies.

    Attributes:
        episodes: `[task][point]`. Where the tasks share their inputs, point `i` of every task has
            the same query and the same demonstration inputs in the same order.
        n_queries: the number of different queries, in the task that has the fewest.
    """

    episodes: tuple[tuple[Episode, ...], ...]
    n_queries: int


def same_inputs(tasks: Sequence[Task]) -> bool:
    """Whether all tasks ask the same inputs in the same order, as those of a family do.

    >>> from icl_mech.tasks import Task
    >>> same_inputs([Task.from_pairs({"x": "1"}, "a"), Task.from_pairs({"x": "2"}, "b")])
    True
    """
    inputs = [[pair.x for pair in task.pairs] for task in tasks]
    return all(row == inputs[0] for row in inputs[1:])


def draw_matched(
    tasks: Sequence[Task], sizes: Mapping[str, int], n_shots: int, seed: int
) -> tuple[Matched, ...]:
    """Draw sets of matched episodes that share no query, each set of the size given in `sizes`.

    >>> from icl_mech.tasks import load_family
    >>> (drawn,) = draw_matched(load_family("bitwise").tasks[:2], {"n_points": 4}, 3, seed=0)
    >>> first, second = drawn.episodes
    >>> [len(first), first[0].query.x == second[0].query.x]
    [4, True]

    Args:
        tasks: every set has episodes of each of them.
        sizes: name -> episodes per task, for every set; errors use these names.
        n_shots: demonstrations per episode.
        seed: of every random draw.

    No query of any set is among the demonstrations of any set. If a task has fewer inputs than
    episodes, queries repeat with other demonstrations. Tasks that do not share their inputs are
    drawn separately.

    Raises:
        InputError: where a count (named as in `sizes`) or the seed cannot work, or inputs do not
            suffice.
    """
    n_shots, *counts = check_counts({"n_shots": n_shots, **sizes}, seed)
    if same_inputs(tasks):
        return _draw(tasks, counts, n_shots, generator(seed, "matched"))
    drawn = [_draw([t], counts, n_shots, generator(seed, "matched", t.name)) for t in tasks]
    return tuple(
        Matched(tuple(m.episodes[0] for m in parts), min(m.n_queries for m in parts))
        for parts in zip(*drawn, strict=True)
    )


def _draw(
    tasks: Sequence[Task], sizes: Sequence[int], n_shots: int, rng: np.random.Generator
) -> tuple[Matched, ...]:
    n_inputs, fewest = len(tasks[0]), 2 * len(sizes)
    if n_inputs < n_shots + fewest:
        raise InputError(
            f"task {tasks[0].name!r} has {n_inputs} inputs, too few: expected at least "
            f"{n_shots + fewest} ({n_shots} shots + {fewest} queries)"
        )
    order = rng.permutation(n_inputs)
    n_asked = min(sum(sizes), max(fewest, int(QUERY_SHARE * n_inputs)), n_inputs - n_shots)
    # Two queries for every set; the others are shared out in proportion to the sizes.
    spare = n_asked - fewest
    total = sum(sizes)
    ends = [0, *(2 * i + round(spare * n / total) for i, n in enumerate(accumulate(sizes), 1))]
    shown = order[n_asked:]
    return tuple(
        _episodes(tasks, order[start:end][:size], shown, size, n_shots, rng)
        for (start, end), size in zip(pairwise(ends), sizes, strict=True)
    )


def _episodes(
    tasks: Sequence[Task],
    queries: np.ndarray,
    shown: np.ndarray,
    n: int,
    n_shots: int,
    rng: np.random.Generator,
) -> Matched:
    rows: list[list[Episode]] = [[] for _ in tasks]
    for i in range(n):
        query = int(queries[i % len(queries)])
        # "cold -> hot" would give away the answer to "hot": it is shown only if no other pair is
        # left.
        drawn = sorted(
            (int(j) for j in rng.permutation(shown)),
            key=lambda j: any(mirrors(t.pairs[j], t.pairs[query]) for t in tasks),
        )[:n_shots]
        for row, task in zip(rows, tasks, strict=True):
            row.append(Episode(tuple(task.pairs[j] for j in drawn), task.pairs[query], ()))
    return Matched(tuple(map(tuple, rows)), min(n, len(queries)))
