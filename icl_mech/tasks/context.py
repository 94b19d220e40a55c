"""Tasks whose right answer depends on the demonstrations of the prompt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from icl_mech.errors import InputError
from icl_mech.tasks.task import Episode

#: The accuracy that theory expects of one vector. "works": that of the few-shot prompt; "about
#: half": right in one of two directions; "label prior": that of answering without the query.
Outcome = Literal["works", "about half", "label prior"]


@dataclass(frozen=True)
class Prediction:
    """The accuracy that theory expects of one task vector on a task, and why.

    Attributes:
        outcome: the expectation, in two words.
        text: the argument, in a sentence or two.
    """

    outcome: Outcome
    text: str


#: Makes an episode: the item that is asked, items that may be shown (in random order, as many as
#: the task `needs`), the number of dummies, and a random generator for everything else.
Compose = Callable[[str, Sequence[str], int, np.random.Generator], Episode]


@dataclass(frozen=True)
class ContextTask:
    """A task that makes whole episodes, unlike a `Task`, whose pairs are the same in every prompt.

    Attributes:
        name: as `load_failure` knows it.
        description: one line.
        prediction: the accuracy that theory expects of one vector.
        items: what may be asked or shown, each once. Drawing episodes decides which items are asked
            on dev and on test; an item that is asked is never a demonstration.
        answers: every answer that may occur, to recognise answers of the right kind.
        inputs: every input that may occur.
        n_shots: demonstrations per prompt.
        needs: how many items `compose` uses beside the asked one and the dummies.
        compose: makes an episode.
        category: `"failure"` for all built-in ones.
    """

    name: str
    description: str
    prediction: Prediction
    items: tuple[str, ...]
    answers: tuple[str, ...]
    inputs: tuple[str, ...]
    n_shots: int
    needs: int
    compose: Compose
    category: str = "failure"

    def __post_init__(self) -> None:
        if self.n_shots < 1:
            raise InputError(f"task {self.name!r}: n_shots is {self.n_shots}; expected at least 1")
        if len(set(self.items)) < len(self.items):
            raise InputError(f"task {self.name!r}: an item appears twice; expected each once")

    def __len__(self) -> int:
        return len(self.items)

    def __repr__(self) -> str:
        return f"ContextTask({self.name!r}, {self.n_shots} shots: {self.description})"

    def episode(
        self, asked: str, others: Sequence[str], n_dummies: int, rng: np.random.Generator
    ) -> Episode:
        """An episode that asks about one item and shows some of the others, taken in this order."""
        return self.compose(asked, others, n_dummies, rng)
