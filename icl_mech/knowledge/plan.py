"""The settings of `knowledge_conflict`, and prompts that contradict the model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from icl_mech.errors import InputError
from icl_mech.prompts import Episode, check_shots, generator, shuffle_labels
from icl_mech.prompts.sampling import mirrors
from icl_mech.tasks import Pair, Task, Tasks, load_tasks
from icl_mech.vector_methods.plan import MethodSettings, several, training_pairs

#: The prompts that ask each query; see `Asked`.
CONDITIONS = ("zero_shot", "right", "exchanged", "lookup", "insisted")


@dataclass(frozen=True, kw_only=True)
class KnowledgeSettings(MethodSettings):
    """Settings of `knowledge_conflict`.

    Example:
        >>> KnowledgeSettings(n_prompts=4).methods
        ('theta', 'learned')
    """

    n_prompts: int = 30
    """Queries per task that are asked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shots(self.n_shots)
        several(self.methods)  # at least one


@dataclass(frozen=True)
class Asked:
    """One query, and the demonstrations before it.

    No demonstration has an answer that is right for the query, so the known answer is never in the
    prompt. The prompts `right`, `exchanged` and `lookup` show the same answers.

    Attributes:
        right: the query after right demonstrations.
        others: the query after other right demonstrations; these prompts tell whether the model
            knows the answer.
        order: the demonstrations' indices in random order; the first one whose answer begins
            differently from the right answers is the one that contradicts.
    """

    right: Episode
    others: Episode
    order: tuple[int, ...]

    def exchanged(self, rng: np.random.Generator) -> Episode:
        """The same demonstrations with shuffled answers."""
        shown = shuffle_labels(self.right.demonstrations, rng)
        return replace(self.right, demonstrations=shown)

    def insisted(self, at: int) -> Episode:
        """All demonstrations show the query with the answer of demonstration `at`."""
        contradicting = Pair(self.right.query.x, self.right.demonstrations[at].answers)
        n = len(self.right.demonstrations)
        return replace(self.right, demonstrations=(contradicting,) * n)

    def lookup(self, at: int) -> Episode:
        """As `right`, but demonstration `at` shows the query as its input and keeps its answer.

        >>> pairs = (Pair("a", ("A",)), Pair("b", ("B",)))
        >>> asked = Asked(Episode(pairs, Pair("c", ("C",)), ()), Episode((), pairs[0], ()), (0, 1))
        >>> [(pair.x, pair.y) for pair in asked.lookup(1).demonstrations]
        [('a', 'A'), ('c', 'B')]
        """
        shown = list(self.right.demonstrations)
        shown[at] = Pair(self.right.query.x, shown[at].answers)
        return replace(self.right, demonstrations=tuple(shown))


@dataclass(frozen=True)
class KnowledgeTask:
    """One task with its prompts drawn.

    Attributes:
        task: the task.
        test: queries that are scored.
        dev: episodes on which the vectors' layers and factors are chosen.
        pairs: pairs from which vectors are formed and demonstrations drawn; no query is among them.
        n_queries: number of different test queries.
    """

    task: Task
    test: tuple[Asked, ...]
    dev: tuple[Episode, ...]
    pairs: tuple[Pair, ...]
    n_queries: int


@dataclass(frozen=True)
class KnowledgePlan:
    """All tasks, and the settings that they were drawn with."""

    tasks: Sequence[KnowledgeTask]
    settings: KnowledgeSettings


def plan_knowledge(tasks: Tasks, settings: KnowledgeSettings) -> KnowledgePlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist, has only one answer, or has too few pairs, or too few
            whose answers are wrong for a query.

    Example:
        >>> plan = plan_knowledge("country_capital", KnowledgeSettings(n_prompts=4))
        >>> asked = plan.tasks[0].test[0]
        >>> asked.right.query.y in [pair.y for pair in asked.right.demonstrations]
        False
    """
    return KnowledgePlan([_plan(task, settings) for task in load_tasks(tasks)], settings)


def _plan(task: Task, s: KnowledgeSettings) -> KnowledgeTask:
    if len(task.labels()) < 2:
        raise InputError(
            f"task {task.name!r} has one answer only; expected at least two, so that one can "
            "contradict the other"
        )
    split = s.split(task)
    pairs = training_pairs(task, (*split.dev, *split.test), s.needed)
    rng = generator(s.seed, task.name, "knowledge")
    test = tuple(_asked(task, of, pairs, s, rng) for of in split.test)
    return KnowledgeTask(task, test, split.dev, pairs, split.n_test_queries)


def _asked(
    task: Task, of: Episode, pairs: Sequence[Pair], s: KnowledgeSettings, rng: np.random.Generator
) -> Asked:
    """A query with two draws of demonstrations, without answers that are right for the query."""
    query = of.query
    may = [p for p in pairs if not (set(p.answers) & set(query.answers) or mirrors(p, query))]
    if len(may) < s.n_shots + s.n_dummies:
        raise InputError(
            f"task {task.name!r} has {len(may)} pairs to show before {query.x!r} whose answer is "
            f"not {query.y!r}; expected at least {s.n_shots + s.n_dummies} (shots + dummy queries)"
        )
    drawn = []
    for _ in range(2):
        shown = [may[i] for i in rng.permutation(len(may))[: s.n_shots + s.n_dummies]]
        drawn.append(
            replace(of, demonstrations=tuple(shown[: s.n_shots]), dummies=tuple(shown[s.n_shots :]))
        )
    first, second = drawn
    return Asked(first, second, tuple(int(i) for i in rng.permutation(s.n_shots)))
