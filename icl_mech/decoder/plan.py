"""The settings of `find_decoder`, and the prompts of every task."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.errors import InputError
from icl_mech.prompts import Episode, Split, VectorSettings, generator, shuffled
from icl_mech.tasks import Task, Tasks, load_tasks

#: Fewest prompts: components are found on every second one, and tested on the others.
MIN_PROMPTS = 4


@dataclass(frozen=True, kw_only=True)
class DecoderSettings(VectorSettings):
    """Settings of `find_decoder`.

    Example:
        >>> DecoderSettings(n_prompts=8).n_draws
        8
    """

    n_prompts: int = 24
    """Test prompts per task: components are found on the odd ones and tested on the even ones."""
    layer: int | None = None
    """After which block theta is written; by default the one that is best on dev prompts."""
    n_draws: int = 8
    """Random sets of later components, of every size, that found ones are compared with."""
    gradients: bool = True
    """Also estimate effects by gradients, to first order (--no-gradients: leave them out)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_draws")
        if self.n_prompts < MIN_PROMPTS:
            raise InputError(
                f"n_prompts is {self.n_prompts}; expected at least {MIN_PROMPTS}: components are "
                "found on half of the prompts and tested on the others"
            )
        if self.n_shots < 2:
            raise InputError("n_shots is 1; expected at least 2: labels are shuffled")


@dataclass(frozen=True)
class DecoderTask:
    """One task with its episodes.

    Attributes:
        shuffled: the test episodes with shuffled labels.
    """

    task: Task
    split: Split
    shuffled: tuple[Episode, ...]


@dataclass(frozen=True)
class DecoderPlan:
    """All tasks, and the settings that their prompts were drawn with."""

    tasks: Sequence[DecoderTask]
    settings: DecoderSettings


def plan(tasks: Tasks, settings: DecoderSettings) -> DecoderPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few pairs.

    Example:
        >>> len(plan("antonyms", DecoderSettings(n_prompts=4)).tasks[0].shuffled)
        4
    """
    planned = []
    for task in load_tasks(tasks):
        split = settings.split(task)
        mixed = shuffled(split.test, generator(settings.seed, task.name, "shuffled"))
        planned.append(DecoderTask(task, split, mixed))
    return DecoderPlan(planned, settings)
