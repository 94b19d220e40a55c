"""The settings of `answer_scores`, and the prompts of every task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from icl_mech.errors import InputError, choose
from icl_mech.prompts import Split, VectorSettings, whole
from icl_mech.tasks import Task, Tasks, load_tasks

#: Scores by which a layer can be chosen, and which are reported at every layer that works.
LayerScore = Literal["first_token", "begins", "accepted", "strict"]
BY: tuple[LayerScore, ...] = get_args(LayerScore)


@dataclass(frozen=True, kw_only=True)
class AnswerSettings(VectorSettings):
    """Settings of `answer_scores`.

    Example:
        >>> AnswerSettings().chosen_by
        'accepted'
    """

    layer: int | None = None
    """Inject after this block instead of choosing one on dev prompts."""
    by: LayerScore | None = None
    """Score on dev prompts that chooses the layer; by default accepted. Not with --layer."""
    max_new_tokens: int | None = None
    """A longer text is cut, and marked so; by default 3 more than the longest answer."""
    n_rivals: int = 7
    """Other answers of the task with which the right one is compared."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.by is not None:
            choose(self.by, BY, "score to choose a layer by")
        self.set_counts("max_new_tokens", "n_rivals")
        if self.layer is not None:
            self._set("layer", whole("layer", self.layer))
            if self.by is not None:
                raise InputError(
                    f"by is {self.by!r}, the score that chooses a layer, but layer {self.layer} is "
                    "given; expected one of the two"
                )

    @property
    def chosen_by(self) -> LayerScore:
        """The score that chooses a layer if none is given."""
        return self.by or "accepted"

    def recorded(self) -> dict[str, Any]:
        """What provenance records: every setting by name, with the score that chose the layer."""
        return super().recorded() | {"by": self.chosen_by if self.layer is None else None}


@dataclass(frozen=True)
class AnswerPlan:
    """Tasks with their episodes drawn, and the settings that they were drawn with."""

    tasks: Sequence[Task]
    splits: Sequence[Split]
    settings: AnswerSettings


def plan_answers(tasks: Tasks, settings: AnswerSettings) -> AnswerPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist, has too few pairs, or has only one answer.

    Example:
        >>> plan = plan_answers("antonyms", AnswerSettings(n_prompts=4))
        >>> len(plan.splits[0].test), len(plan.splits[0].dev)
        (4, 2)
    """
    loaded = load_tasks(tasks)
    for task in loaded:
        if len(task.labels()) < 2:
            raise InputError(f"task {task.name!r} has one answer only; expected others to compare")
    return AnswerPlan(loaded, [settings.split(task) for task in loaded], settings)
