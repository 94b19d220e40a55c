"""The settings of a check of a model, and its prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.prompts import Episode, PromptSettings
from icl_mech.tasks import Task, Tasks, load_tasks


@dataclass(frozen=True, kw_only=True)
class CheckSettings(PromptSettings):
    """Settings of `check_model_support`.

    Example:
        >>> CheckSettings().n_prompts, CheckSettings().n_edits
        (2, 100)
    """

    n_prompts: int = 2
    """Few-shot prompts per task."""
    n_shots: int = 3
    """Demonstrations per prompt."""
    n_edits: int = 100
    """Edits that are timed on each engine."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_edits")


@dataclass(frozen=True)
class CheckPlan:
    """The prompts of a check.

    Attributes:
        tasks: the tasks of the prompts.
        episodes: of all tasks, one after another.
        settings: with which they were drawn.
    """

    tasks: Sequence[Task]
    episodes: Sequence[Episode]
    settings: CheckSettings


def plan(tasks: Tasks, settings: CheckSettings) -> CheckPlan:
    """Load the tasks and draw their few-shot prompts; no model is needed.

    Raises:
        InputError: where a task does not exist or has too few pairs.

    Example:
        >>> len(plan(["antonyms", "to_upper"], CheckSettings()).episodes)
        4
    """
    loaded = load_tasks(tasks)
    episodes = [episode for task in loaded for episode in settings.draw(task).test]
    return CheckPlan(loaded, episodes, settings)
