"""What decides the numbers, checked before a model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.answers.text_scores import BY
from icl_mech.errors import InputError, choose
from icl_mech.prompts import PromptSettings, Split, check_counts
from icl_mech.tasks import Task


@dataclass(frozen=True, kw_only=True)
class Settings(PromptSettings):
    """Everything that, with the model and the tasks, decides the numbers.

    Attributes:
        layer: where theta is injected; None: chosen on dev prompts.
        by: the score on dev prompts that chooses it.
        max_new_tokens: where a text is cut; None: by the longest answer.
        n_rivals: other answers that each answer is compared with.
    """

    layer: int | None = None
    by: str = "accepted"
    max_new_tokens: int | None = None
    n_rivals: int = 7


def check(tasks: Sequence[Task], settings: Settings) -> list[Split]:
    """The prompts of every task, drawn.

    Raises:
        InputError: where a count is no positive whole number, or a task cannot be asked.
    """
    choose(settings.by, BY, "score to choose a layer by")
    counts = {"n_rivals": settings.n_rivals}
    if settings.max_new_tokens is not None:
        counts["max_new_tokens"] = settings.max_new_tokens
    check_counts(counts, settings.seed)
    for task in tasks:
        if len(task.labels()) < 2:
            raise InputError(f"task {task.name!r} has one answer only; expected others to compare")
    return [settings.split(task) for task in tasks]
