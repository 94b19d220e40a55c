"""Loads the tasks and draws their episodes; no model is needed."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from icl_mech.errors import InputError, choose
from icl_mech.prompts import (
    Episode,
    Split,
    VectorSettings,
    draw_context_split,
    generator,
    shuffled,
)
from icl_mech.tasks import (
    ContextTask,
    Prediction,
    Task,
    list_failures,
    load_failure,
    load_other,
    load_task,
    not_a_task,
)

AnyTask = Task | ContextTask

#: Repairs, each with the demonstrations' tokens whose states it writes after block l, together with
#: theta. `layers` instead writes the attention outputs at the last token in every block up to l.
REPAIRS = {
    "layers": (),
    "arrows": ("arrow",),
    "labels": ("y",),
    "demonstrations": ("x", "arrow", "y"),
}

ORDINARY = Prediction("works", "A fixed mapping, which the weights may know: the vector names it.")


@dataclass(frozen=True, kw_only=True)
class FailureSettings(VectorSettings):
    """Settings of `task_vector_failures`.

    Example:
        >>> FailureSettings(repairs=("arrows",)).dev
        25
    """

    n_shots: int = 5
    """Demonstrations per prompt of ordinary tasks; failure tasks have their own number."""
    repairs: tuple[str, ...] = tuple(REPAIRS)
    """Repairs to try: some of layers, arrows, labels, demonstrations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.repairs:
            choose(name, REPAIRS, "repair")
        if len(set(self.repairs)) < len(self.repairs):
            raise InputError(f"repairs {list(self.repairs)}; expected each once")
        self._set("repairs", tuple(self.repairs))


@dataclass(frozen=True)
class FailureTask:
    """One task with its episodes drawn.

    Attributes:
        task: the task.
        prediction: what one vector is predicted to reach.
        answers, inputs: every answer and input that may occur in the task.
        other: the task whose theta is a control.
        split: the episodes, dev apart from test.
        shuffled: the test episodes with shuffled labels.
        other_episodes: the test episodes of the other task.
        rng: draws the random vectors.
    """

    task: AnyTask
    prediction: Prediction
    answers: tuple[str, ...]
    inputs: tuple[str, ...]
    other: Task
    split: Split
    shuffled: tuple[Episode, ...]
    other_episodes: tuple[Episode, ...]
    rng: np.random.Generator


@dataclass(frozen=True)
class FailurePlan:
    """All tasks with their episodes, and the settings that these were drawn with."""

    tasks: Sequence[FailureTask]
    settings: FailureSettings


def load_any(names: AnyTask | str | Sequence[AnyTask | str] | None) -> list[AnyTask]:
    """Failure tasks and ordinary ones, from objects, names or paths; `None`: all failure tasks.

    Raises:
        InputError: if a name is unknown, no task is given, or one is given twice.
    """
    if names is None:
        names = list_failures()
    if isinstance(names, Task | ContextTask | str | Path):
        several: list[Any] = [names]
    elif isinstance(names, Iterable) and not hasattr(names, "keys"):
        several = list(names)
    else:
        raise InputError(not_a_task(names))
    tasks = [t if isinstance(t, Task | ContextTask) else _load(t) for t in several]
    found = [task.name for task in tasks]
    if not found or len(set(found)) < len(found):
        raise InputError(f"tasks {found}; expected at least one, each once")
    return tasks


def _load(name: str | Path) -> AnyTask:
    if not isinstance(name, str | Path):
        raise InputError(not_a_task(name))
    key = str(name).lower().replace("-", "_")
    if key in list_failures():
        return load_failure(key)
    try:
        return load_task(str(name))
    except InputError as error:
        raise InputError(f"{error}; or a failure task: {', '.join(list_failures())}") from None


def plan(
    tasks: AnyTask | str | Sequence[AnyTask | str] | None, settings: FailureSettings
) -> FailurePlan:
    """Load the tasks and draw their episodes; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few pairs or items.

    Example:
        >>> drawn = plan("lookup", FailureSettings(n_prompts=4))
        >>> drawn.tasks[0].prediction.outcome, len(drawn.tasks[0].split.test)
        ('label prior', 4)
    """
    return FailurePlan([plan_task(task, settings) for task in load_any(tasks)], settings)


def plan_task(task: AnyTask, s: FailureSettings) -> FailureTask:
    """Draw the episodes of one task, and of its controls."""

    def draw(task: AnyTask) -> Split:
        if isinstance(task, ContextTask):  # it has its own number of shots
            split = draw_context_split(task, s.n_prompts, s.dev, s.n_dummies, s.seed)
            return s.instruct(split, task)
        return s.split(task)

    if isinstance(task, ContextTask):
        answers, inputs, prediction = task.answers, task.inputs, task.prediction
    else:
        answers = tuple(dict.fromkeys(a for pair in task.pairs for a in pair.answers))
        inputs, prediction = tuple(pair.x for pair in task.pairs), ORDINARY
    split, other = draw(task), load_other(task)
    rng = generator(s.seed, task.name, "failure controls")
    return FailureTask(
        task=task,
        prediction=prediction,
        answers=answers,
        inputs=inputs,
        other=other,
        split=split,
        shuffled=shuffled(split.test, rng),
        other_episodes=draw(other).test,
        rng=rng,
    )


def guess_right(episode: Episode) -> float:
    """The chance of being right by guessing among the prompt's own most frequent answers."""
    counts = Counter(pair.y for pair in episode.demonstrations)
    most = [answer for answer, n in counts.items() if n == max(counts.values())]
    return sum(answer in episode.query.answers for answer in most) / len(most)
