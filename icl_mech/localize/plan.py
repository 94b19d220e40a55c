"""The settings of a task map, and prompts that match across tasks."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from icl_mech.errors import InputError
from icl_mech.prompts import (
    N_DUMMIES,
    Episode,
    PromptSettings,
    generator,
    same_inputs,
    shuffled,
)
from icl_mech.stats.curves import Rule
from icl_mech.tasks import Task, Tasks, load_other, load_tasks

#: Default number of neighbours that vote.
N_NEIGHBOURS = 10
#: The fewest prompts for a head's mean output (fewer only if its effect is measured on fewer).
MIN_MEAN = 10


@dataclass(frozen=True, kw_only=True)
class MapSettings(PromptSettings):
    """Settings of `localize`.

    Example:
        >>> MapSettings(n_prompts=4, n_points=20).recorded()["rule"]["fraction"]
        0.5
    """

    n_prompts: int = 25
    """Prompts per task for transfer, lens and heads."""
    n_points: int = 100
    """Prompts per task for decodability."""
    n_dummies: int = N_DUMMIES
    """Dummy queries per set of demonstrations, over which theta is averaged."""
    k: int = N_NEIGHBOURS
    """Neighbours that vote in decodability."""
    rule: Rule = field(default_factory=Rule)
    """When a curve counts as risen, and when its layer is named."""
    heads: bool = True
    """Measure the heads' average indirect effect, too (--no-heads: leave it out)."""
    masking: bool = True
    """Hide the demonstrations from each block on, too (--no-masking: leave it out)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_points", "n_dummies", "k")
        if not self.k < self.n_points >= self.n_prompts:
            raise InputError(
                f"n_points is {self.n_points}; expected more than k = {self.k} neighbours, and at "
                f"least n_prompts = {self.n_prompts}"
            )
        if self.heads:
            self._check_heads()

    def _check_heads(self) -> None:
        """Refuse counts that are too small to measure heads' effects."""
        if self.n_shots < 2:
            raise InputError(
                "heads need at least 2 shots (labels are shuffled); expected heads=False"
            )
        least = self.n_prompts + min(self.n_prompts, MIN_MEAN)
        if self.n_points < least:
            raise InputError(
                f"n_points is {self.n_points}: heads' mean outputs come from the "
                f"{self.n_points - self.n_prompts} points after the first n_prompts = "
                f"{self.n_prompts}; expected n_points of at least {least}, or no heads"
            )

    def recorded(self) -> dict[str, Any]:
        """What provenance records: every setting by name."""
        return super().recorded() | {"rule": dict(vars(self.rule))}


@dataclass(frozen=True, eq=False)
class MapTask:
    """One task with its episodes drawn, dummy queries for theta among them.

    Attributes:
        episodes: the episodes; the first `n_prompts` serve transfer, lens, heads and masking.
        shuffled: the first `n_prompts` with shuffled labels, on which heads are measured.
        prior: the most frequent answer among the demonstrations.
    """

    task: Task
    episodes: tuple[Episode, ...]
    shuffled: tuple[Episode, ...]
    prior: str


@dataclass(frozen=True)
class MapPlan:
    """Tasks to map, and other tasks that decodability tells them apart from.

    Attributes:
        shared: whether all tasks have the same inputs.
        n_queries: number of different queries per task; the smallest over tasks.
    """

    tasks: tuple[MapTask, ...]
    others: tuple[MapTask, ...]
    shared: bool
    n_queries: int
    settings: MapSettings

    @property
    def every(self) -> tuple[MapTask, ...]:
        """All tasks that decodability tells apart."""
        return (*self.tasks, *self.others)

    def labels_and_groups(self) -> tuple[Int[np.ndarray, "row"], Int[np.ndarray, "row"]]:
        """The task and the query of every point; points that share a query are no neighbours."""
        labels = np.repeat(np.arange(len(self.every)), self.settings.n_points)
        texts = [e.query.x for t in self.every for e in t.episodes]
        return labels, np.unique(texts, return_inverse=True)[1]

    def notes(self) -> list[str]:
        """Caveats that follow from the choice of tasks and prompts, a line each."""
        notes = []
        if self.others:
            notes.append(
                f"{self.tasks[0].task.name}: decodability only tells it from "
                f"{self.others[0].task.name}, by its words too"
            )
        elif not self.shared:
            notes.append(
                "these tasks ask different inputs, so their words alone may tell them apart: the "
                "encoding curve is no evidence that the task is encoded (families share inputs)"
            )
        if self.n_queries < self.settings.n_points:
            notes.append(
                f"{self.n_queries} different queries in {self.settings.n_points} points of a "
                "task; the intervals are over queries"
            )
        return notes


def plan_map(tasks: Tasks, settings: MapSettings) -> MapPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few pairs.

    Example:
        >>> plan = plan_map("letters", MapSettings(n_prompts=4, n_points=14))
        >>> [len(task.episodes) for task in plan.tasks]
        [14, 14, 14]
    """
    s, mapped = settings, load_tasks(tasks)
    every = mapped if len(mapped) > 1 else [*mapped, load_other(mapped[0])]
    # Dummies are drawn as further demonstrations, so that they are neither asked nor shown.
    shown = s.n_shots + s.n_dummies
    (matched,) = s.match(every, {"n_points": s.n_points}, shown)
    planned = tuple(_plan(t, e, s) for t, e in zip(every, matched.episodes, strict=True))
    n = len(mapped)
    return MapPlan(planned[:n], planned[n:], same_inputs(every), matched.n_queries, settings)


def _plan(task: Task, drawn: Sequence[Episode], s: MapSettings) -> MapTask:
    episodes = tuple(
        replace(
            e, demonstrations=e.demonstrations[: s.n_shots], dummies=e.demonstrations[s.n_shots :]
        )
        for e in drawn
    )
    rng = generator(s.seed, task.name, "shuffled")
    prior = Counter(pair.y for e in drawn for pair in e.demonstrations).most_common(1)[0][0]
    mixed = shuffled(episodes[: s.n_prompts], rng) if s.heads else ()
    return MapTask(task, episodes, mixed, prior)
