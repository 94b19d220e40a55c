"""What conflicting tasks are measured on: settings, and the pairs of tasks that conflict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from icl_mech.conflict.pairs import Pairs, as_pairs
from icl_mech.conflict.sampling import (
    ConflictEpisodes,
    ConflictUndefined,
    Differ,
    answers_differ,
    draw_conflict,
)
from icl_mech.errors import InputError
from icl_mech.prompts import VectorSettings, instructed
from icl_mech.tasks import Task, Tasks

#: The pairs that have no conflict, each with its two tasks and the reason.
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
        drawn = draw_conflict(
            a, b, s.n_prompts, s.dev, s.n_shots, s.n_dummies, s.seed, differ=differ
        )
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
        pairs: those whose answers differ, by the words alone.
        undefined: the pairs that were left out.
        matrix: whether the pairs are all ordered pairs of several tasks, of which some may turn
            out to have no conflict.
        asked: the names of all tasks.
        settings: how prompts are drawn.
    """

    pairs: Sequence[tuple[Task, Task]]
    undefined: Undefined
    matrix: bool
    asked: Sequence[str]
    settings: ConflictSettings


def plan(tasks: Pairs | Tasks | None, settings: ConflictSettings) -> ConflictPlan:
    """Load the tasks and find the pairs that conflict; no model is needed.

    Raises:
        InputError: where a task does not exist, or a pair that was asked for by name (not as part
            of a matrix), or every pair, has no conflict.

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
            undefined[pair_name(a, b)] = why(a, b, error)
    if not kept:
        raise InputError(f"none of {len(asked)} pairs conflicts: {first_reason(undefined)}")
    names = list(dict.fromkeys(task.name for pair in asked for task in pair))
    return ConflictPlan(kept, undefined, matrix, names, settings)


def why(a: Task, b: Task, error: ConflictUndefined) -> dict[str, str]:
    """An entry of `Undefined`."""
    return {"prompt_task": a.name, "injected_task": b.name, "reason": str(error)}


def first_reason(undefined: Undefined) -> str:
    """The reason of the first pair that was left out, for an error about all of them."""
    return next(iter(undefined.values()))["reason"]


def pair_name(a: Task, b: Task) -> str:
    """How a pair is called in results and on the command line."""
    return f"{a.name}:{b.name}"
