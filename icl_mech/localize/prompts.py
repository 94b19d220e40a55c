"""The prompts of a task map: points that match across tasks, with dummy queries for theta."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from icl_mech.model import HookedModel
from icl_mech.prompts import (
    N_DUMMIES,
    Encoder,
    Episode,
    check_counts,
    draw_matched,
    same_inputs,
)
from icl_mech.tasks import Task, Tasks, load_other, load_tasks


@dataclass(frozen=True, eq=False)
class Drawn:
    """One task's episodes, and how they are written.

    Attributes:
        prior: the most frequent answer among the demonstrations.
    """

    task: Task
    encoder: Encoder
    episodes: tuple[Episode, ...]
    prior: str


@dataclass(frozen=True)
class Pool:
    """Tasks to map, and others that they are told apart from.

    Attributes:
        shared: whether all ask the same inputs.
        n_queries: how many queries of a task differ, in the task where that is fewest.
    """

    tasks: tuple[Drawn, ...]
    others: tuple[Drawn, ...]
    shared: bool
    n_queries: int

    @property
    def names(self) -> list[str]:
        """Everything that is told apart."""
        return [d.task.name for d in (*self.tasks, *self.others)]

    def labels_and_groups(self) -> tuple[Int[np.ndarray, "row"], Int[np.ndarray, "row"]]:
        """The task of every point, and its query: points that share one are no neighbours."""
        every = (*self.tasks, *self.others)
        labels = np.repeat(np.arange(len(every)), len(every[0].episodes))
        texts = [e.query.x for d in every for e in d.episodes]
        return labels, np.unique(texts, return_inverse=True)[1]

    def notes(self) -> list[str]:
        """What follows for the numbers, a line each."""
        notes = []
        if self.others:
            other = self.others[0].task.name
            notes.append(
                f"{self.tasks[0].task.name}: decodability only tells it from {other}, by its "
                "words too"
            )
        elif not self.shared:
            notes.append(
                "these tasks ask different inputs, so their words alone may tell them apart: the "
                "encoding curve is no evidence that the task is encoded (families share inputs)"
            )
        n_points = len(self.tasks[0].episodes)
        if self.n_queries < n_points:
            notes.append(
                f"{self.n_queries} different queries in {n_points} points of a task; the intervals "
                "are over queries"
            )
        return notes


def draw(
    model: HookedModel,
    task: Tasks,
    n_points: int,
    n_shots: int,
    seed: int,
    template: str,
    leading_space: bool | None,
) -> Pool:
    """Draw every task's episodes.

    Raises:
        InputError: where a name is unknown or a task has too few pairs.
    """
    tasks = load_tasks(task)
    others = [] if len(tasks) > 1 else [load_other(tasks[0])]
    every = [*tasks, *others]
    (n_shots,) = check_counts({"n_shots": n_shots}, seed)
    # Dummies are drawn as further demonstrations: never asked, and never shown.
    (matched,) = draw_matched(every, {"n_points": n_points}, n_shots + N_DUMMIES, seed)
    words = [pair.y for t in every for pair in t.pairs]
    # One encoder for all: only answers may tell prompts apart.
    encoder = model.encoder(template, words, leading_space)
    drawn = [
        Drawn(t, encoder, tuple(_with_dummies(e, n_shots) for e in episodes), _prior(episodes))
        for t, episodes in zip(every, matched.episodes, strict=True)
    ]
    return Pool(
        tuple(drawn[: len(tasks)]),
        tuple(drawn[len(tasks) :]),
        same_inputs(every),
        matched.n_queries,
    )


def _with_dummies(episode: Episode, n_shots: int) -> Episode:
    shown = episode.demonstrations
    return Episode(shown[:n_shots], episode.query, shown[n_shots:])


def _prior(episodes: Sequence[Episode]) -> str:
    return Counter(pair.y for e in episodes for pair in e.demonstrations).most_common(1)[0][0]
