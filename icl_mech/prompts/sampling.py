"""Draws episodes from a task: which pairs are shown and which are asked, on dev and on test."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from icl_mech.errors import InputError
from icl_mech.tasks.context import ContextTask
from icl_mech.tasks.seeds import check_seed, count, generator
from icl_mech.tasks.task import Episode, Pair, Task

#: Share of the pairs that may be asked; the others are used in demonstrations.
QUERY_SHARE = 0.6


@dataclass(frozen=True)
class Split:
    """Dev episodes to choose a layer on, and test episodes, with other queries, to report on.

    Attributes:
        dev, test: no query of one is a query of the other, or a demonstration of either.
        prior: the most frequent answer among the pairs that are not asked.
        n_dev_queries, n_test_queries: numbers of different queries (small tasks repeat queries).
    """

    dev: tuple[Episode, ...]
    test: tuple[Episode, ...]
    prior: str
    n_dev_queries: int
    n_test_queries: int


def draw_split(
    task: Task,
    n_test: int,
    n_dev: int,
    n_shots: int,
    n_dummies: int,
    seed: int,
    known: Collection[str] = (),
) -> Split:
    """Cut a task's pairs into dev queries, test queries and demonstrations, and draw episodes.

    If a task has fewer pairs than prompts, queries are repeated with other demonstrations.
    Inputs that are `known` (a vector was read from them) are never asked.

    >>> from icl_mech.tasks import load_task
    >>> split = draw_split(load_task("to_upper"), n_test=6, n_dev=3, n_shots=2, n_dummies=1, seed=0)
    >>> len(split.test), len(split.test[0].demonstrations), len(split.test[0].dummies)
    (6, 2, 1)

    Raises:
        InputError: where a count is no positive whole number or the pairs do not suffice.
    """
    counts = {"n_prompts": n_test, "n_dev": n_dev, "n_shots": n_shots, "n_dummies": n_dummies}
    n_test, n_dev, n_shots, n_dummies = check_counts(counts, seed)
    needed = n_shots + n_dummies
    if len(task) < needed + 2:
        raise InputError(
            f"task {task.name!r} has {len(task)} pairs, too few: expected at least {needed + 2} "
            f"({n_shots} shots + {n_dummies} dummy queries + 1 dev query + 1 test query)"
        )
    rng = generator(seed, task.name, "split")
    order = [task.pairs[i] for i in rng.permutation(len(task))]
    n_known = sum(pair.x in known for pair in order)
    if len(order) - n_known < 2:
        raise InputError(
            f"task {task.name!r} has {len(order) - n_known} inputs that the vector was not shown; "
            "expected at least 2 (1 dev query + 1 test query)"
        )
    order.sort(key=lambda pair: pair.x in known)  # those that may be asked come first
    n_dev_queries, asked = cut(len(task), max(needed, n_known), n_dev, n_test)
    dev, test = order[:n_dev_queries], order[n_dev_queries:asked]
    shown = order[asked:]
    return Split(
        dev=draw_episodes(dev, shown, n_dev, n_shots, n_dummies, rng),
        test=draw_episodes(test, shown, n_test, n_shots, n_dummies, rng),
        prior=Counter(pair.y for pair in shown).most_common(1)[0][0],
        n_dev_queries=len(dev),
        n_test_queries=min(len(test), n_test),
    )


def draw_context_split(
    task: ContextTask, n_test: int, n_dev: int, n_dummies: int, seed: int
) -> Split:
    """Cut a `ContextTask`'s items into dev queries, test queries and shown items; draw episodes.

    `prior` is the most frequent answer among the demonstrations of the dev prompts.

    >>> from icl_mech.tasks import load_failure
    >>> split = draw_context_split(load_failure("lookup"), n_test=6, n_dev=3, n_dummies=1, seed=0)
    >>> len(split.test), len(split.test[0].demonstrations)
    (6, 8)

    Raises:
        InputError: where a count is no positive whole number or the items do not suffice.
    """
    counts = {"n_prompts": n_test, "n_dev": n_dev, "n_dummies": n_dummies}
    n_test, n_dev, n_dummies = check_counts(counts, seed)
    needed = task.needs + n_dummies
    if len(task) < needed + 2:
        raise InputError(
            f"task {task.name!r} has {len(task)} items, too few: expected at least {needed + 2} "
            f"({task.needs} to show + {n_dummies} dummy queries + 1 dev query + 1 test query)"
        )
    rng = generator(seed, task.name, "split")
    order = [task.items[i] for i in rng.permutation(len(task))]
    n_dev_queries, asked = cut(len(task), needed, n_dev, n_test)
    shown = order[asked:]

    def episodes(queries: Sequence[str], n: int) -> tuple[Episode, ...]:
        return tuple(
            task.episode(
                queries[i % len(queries)],
                [shown[j] for j in rng.permutation(len(shown))],
                n_dummies,
                rng,
            )
            for i in range(n)
        )

    dev, test = order[:n_dev_queries], order[n_dev_queries:asked]
    on_dev, on_test = episodes(dev, n_dev), episodes(test, n_test)
    answers = Counter(pair.y for e in on_dev for pair in e.demonstrations)
    return Split(on_dev, on_test, answers.most_common(1)[0][0], len(dev), min(len(test), n_test))


def check_counts(counts: Mapping[str, Any], seed: Any) -> list[int]:
    """Check that counts are whole numbers from 1 to `MOST`, and that the seed is valid.

    >>> check_counts({"n_prompts": np.int8(100), "n_shots": 5}, seed=0)
    [100, 5]

    Returns:
        The counts in their order, as plain integers (sums of numpy's small ones overflow).

    Raises:
        InputError: naming the first.
    """
    checked = [count(name, value) for name, value in counts.items()]
    check_seed(seed)
    return checked


def cut(
    n: int, needed: int, n_dev: int, n_test: int, share: float = QUERY_SHARE
) -> tuple[int, int]:
    """For `n` shuffled pairs: the end of those asked on dev, and the end of all that are asked.

    >>> cut(100, needed=7, n_dev=50, n_test=100)  # 20 asked on dev, 40 on test
    (20, 60)

    Args:
        n: pairs.
        needed: how many must be left to be shown.
        n_dev, n_test: how many are wanted.
        share: of the pairs, at most, that are asked.
    """
    asked = min(n_dev + n_test, max(2, int(share * n)), n - needed)
    return min(n_dev, max(1, round(asked * n_dev / (n_dev + n_test))), asked - 1), asked


def draw_episodes(
    queries: Sequence[Pair],
    shown: Sequence[Pair],
    n: int,
    n_shots: int,
    n_dummies: int,
    rng: np.random.Generator,
) -> tuple[Episode, ...]:
    """Ask each query in turn, `n` times in all, after demonstrations drawn from `shown`.

    >>> pairs = [Pair(x, (x.upper(),)) for x in "abcd"]
    >>> (episode,) = draw_episodes(pairs[:1], pairs[1:], 1, 2, 1, np.random.default_rng(0))
    >>> episode.query.x, len(episode.demonstrations), len(episode.dummies)
    ('a', 2, 1)
    """
    of_input: dict[str, list[int]] = {}
    for j, pair in enumerate(shown):
        of_input.setdefault(pair.x, []).append(j)
    episodes = []
    for i in range(n):
        query = queries[i % len(queries)]
        named = [j for answer in query.answers for j in of_input.get(answer, ())]
        # "cold -> hot" would give away the answer to "hot": it is shown only if no other pair is
        # left.
        telling = {j for j in named if mirrors(shown[j], query)}
        order = sorted(rng.permutation(len(shown)).tolist(), key=telling.__contains__)
        drawn = [shown[j] for j in order[: n_shots + n_dummies]]
        episodes.append(Episode(tuple(drawn[:n_shots]), query, tuple(drawn[n_shots:])))
    return tuple(episodes)


def mirrors(pair: Pair, query: Pair) -> bool:
    """Whether each pair's answer is the other's input, as in "cold -> hot" and "hot -> cold".

    >>> mirrors(Pair("cold", ("hot",)), Pair("hot", ("cold", "cool")))
    True
    """
    return pair.x in query.answers and query.x in pair.answers


def shuffle_labels(demonstrations: Sequence[Pair], rng: np.random.Generator) -> tuple[Pair, ...]:
    """The same inputs and the same answers, each input with another demonstration's answer.

    If two demonstrations share an answer (few labels), an input may keep the right one.

    >>> pairs = [Pair("a", ("A",)), Pair("b", ("B",))]
    >>> [pair.y for pair in shuffle_labels(pairs, np.random.default_rng(0))]
    ['B', 'A']
    """
    n = len(demonstrations)
    # A cycle through the demonstrations in random order moves every answer.
    order = rng.permutation(n)
    moved = {int(order[i]): demonstrations[int(order[(i + 1) % n])] for i in range(n)}
    return tuple(Pair(pair.x, moved[i].answers) for i, pair in enumerate(demonstrations))
