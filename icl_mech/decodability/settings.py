"""What decides the numbers, checked before anything runs."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Int

from icl_mech.errors import InputError, choose
from icl_mech.prompts import (
    Matched,
    Pool,
    Template,
    check_counts,
    draw_matched,
    load_pool,
    shot_counts,
)
from icl_mech.tasks import Tasks

Metric = Literal["cosine", "euclidean"]
Normalise = Literal["none", "standardise"]
LeaveOut = Literal["query", "point"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that, with the model and the tasks, decides the numbers.

    Raises:
        InputError: where a name is unknown or a count cannot work.
    """

    n_points: int
    n_shots: tuple[int, ...]
    seed: int
    k: int
    role: str | int
    metric: str
    normalise: str
    leave_out: str
    template: str
    leading_space: bool | None

    def __post_init__(self) -> None:
        choose(self.metric, get_args(Metric), "metric")
        choose(self.normalise, get_args(Normalise), "normalisation")
        choose(self.leave_out, get_args(LeaveOut), "leave_out")
        Template(self.template)
        shot_counts(self.n_shots)
        check_counts({"n_points": self.n_points, "k": self.k}, self.seed)
        if self.n_points <= self.k:
            raise InputError(
                f"n_points is {self.n_points} for k = {self.k} neighbours; expected at least "
                f"{self.k + 1}, so that they can all be of a point's own task"
            )


@dataclass(frozen=True)
class Plan:
    """Tasks with their points drawn.

    Attributes:
        pool: the tasks.
        settings: all of them.
        points: episodes with the largest number of shots; fewer shots show the first of them.
        queries: `[task, point]`, a number per query text: the clusters of the intervals, and the
            groups that probes never split.
    """

    pool: Pool
    settings: Settings
    points: Matched
    queries: Int[np.ndarray, "task point"]

    @property
    def labels(self) -> Int[np.ndarray, "row"]:
        """The task of every row of the pool (task by task)."""
        return np.repeat(np.arange(len(self.queries)), self.settings.n_points)

    @property
    def groups(self) -> Int[np.ndarray, "row"]:
        """Rows with the same number are never one another's neighbours; every row is its own."""
        by_query = self.settings.leave_out == "query"
        return self.queries.ravel() if by_query else np.arange(self.queries.size)

    @property
    def halves(self) -> Int[np.ndarray, "row"]:
        """The half of the queries, 0 or 1, that every row belongs to."""
        return half_of(self.queries).ravel()


def half_of(queries: Int[np.ndarray, "*any"]) -> Int[np.ndarray, "*any"]:
    """The half, 0 or 1, of every query, by its number. Points of one query are in one half."""
    return queries % 2


def plan(tasks: Tasks, settings: Settings) -> Plan:
    """Load the tasks, draw the points, and refuse what cannot be measured.

    Raises:
        InputError: where a task or count cannot work; nothing was run yet.
    """
    pool = load_pool(tasks)
    n_points = {"n_points": settings.n_points}
    (points,) = draw_matched(pool.tasks, n_points, max(settings.n_shots), settings.seed)
    texts = [[episode.query.x for episode in row] for row in points.episodes]
    _, index = np.unique(texts, return_inverse=True)
    # Every task has at least two queries, so that without one of them (as often as it comes back)
    # at least n_points - 1 >= k points are left to choose from.
    return Plan(pool, settings, points, index.reshape(len(pool.tasks), settings.n_points))
