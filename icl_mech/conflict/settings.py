"""What decides the numbers, and which pairs conflict: checked before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.conflict.sampling import (
    ConflictUndefined,
    Differ,
    Drawn,
    answers_differ,
    draw_conflict,
)
from icl_mech.errors import InputError
from icl_mech.prompts import PromptSettings
from icl_mech.tasks import Task

#: Pairs without a conflict: their tasks, and the reason.
Undefined = dict[str, dict[str, str]]


@dataclass(frozen=True)
class Settings(PromptSettings):
    """Everything that, with the model and the tasks, decides the numbers."""

    def draw(self, a: Task, b: Task, differ: Differ = answers_differ) -> Drawn:
        """The episodes of a pair; see `draw_conflict`."""
        s = self
        return draw_conflict(
            a, b, s.n_prompts, s.n_dev, s.n_shots, s.n_dummies, s.seed, differ=differ
        )


def defined(
    pairs: Sequence[tuple[Task, Task]], matrix: bool, settings: Settings
) -> tuple[list[tuple[Task, Task]], Undefined]:
    """The pairs that conflict, and why the others do not; nothing is run.

    Raises:
        InputError: where a pair that was asked for by name (not as part of a matrix), or every
            pair, has no conflict.
    """
    kept: list[tuple[Task, Task]] = []
    undefined: Undefined = {}
    for a, b in pairs:
        try:
            settings.draw(a, b)
            kept.append((a, b))
        except ConflictUndefined as error:
            if not matrix:
                raise
            undefined[pair_name(a, b)] = why(a, b, error)
    if not kept:
        raise InputError(f"none of {len(pairs)} pairs conflicts: {first_reason(undefined)}")
    return kept, undefined


def why(a: Task, b: Task, error: ConflictUndefined) -> dict[str, str]:
    """An entry of `Undefined`."""
    return {"prompt_task": a.name, "injected_task": b.name, "reason": str(error)}


def first_reason(undefined: Undefined) -> str:
    """For an error about all of them."""
    return next(iter(undefined.values()))["reason"]


def pair_name(a: Task, b: Task) -> str:
    """How a pair is called in results and on the command line."""
    return f"{a.name}:{b.name}"
