"""Draws the queries that two tasks answer differently, and demonstrations of each task."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from icl_mech.errors import InputError
from icl_mech.prompts import Episode, check_counts, draw_episodes, generator
from icl_mech.tasks import Pair, Task

#: The least number of different queries per pair of tasks (if that many prompts are asked for).
MIN_QUERIES = 5
#: The largest share of a small task's pairs that are queries, and that are dev queries.
ASKED, ON_DEV = 0.4, 0.2
#: How often a dev demonstration set is drawn again before the task counts as too small.
N_TRIES = 100

#: Whether the answers of two tasks to one input differ, given the pair of either task.
Differ = Callable[[Pair, Pair], bool]


class ConflictUndefined(InputError):
    """Two tasks between which no conflict can be measured."""


@dataclass(frozen=True)
class ConflictEpisodes:
    """The episodes of one pair of tasks.

    Attributes:
        prompt_task: the task that the prompt shows (A).
        injected_task: the task whose vector is injected (B).
        prompts: demonstrations of A, and a query that both tasks answer, differently.
        own: other demonstrations of A than in `prompts`, for the control vector; same queries.
        injected: demonstrations of B, for the injected vector; same queries, with B's answers.
        dev: demonstrations and queries of B on which the layer is chosen. They share no query and
            no demonstration set with `injected`.
        n_shared: the number of inputs that both tasks have.
        n_agreed: how many of these both tasks answer alike; they are neither asked nor shown.
        n_left_out: how many of these are not asked because of `differ`.
        n_queries, n_dev_queries: the number of different queries.
    """

    prompt_task: Task
    injected_task: Task
    prompts: tuple[Episode, ...]
    own: tuple[Episode, ...]
    injected: tuple[Episode, ...]
    dev: tuple[Episode, ...]
    n_shared: int
    n_agreed: int
    n_left_out: int
    n_queries: int
    n_dev_queries: int


def answers_differ(first: Pair, second: Pair) -> bool:
    """Whether no answer is accepted by both."""
    return set(first.answers).isdisjoint(second.answers)


def draw_conflict(
    prompt_task: Task,
    injected_task: Task,
    n_prompts: int,
    n_dev: int,
    n_shots: int,
    n_dummies: int,
    seed: int,
    differ: Differ = answers_differ,
) -> ConflictEpisodes:
    """Draw queries that both tasks answer differently, and demonstrations that hold no query.

    Only inputs that a task lists count: no rule is applied to others (to_upper is a task about
    letters; the same for words is english_words/upper).

    Args:
        prompt_task: the task that the prompt shows (A).
        injected_task: the task whose vector is injected (B).
        n_prompts, n_dev, n_shots, n_dummies, seed: see `ConflictSettings`.
        differ: whether an input may be asked, given A's and B's pair; a further condition.

    Raises:
        ConflictUndefined: if the tasks share no input, agree on all of them, or have too few
            pairs left for queries and demonstrations that are disjoint.
        InputError: if a count is not positive or the seed is negative.

    Example:
        >>> from icl_mech.tasks import load_task
        >>> drawn = draw_conflict(load_task("to_upper"), load_task("next_letter"), 4, 2, 3, 2, 0)
        >>> len(drawn.prompts), len(drawn.dev)
        (4, 2)
    """
    counts = {"n_prompts": n_prompts, "n_dev": n_dev, "n_shots": n_shots, "n_dummies": n_dummies}
    check_counts(counts, seed)
    a, b = prompt_task, injected_task
    in_a, in_b = ({pair.x: pair for pair in task.pairs} for task in (a, b))
    shared = [x for x in in_a if x in in_b]
    agreed = {x for x in shared if not answers_differ(in_a[x], in_b[x])}
    disputed = [x for x in shared if x not in agreed and differ(in_a[x], in_b[x])]
    _check_disputed(a, b, len(shared), len(agreed), len(disputed))
    rng = generator(seed, a.name, b.name, "conflict")
    of_a = [pair for pair in a.pairs if pair.x not in agreed]
    of_b = [pair for pair in b.pairs if pair.x not in agreed]
    n_left_out = len(shared) - len(agreed) - len(disputed)
    n_queries = _n_queries(a, b, len(of_a), len(of_b), len(disputed), n_left_out, counts)

    asked = [disputed[i] for i in rng.permutation(len(disputed))[:n_queries]]
    rest_b = [pair for pair in of_b if pair.x not in asked]
    rest_b = [rest_b[i] for i in rng.permutation(len(rest_b))]
    most = len(rest_b) - n_shots - n_dummies
    n_dev_queries = min(n_dev, max(1, int(ON_DEV * len(of_b))), most)
    dev_queries, shown_b = rest_b[:n_dev_queries], rest_b[n_dev_queries:]
    shown_a = [pair for pair in of_a if pair.x not in asked]
    # One draw for the prompt's demonstrations and the control's, so that they share none.
    both = draw_episodes(
        [in_a[x] for x in asked], shown_a, n_prompts, n_shots, n_shots + n_dummies, rng
    )
    injected = draw_episodes([in_b[x] for x in asked], shown_b, n_prompts, n_shots, n_dummies, rng)
    return ConflictEpisodes(
        prompt_task=a,
        injected_task=b,
        prompts=tuple(Episode(e.demonstrations, e.query, ()) for e in both),
        own=tuple(Episode(e.dummies[:n_shots], e.query, e.dummies[n_shots:]) for e in both),
        injected=injected,
        dev=_dev_episodes(injected, b, dev_queries, shown_b, n_dev, n_shots, n_dummies, rng),
        n_shared=len(shared),
        n_agreed=len(agreed),
        n_left_out=n_left_out,
        n_queries=n_queries,
        n_dev_queries=n_dev_queries,
    )


def _check_disputed(a: Task, b: Task, n_shared: int, n_agreed: int, n_disputed: int) -> None:
    names = f"{a.name!r} and {b.name!r}"
    if a.name == b.name:
        raise ConflictUndefined(f"conflict undefined: {a.name!r} with itself; expected two tasks")
    if not n_shared:
        raise ConflictUndefined(
            f"conflict undefined: {names} share no input, so neither answers a query of the other; "
            "expected tasks about the same inputs, such as those of a family"
        )
    if n_agreed == n_shared:
        raise ConflictUndefined(
            f"conflict undefined: {names} give the same answers to every input that they share "
            f"({n_shared}); expected tasks that answer differently"
        )
    if not n_disputed:
        raise ConflictUndefined(
            f"conflict undefined: wherever {names} answer differently ({n_shared - n_agreed} "
            "inputs), this tokenizer's answers begin with the same token; expected tasks "
            "whose answers begin with different tokens"
        )


def _n_queries(
    a: Task,
    b: Task,
    n_a: int,
    n_b: int,
    n_disputed: int,
    n_left_out: int,
    counts: Mapping[str, int],
) -> int:
    """How many inputs are asked, so that enough pairs of both tasks are left to be shown."""
    shots, dummies, n_prompts = counts["n_shots"], counts["n_dummies"], counts["n_prompts"]
    need_a, need_b = 2 * shots + dummies, shots + dummies + 1
    most, least = min(n_a - need_a, n_b - need_b, n_disputed), min(MIN_QUERIES, n_prompts)
    if most < least:
        begin = f"; {n_left_out} more begin with the same token" if n_left_out else ""
        raise ConflictUndefined(
            f"{a.name!r} and {b.name!r}: too few pairs; expected at least {least} inputs that both "
            f"answer differently (there are {n_disputed}{begin}), and beside those asked {need_a} "
            f"pairs of {a.name!r} (2 x {shots} shots + {dummies} dummy queries; it has {n_a} in "
            f"all) and {need_b} of {b.name!r} ({shots} shots + {dummies} dummy queries + 1 dev "
            f"query; it has {n_b})"
        )
    share = min(n - ceil((1 - ASKED) * n) for n in (n_a, n_b))
    return min(n_prompts, most, max(share, MIN_QUERIES))


def _dev_episodes(
    injected: tuple[Episode, ...],
    task: Task,
    queries: list[Pair],
    shown: list[Pair],
    n: int,
    n_shots: int,
    n_dummies: int,
    rng: np.random.Generator,
) -> tuple[Episode, ...]:
    """Dev episodes whose demonstration sets are not among the injected ones."""
    taken = {frozenset(pair.x for pair in e.demonstrations) for e in injected}
    found = []
    for i in range(n):
        query = queries[i % len(queries)]
        for _ in range(N_TRIES):
            (episode,) = draw_episodes([query], shown, 1, n_shots, n_dummies, rng)
            if frozenset(pair.x for pair in episode.demonstrations) not in taken:
                found.append(episode)
                break
        else:
            raise ConflictUndefined(
                f"task {task.name!r}: its {len(shown)} pairs to show make too few different sets "
                f"of {n_shots}: none is left for the dev prompts; expected fewer shots, fewer "
                "prompts, or a larger task"
            )
    return tuple(found)
