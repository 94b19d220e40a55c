"""The settings of `conflicting_tasks`, and the pairs of tasks that conflict."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import permutations

from icl_mech.conflict.sampling import (
    ConflictEpisodes,
    ConflictUndefined,
    Differ,
    answers_differ,
    draw_conflict,
)
from icl_mech.errors import InputError
from icl_mech.prompts import VectorSettings, instructed
from icl_mech.reference import hendel2023
from icl_mech.tasks import Task, Tasks, load_task, load_tasks

#: Pairs (A, B): the prompt shows task A, and the vector of task B is injected.
Pairs = Sequence[tuple[Task | str, Task | str]]
#: The pairs that have no conflict, by name, each with its two tasks and the reason.
Undefined = dict[str, dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class ConflictSettings(VectorSettings):
    """Settings of `conflicting_tasks`.

    Example:
        >>> ConflictSettings().n_shots, ConflictSettings().dev
        (4, 25)
    """

    n_prompts: int = 50
    """Prompts per pair of tasks."""
    n_shots: int = 4
    """Demonstrations per prompt and per vector."""

    def between(self, a: Task, b: Task, differ: Differ = answers_differ) -> ConflictEpisodes:
        """The episodes of a pair; see `draw_conflict`."""
        s = self
        drawn = draw_conflict(a, b, s.n_prompts, s.dev, s.n_shots, s.n_dummies, s.seed, differ)
        return replace(
            drawn,
            prompts=instructed(drawn.prompts, a, s.instruction),
            own=instructed(drawn.own, a, s.instruction),
            injected=instructed(drawn.injected, b, s.instruction),
            dev=instructed(drawn.dev, b, s.instruction),
        )


@dataclass(frozen=True)
class ConflictPlan:
    """Which pairs are measured.

    Attributes:
        pairs: the pairs whose answers differ as text.
        undefined: the pairs that were left out.
        matrix: whether the caller gave several tasks, which means all ordered pairs of them.
            Then pairs without a conflict are left out; otherwise they are errors.
        asked: the names of all tasks.
        settings: how prompts are drawn.
    """

    pairs: Sequence[tuple[Task, Task]]
    undefined: Undefined
    matrix: bool
    asked: Sequence[str]
    settings: ConflictSettings


def paper_pairs() -> list[tuple[str, str]]:
    """The five pairs of the paper: the prompt's task, and the task whose vector is injected.

    >>> paper_pairs()[0], paper_pairs()[-1]
    (('next_letter', 'to_upper'), ('en_es', 'en_fr'))
    """
    return [(conflict.task, conflict.other_task) for conflict in hendel2023().conflicts]


def plan(tasks: Pairs | Tasks | None, settings: ConflictSettings) -> ConflictPlan:
    """Load the tasks and find the pairs that conflict; no model is needed.

    Raises:
        InputError: if a task does not exist, or if a pair that was named, or every pair of a
            matrix, has no conflict.

    Example:
        >>> found = plan(["to_upper", "next_letter"], ConflictSettings(n_prompts=4))
        >>> [pair_name(a, b) for a, b in found.pairs]
        ['to_upper:next_letter', 'next_letter:to_upper']
    """
    asked, matrix = as_pairs(tasks)
    kept: list[tuple[Task, Task]] = []
    undefined: Undefined = {}
    for a, b in asked:
        try:
            settings.between(a, b)
            kept.append((a, b))
        except ConflictUndefined as error:
            if not matrix:
                raise
            undefined |= why_undefined(a, b, error)
    if not kept:
        raise InputError(f"none of {len(asked)} pairs conflicts: {first_reason(undefined)}")
    names = list(dict.fromkeys(task.name for pair in asked for task in pair))
    return ConflictPlan(kept, undefined, matrix, names, settings)


def as_pairs(given: Pairs | Tasks | None) -> tuple[list[tuple[Task, Task]], bool]:
    """The pairs given, all ordered pairs of the tasks given, or (`None`) the pairs of the paper.

    Returns:
        The pairs, and whether they are all ordered pairs of several tasks (a matrix).

    Raises:
        InputError: if a name is unknown, a pair or task appears twice, or only one task is given.

    Example:
        >>> pairs, matrix = as_pairs([("to_upper", "next_letter")])
        >>> [(first.name, second.name) for first, second in pairs], matrix
        ([('to_upper', 'next_letter')], False)
    """
    if given is None:
        given = paper_pairs()
    several = isinstance(given, Iterable) and not isinstance(given, str)
    if several and any(isinstance(item, tuple) for item in given):  # type: ignore[union-attr]
        return _named_pairs(given), False  # type: ignore[arg-type]
    tasks = load_tasks(given)  # type: ignore[arg-type]  # no tuples among them
    if len(tasks) < 2:
        raise InputError(f"one task ({tasks[0].name!r}); expected two or more, or pairs of tasks")
    return list(permutations(tasks, 2)), True


def _named_pairs(given: Sequence) -> list[tuple[Task, Task]]:
    pairs: dict[str, tuple[Task, Task]] = {}
    for item in given:
        if not isinstance(item, tuple) or len(item) != 2:
            raise InputError(
                f"{item!r} among pairs of tasks; expected only pairs (prompt's task, injected task)"
            )
        a, b = (t if isinstance(t, Task) else load_task(t) for t in item)
        name = pair_name(a, b)
        if name in pairs:
            raise InputError(f"the pair {name} is given twice; expected each once")
        pairs[name] = a, b
    return list(pairs.values())


def parse_pair(text: str) -> tuple[Task, Task]:
    """A pair from its name: the prompt's task, a colon, the injected task.

    A task's name may itself hold a colon ("pos:file.conllu/noun").

    Raises:
        InputError: if there is no colon, or a task is unknown.
    """
    problem = None
    for cut in (i for i, letter in enumerate(text) if letter == ":"):
        try:
            return load_task(text[:cut]), load_task(text[cut + 1 :])
        except InputError as error:
            problem = problem or error
    raise problem or InputError(
        f"pair {text!r}; expected the prompt's task, a colon, and the injected task, as in "
        "next_letter:to_upper"
    )


def pair_name(a: Task, b: Task) -> str:
    """The name of a pair in results and on the command line."""
    return f"{a.name}:{b.name}"


def why_undefined(a: Task, b: Task, error: ConflictUndefined) -> Undefined:
    """The entry of a pair that has no conflict."""
    entry = {"prompt_task": a.name, "injected_task": b.name, "reason": str(error)}
    return {pair_name(a, b): entry}


def first_reason(undefined: Undefined) -> str:
    """Why the first pair was left out, for an error about all of them."""
    return next(iter(undefined.values()))["reason"]
