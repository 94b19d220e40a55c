"""The settings of a layer scan, and the prompts of every task."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from icl_mech.errors import choose
from icl_mech.prompts import Episode, Split, VectorSettings, generator, shuffled
from icl_mech.tasks import Task, Tasks, load_other, load_tasks

ControlLayers = Literal["all", "chosen"]


@dataclass(frozen=True, kw_only=True)
class ScanSettings(VectorSettings):
    """Settings of `layer_scan`.

    Example:
        >>> ScanSettings(control_layers="chosen").n_prompts
        50
    """

    control_layers: ControlLayers = "all"
    """Inject the controls after every block, or only where θ is best on dev prompts by either
    score, which takes less than half the time."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.control_layers, get_args(ControlLayers), "control_layers")


@dataclass(frozen=True)
class ScanTask:
    """One task with its episodes drawn.

    Attributes:
        task: the task.
        other: the task whose theta is a control.
        split: dev episodes, on which a layer is chosen, and test episodes.
        shuffled: the test episodes with shuffled labels.
        other_episodes: episodes of the other task.
        rng: the generator that draws random vectors.
    """

    task: Task
    other: Task
    split: Split
    shuffled: tuple[Episode, ...]
    other_episodes: tuple[Episode, ...]
    rng: np.random.Generator


@dataclass(frozen=True)
class ScanPlan:
    """All tasks of a scan, and the settings that they were drawn with."""

    tasks: Sequence[ScanTask]
    settings: ScanSettings


def plan_scan(
    tasks: Tasks,
    settings: ScanSettings,
    other_task: Task | str | None = None,
    known: Collection[str] = (),
) -> ScanPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Args:
        tasks, settings, other_task: as in `layer_scan`.
        known: inputs that a vector was shown, which are not asked.

    Raises:
        InputError: if a task does not exist or has too few pairs.

    Example:
        >>> plan = plan_scan("antonyms", ScanSettings(n_prompts=4))
        >>> len(plan.tasks[0].split.test), plan.tasks[0].other.name
        (4, 'country_capital')
    """
    return ScanPlan(
        [_plan(t, load_other(t, other_task), settings, known) for t in load_tasks(tasks)],
        settings,
    )


def _plan(task: Task, other: Task, s: ScanSettings, known: Collection[str]) -> ScanTask:
    split = s.split(task, known)
    rng = generator(s.seed, task.name, "controls")
    mixed = shuffled(split.test, rng)
    return ScanTask(task, other, split, mixed, s.split(other).test, rng)
