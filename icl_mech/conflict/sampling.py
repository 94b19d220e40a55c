"""What two tasks can disagree about: the queries that both answer, and differently."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np

from icl_mech.errors import InputError
from icl_mech.prompts import Episode, check_counts, draw_episodes, generator
from icl_mech.tasks import Pair, Task

#: Fewer different queries say nothing about a pair of tasks.
MIN_QUERIES = 5
#: Shares of a small task's pairs: asked at most, and kept for the dev prompts.
ASKED, ON_DEV = 0.4, 0.2
#: How often a dev demonstration set is drawn again before the task counts as too small.
N_TRIES = 100

#: Whether the answers of two tasks to one input differ.
Differ = Callable[[Pair, Pair], bool]


class ConflictUndefined(InputError):
    """Two tasks between which no conflict can be measured."""


@dataclass(frozen=True)
class ConflictEpisodes:
    """The episodes of one pair of tasks; row `i` of the first three asks the same query.

    Attributes:
        prompt_task: what the prompt shows (A).
        injected_task: whose vector is injected (B).
        prompts: demonstrations of A, and a query that both tasks answer, differently.
        own: other demonstrations of A, none of them in the prompt: for the control vector.
        injected: demonstrations of B: for the injected vector. The query holds B's answers.
        dev: demonstrations and queries of B on which the layer is chosen: other queries, and
            other demonstration sets than `injected`.
        n_shared: inputs that both tasks have.
        n_agreed: those of them on which the answers agree; they are neither asked nor shown.
        n_left_out: those of them that are not asked for another reason (see `differ`).
        n_queries, n_dev_queries: how many queries differ.
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
    """Draw queries that both tasks answer, and demonstrations of each that hold none of them.

    A task answers the inputs that it lists, no others: no rule is stretched beyond them
    (to_upper is a task about letters; that about words is english_words/upper).

    Args:
        prompt_task: what the prompt shows (A).
        injected_task: whose vector is injected (B).
        n_prompts: prompts; queries return with other demonstrations where there are fewer.
        n_dev: prompts on which the layer is chosen.
        n_shots: demonstrations per prompt and per vector.
        n_dummies: dummy queries per vector.
        seed: of every random draw.
        differ: a further reason not to ask an input; it gets the two tasks' pairs.

    Raises:
        ConflictUndefined: where the tasks share no input, agree on all of them, or have too few
            pairs left for queries and demonstrations that are disjoint.
        InputError: where a count is not positive or the seed is negative.

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
    _check_sizes(a, b, (len(of_a), len(of_b)), len(shared) - len(agreed), len(disputed), counts)
    n_queries = _n_queries(len(of_a), len(of_b), len(disputed), counts)

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
        dev=_others(injected, b, dev_queries, shown_b, n_dev, n_shots, n_dummies, rng),
        n_shared=len(shared),
        n_agreed=len(agreed),
        n_left_out=len(shared) - len(agreed) - len(disputed),
        n_queries=n_queries,
        n_dev_queries=n_dev_queries,
    )


def _check_disputed(a: Task, b: Task, n_shared: int, n_agreed: int, n_disputed: int) -> None:
    names = f"{a.name!r} and {b.name!r}"
    if a.name == b.name:
        raise ConflictUndefined(f"conflict undefined: {a.name!r} with itself; expected two tasks")
    if not n_shared:
        raise ConflictUndefined(
            f"conflict undefined: {names} share no input, so that neither answers a query of the "
            "other; expected tasks about the same inputs, such as those of a family"
        )
    if n_agreed == n_shared:
        raise ConflictUndefined(
            f"conflict undefined: {names} give the same answers to every input that they share "
            f"({n_shared}); expected tasks that answer differently"
        )
    if not n_disputed:
        raise ConflictUndefined(
            f"conflict undefined: wherever {names} answer differently ({n_shared - n_agreed} "
            "inputs), this tokenizer's answers begin with the same token; expected tasks that "
            "their first tokens tell apart"
        )


def _needed(counts: Mapping[str, int]) -> tuple[int, int]:
    """How many pairs of A and of B a prompt and its vectors take, beside the query."""
    shots, dummies = counts["n_shots"], counts["n_dummies"]
    return 2 * shots + dummies, shots + dummies + 1


def _check_sizes(
    a: Task,
    b: Task,
    sizes: tuple[int, int],
    n_different: int,
    n_disputed: int,
    counts: Mapping[str, int],
) -> None:
    needed, least = _needed(counts), min(MIN_QUERIES, counts["n_prompts"])
    room = min(size - need for size, need in zip(sizes, needed, strict=True))
    if min(room, n_disputed) >= least:
        return
    alike = n_different - n_disputed
    begin = f"; {alike} more begin with the same token" if alike else ""
    shots, dummies = counts["n_shots"], counts["n_dummies"]
    raise ConflictUndefined(
        f"{a.name!r} and {b.name!r}: too few pairs; expected at least {least} inputs that both "
        f"answer differently (there are {n_disputed}{begin}), and beside those asked {needed[0]} "
        f"pairs of {a.name!r} (2 x {shots} shots + {dummies} dummy queries; it has {sizes[0]} in "
        f"all) and {needed[1]} of {b.name!r} ({shots} shots + {dummies} dummy queries + 1 dev "
        f"query; it has {sizes[1]})"
    )


def _n_queries(n_a: int, n_b: int, n_disputed: int, counts: Mapping[str, int]) -> int:
    """How many inputs are asked: as many as leave enough of both tasks to be shown."""
    need_a, need_b = _needed(counts)
    hard = min(n_a - need_a, n_b - need_b, n_disputed)
    soft = min(n - ceil((1 - ASKED) * n) for n in (n_a, n_b))
    return min(counts["n_prompts"], hard, max(soft, MIN_QUERIES))


def _others(
    injected: tuple[Episode, ...],
    task: Task,
    queries: list[Pair],
    shown: list[Pair],
    n: int,
    n_shots: int,
    n_dummies: int,
    rng: np.random.Generator,
) -> tuple[Episode, ...]:
    """Dev episodes, none of them with a demonstration set that is injected."""
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
                f"of {n_shots}; expected some for the dev prompts that are not injected (fewer "
                "shots, fewer prompts, or a larger task)"
            )
    return tuple(found)
