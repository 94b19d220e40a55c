"""The settings of `label_scores`, and prompts that are balanced over classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

import numpy as np

from icl_mech.errors import InputError
from icl_mech.prompts import Episode, generator, instructed
from icl_mech.tasks import Pair, Task, Tasks, load_tasks
from icl_mech.vector_methods.plan import MethodSettings

#: The most labels of a classification task; `answer_scores` suits tasks with more.
MOST_LABELS = 12


@dataclass(frozen=True, kw_only=True)
class LabelSettings(MethodSettings):
    """Settings of `label_scores`.

    Example:
        >>> LabelSettings(n_prompts=10).methods
        ('theta', 'learned')
    """

    n_prompts: int = 40
    """Test prompts per task, as many of each class as the number allows."""


@dataclass(frozen=True)
class LabelTask:
    """One task with balanced prompts.

    Attributes:
        task: the task.
        labels: its classes, in alphabetical order.
        test, dev: episodes; queries take the classes in turn, and demonstrations are balanced.
        pairs: pairs that vectors are formed from, equally many of each class; none is asked.
        n_queries: number of different test queries.
    """

    task: Task
    labels: tuple[str, ...]
    test: tuple[Episode, ...]
    dev: tuple[Episode, ...]
    pairs: tuple[Pair, ...]
    n_queries: int


@dataclass(frozen=True)
class LabelPlan:
    """All tasks, and the settings that they were drawn with."""

    tasks: Sequence[LabelTask]
    settings: LabelSettings


def plan_labels(tasks: Tasks, settings: LabelSettings) -> LabelPlan:
    """Load the tasks and draw balanced prompts; no model is needed.

    Raises:
        InputError: if a task has only one label, too many labels, or too few pairs of a label.

    Example:
        >>> from collections import Counter
        >>> of = plan_labels("sentences/topic", LabelSettings(n_prompts=10, n_shots=5)).tasks[0]
        >>> set(Counter(e.query.y for e in of.test).values())
        {2}
        >>> [len({pair.y for pair in e.demonstrations}) for e in of.test][:2]
        [5, 5]
    """
    return LabelPlan([_plan(task, settings) for task in load_tasks(tasks)], settings)


def _plan(task: Task, s: LabelSettings) -> LabelTask:
    labels = check_labels(task)
    rng = generator(s.seed, task.name, "balanced")
    classes = {
        label: [task.pairs[i] for i in rng.permutation(len(task)) if task.pairs[i].y == label]
        for label in labels
    }
    # Every class contributes as many pairs as the rarest class has.
    least = min(map(len, classes.values()))
    shown_each = -(-max(s.n_shots + s.n_dummies, s.needed) // len(labels)) + 1
    asked_each = min(least - shown_each, -(-(s.n_prompts + s.dev) // len(labels)))
    if asked_each < 2:
        rare = min(classes, key=lambda label: len(classes[label]))
        raise InputError(
            f"task {task.name!r} has {least} pairs with the label {rare!r}; expected at least "
            f"{shown_each + 2} of each label ({shown_each} to show + 1 dev query + 1 test query)"
        )
    n_dev = min(asked_each - 1, max(1, round(asked_each * s.dev / (s.n_prompts + s.dev))))
    dev, test, pairs = (
        in_turn([of[part] for of in classes.values()])
        for part in (slice(n_dev), slice(n_dev, asked_each), slice(asked_each, least))
    )
    on_test, on_dev = (
        instructed(_asked(queries, pairs, n, s, rng), task, s.instruction)
        for queries, n in ((test, s.n_prompts), (dev, s.dev))
    )
    n_queries = len({e.query.x for e in on_test})
    return LabelTask(task, labels, on_test, on_dev, tuple(pairs), n_queries)


def check_labels(task: Task) -> tuple[str, ...]:
    """The labels of a task, in alphabetical order.

    >>> from icl_mech.tasks import load_task
    >>> check_labels(load_task("sentences/sentiment"))
    ('negative', 'positive')

    Raises:
        InputError: if there is only one, or more than `MOST_LABELS`.
    """
    labels = sorted(task.labels())
    if len(labels) == 1:
        raise InputError(
            f"task {task.name!r} has the one label {labels[0]!r}; expected at least two classes"
        )
    if len(labels) > MOST_LABELS:
        raise InputError(
            f"task {task.name!r} has {len(labels)} different answers for {len(task)} inputs; "
            f"expected 2 to {MOST_LABELS} labels (icl-mech answers scores tasks with many answers)"
        )
    return tuple(labels)


def in_turn(groups: Sequence[Sequence[Pair]]) -> list[Pair]:
    """The pairs of all groups, one of each group in turn.

    >>> [p.x for p in in_turn([[Pair("a", ("A",)), Pair("b", ("A",))], [Pair("c", ("C",))]])]
    ['a', 'c', 'b']
    """
    return [pair for pair in chain(*zip_longest(*groups)) if pair is not None]


def balanced(pairs: Sequence[Pair], n: int, rng: np.random.Generator) -> list[Pair]:
    """Draw `n` pairs so that the numbers of two classes differ by at most one, in random order.

    If `n` is not a multiple of the number of classes, the classes with one pair more are random.
    """
    classes: dict[str, list[Pair]] = {}
    for i in rng.permutation(len(pairs)):
        classes.setdefault(pairs[i].y, []).append(pairs[i])
    order = [list(classes.values())[i] for i in rng.permutation(len(classes))]
    drawn = in_turn(order)[:n]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _asked(
    queries: Sequence[Pair],
    pairs: Sequence[Pair],
    n: int,
    s: LabelSettings,
    rng: np.random.Generator,
) -> tuple[Episode, ...]:
    """Episodes: each query in turn, with balanced demonstrations and dummies of other pairs."""
    episodes = []
    for i in range(n):
        shown = balanced(pairs, s.n_shots, rng)
        left = [pair for pair in pairs if pair not in shown]
        dummies = tuple(balanced(left, s.n_dummies, rng))
        episodes.append(Episode(tuple(shown), queries[i % len(queries)], dummies))
    return tuple(episodes)
