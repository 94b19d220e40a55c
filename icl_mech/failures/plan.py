"""What is asked: tasks with their episodes drawn, before a model runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

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

#: What is written, joint at layer l. `layers`: what attention adds at the last token, in every
#: block up to l. `arrows`: theta, and the state at every demonstration's arrow. `labels`: theta,
#: and the state at every demonstration's answer. `demonstrations`: theta, and the states at
#: every demonstration's input, arrow and answer.
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
    """Several vectors instead of one: some of layers, arrows, labels, demonstrations."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("repairs", check_repairs(self.repairs))


@dataclass(frozen=True)
class FailureTask:
    """One task with its episodes drawn.

    Attributes:
        task: what is asked.
        prediction: what one vector should reach.
        answers, inputs: all that may occur in the task.
        other: the task whose theta is a control.
        split: its episodes, dev apart from test.
        shuffled: the test episodes with shuffled labels.
        other_episodes: of the other task.
        rng: for the random vectors.
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


def check_repairs(repairs: Sequence[str]) -> tuple[str, ...]:
    """The repairs asked for.

    Raises:
        InputError: where one is unknown or named twice.
    """
    for name in repairs:
        choose(name, REPAIRS, "repair")
    if len(set(repairs)) < len(repairs):
        raise InputError(f"repairs {list(repairs)}; expected each once")
    return tuple(repairs)


@dataclass(frozen=True)
class FailurePlan:
    """All tasks, and the settings that their episodes were drawn with."""

    tasks: Sequence[FailureTask]
    settings: FailureSettings


def load_any(names: AnyTask | str | Sequence[AnyTask | str] | None) -> list[AnyTask]:
    """Failure tasks and ordinary ones, each an object, a name or a path; all failure tasks if None.

    Raises:
        InputError: where a name is unknown, there is none, or one is named twice.
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
    name = str(name)
    key = name.lower().replace("-", "_")
    if key in list_failures():
        return load_failure(key)
    try:
        return load_task(name)
    except InputError as error:
        raise InputError(f"{error}; or a failure task: {', '.join(list_failures())}") from None


def draw(task: AnyTask, s: FailureSettings) -> Split:
    """A task's episodes; `n_shots` counts for ordinary tasks, others have their own.

    Raises:
        InputError: where a count is not positive, or the task has too few pairs or items.
    """
    if isinstance(task, ContextTask):
        split = draw_context_split(task, s.n_prompts, s.dev, s.n_dummies, s.seed)
        return s.instruct(split, task)
    return s.split(task)


def plan(
    tasks: AnyTask | str | Sequence[AnyTask | str] | None, settings: FailureSettings
) -> FailurePlan:
    """Load the tasks and draw their episodes; no model is needed.

    Raises:
        InputError: where a task does not exist or has too few pairs or items.

    Example:
        >>> drawn = plan("lookup", FailureSettings(n_prompts=4))
        >>> drawn.tasks[0].prediction.outcome, len(drawn.tasks[0].split.test)
        ('label prior', 4)
    """
    return FailurePlan([plan_task(task, settings) for task in load_any(tasks)], settings)


def plan_task(task: AnyTask, s: FailureSettings) -> FailureTask:
    """Draw everything that one task needs.

    Raises:
        InputError: where it has too few pairs or items.
    """
    if isinstance(task, ContextTask):
        answers, inputs, prediction = task.answers, task.inputs, task.prediction
    else:
        answers = tuple(dict.fromkeys(a for pair in task.pairs for a in pair.answers))
        inputs, prediction = tuple(pair.x for pair in task.pairs), ORDINARY
    split = draw(task, s)
    other = load_other(task)
    rng = generator(s.seed, task.name, "failure controls")
    return FailureTask(
        task=task,
        prediction=prediction,
        answers=answers,
        inputs=inputs,
        other=other,
        split=split,
        shuffled=shuffled(split.test, rng),
        other_episodes=draw(other, s).test,
        rng=rng,
    )


def prior_right(split: Split) -> Bool[np.ndarray, "prompt"]:
    """Whether the most frequent answer of all prompts is right."""
    return np.array([split.prior in e.query.answers for e in split.test])


def guess_right(split: Split) -> Float[np.ndarray, "prompt"]:
    """The chance of being right by guessing among the prompt's own most frequent answers."""
    return np.array([_guess(e) for e in split.test])


def _guess(episode: Episode) -> float:
    shown = [pair.y for pair in episode.demonstrations]
    counts = {answer: shown.count(answer) for answer in shown}
    most = [answer for answer, n in counts.items() if n == max(counts.values())]
    return sum(answer in episode.query.answers for answer in most) / len(most)
