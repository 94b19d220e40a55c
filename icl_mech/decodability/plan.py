"""The settings of task decodability, and the prompts of every task."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
import tyro
from jaxtyping import Int

from icl_mech.errors import InputError, choose
from icl_mech.prompts import Matched, Pool, PromptSettings, load_pool
from icl_mech.tasks import Tasks

Metric = Literal["cosine", "euclidean"]
Normalise = Literal["none", "standardise"]
LeaveOut = Literal["query", "point"]


@dataclass(frozen=True, kw_only=True)
class DecodabilitySettings(PromptSettings):
    """Settings of `task_decodability`.

    Raises:
        InputError: if a name is unknown or a count cannot work.

    Example:
        >>> DecodabilitySettings(n_shots=(4, 1)).n_shots
        (1, 4)
    """

    n_prompts: int = 100
    """Prompts per task."""
    n_shots: tuple[int, ...] = (4,)  # type: ignore[assignment]
    """Demonstrations per prompt; several numbers are measured on the same queries."""
    k: int = 10
    """How many neighbours vote."""
    metric: Annotated[str, tyro.conf.arg(metavar="{cosine,euclidean}")] = "cosine"
    """Distance between residual streams."""
    normalise: Annotated[str, tyro.conf.arg(metavar="{none,standardise}")] = "none"
    """Whether to scale every dimension to mean 0 and standard deviation 1 first."""
    leave_out: Annotated[str, tyro.conf.arg(metavar="{query,point}")] = "query"
    """What cannot be a point's neighbour: every point with its query, or the point alone."""
    role: Annotated[str | int, tyro.conf.Suppress] = "final_arrow"
    """The token that represents a prompt, by its role or index."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.metric, get_args(Metric), "metric")
        choose(self.normalise, get_args(Normalise), "normalisation")
        choose(self.leave_out, get_args(LeaveOut), "leave_out")
        self.set_counts("k")
        if self.n_prompts <= self.k:
            raise InputError(
                f"n_prompts is {self.n_prompts} for k = {self.k} neighbours; expected at least "
                f"{self.k + 1}, so that they can all be of a point's own task"
            )


@dataclass(frozen=True)
class Plan:
    """Tasks with their points drawn.

    Attributes:
        pool: the tasks.
        settings: all of them.
        points: episodes with the largest number of shots; fewer shots show the first of them.
        queries: `[task, point]`, a number for each query text. Intervals resample these, and a
            probe is never tested on a query that it was trained on.
    """

    pool: Pool
    settings: DecodabilitySettings
    points: Matched
    queries: Int[np.ndarray, "task point"]

    @property
    def labels(self) -> Int[np.ndarray, "row"]:
        """The number of every row's task; rows are task by task."""
        return np.repeat(np.arange(len(self.queries)), self.settings.n_prompts)

    @property
    def groups(self) -> Int[np.ndarray, "row"]:
        """A number for each row; rows with the same number are never neighbours."""
        by_query = self.settings.leave_out == "query"
        return self.queries.ravel() if by_query else np.arange(self.queries.size)

    @property
    def halves(self) -> Int[np.ndarray, "row"]:
        """The half of the queries, 0 or 1, that every row belongs to."""
        return half_of(self.queries).ravel()


def half_of(queries: Int[np.ndarray, "*any"]) -> Int[np.ndarray, "*any"]:
    """The half, 0 or 1, that each query number belongs to."""
    return queries % 2


def plan(tasks: Tasks, settings: DecodabilitySettings) -> Plan:
    """Load the tasks, draw the points, and refuse what cannot be measured.

    Raises:
        InputError: if a task or count cannot work.

    Example:
        >>> drawn = plan("verbs", DecodabilitySettings(n_prompts=20))
        >>> drawn.pool.names[0], drawn.queries.shape
        ('verbs/gerund', (4, 20))
    """
    pool = load_pool(tasks)
    sizes = {"n_prompts": settings.n_prompts}
    (points,) = settings.match(pool.tasks, sizes, max(settings.n_shots))
    texts = [[episode.query.x for episode in row] for row in points.episodes]
    _, index = np.unique(texts, return_inverse=True)
    # Every task has at least two queries, so at least n_prompts - 1 >= k points are left to vote
    # when the points of one query are left out.
    return Plan(pool, settings, points, index.reshape(len(pool.tasks), settings.n_prompts))
