"""The settings of `vector_variability`, and the demonstration sets of every task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from icl_mech.errors import InputError
from icl_mech.prompts import VectorSettings, instructed
from icl_mech.tasks import Tasks, load_tasks
from icl_mech.variability.sampling import Sets, draw_sets


@dataclass(frozen=True, kw_only=True)
class VariabilitySettings(VectorSettings):
    """Settings of `vector_variability`.

    Example:
        >>> VariabilitySettings(n_shots=(5, 1)).n_shots
        (1, 5)
    """

    n_prompts: int = 25
    """Demonstration sets per task; each gives one vector and is asked one query."""
    n_shots: tuple[int, ...] = (5,)  # type: ignore[assignment]
    """Demonstrations per set; if several numbers are given, all are measured on the same sets."""
    n_dev: int | None = None
    """Further sets per task, to choose the layer that is quoted; by default half of --n-prompts."""


@dataclass(frozen=True)
class VariabilityPlan:
    """The demonstration sets of every task, and the settings that they were drawn with."""

    sets: Sequence[Sets]
    settings: VariabilitySettings


def plan(tasks: Tasks, settings: VariabilitySettings) -> VariabilityPlan:
    """Load the tasks and draw sets with the largest number of shots; no model is needed.

    Raises:
        InputError: if a task is unknown or too small, or only one task is given.

    Example:
        >>> drawn = plan(["antonyms", "es_en"], VariabilitySettings(n_prompts=4))
        >>> [len(sets.test) for sets in drawn.sets]
        [4, 4]
    """
    s = settings
    several = load_tasks(tasks)
    if len(several) < 2:
        raise InputError(
            f"one task ({several[0].name!r}); expected two or more: distances within a task are "
            "compared with those between tasks"
        )
    sets = [
        draw_sets(task, s.n_prompts, s.dev, max(s.n_shots), s.n_dummies, s.seed) for task in several
    ]
    return VariabilityPlan([_instructed(of, s.instruction) for of in sets], settings)


def _instructed(sets: Sets, instruction: str) -> Sets:
    """The same sets with the line that their prompts begin with."""
    dev, test = (instructed(of, sets.task, instruction) for of in (sets.dev, sets.test))
    return replace(sets, dev=dev, test=test)
