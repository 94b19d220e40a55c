"""The prompts that questions about heads are asked on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.prompts import Encoder, Episode, Prompt, draw_split, generator, shuffle_labels
from icl_mech.tasks import Task


@dataclass(frozen=True)
class Prompts:
    """Few-shot prompts with right and with shuffled labels, for the same queries.

    Attributes:
        episodes: what they were made from.
        clean: with right labels.
        shuffled: the same demonstrations, each with another one's label.
        answers: the first token of the right answer.
        rivals: the first tokens of the other labels that the demonstrations show.
    """

    encoder: Encoder
    episodes: tuple[Episode, ...]
    clean: tuple[Prompt, ...]
    shuffled: tuple[Prompt, ...]

    @staticmethod
    def of(encoder: Encoder, episodes: Sequence[Episode], rng: np.random.Generator) -> "Prompts":
        """Encode episodes, shuffling labels with `rng`."""
        return Prompts(
            encoder,
            tuple(episodes),
            tuple(encoder.encode(e.demonstrations, e.query.x) for e in episodes),
            tuple(
                encoder.encode(shuffle_labels(e.demonstrations, rng), e.query.x) for e in episodes
            ),
        )

    @cached_property
    def zero_shot(self) -> tuple[Prompt, ...]:
        """The queries alone."""
        return tuple(self.encoder.encode((), e.query.x) for e in self.episodes)

    @cached_property
    def answers(self) -> list[int]:
        """The first token of each right answer."""
        return [
            self._first(prompt, e.query.y)
            for prompt, e in zip(self.clean, self.episodes, strict=True)
        ]

    @cached_property
    def rivals(self) -> list[list[int]]:
        """The first tokens of the labels shown, without the right answer's.

        Raises:
            InputError: where every label shown is the right answer.
        """
        found = []
        for prompt, e, answer in zip(self.clean, self.episodes, self.answers, strict=True):
            labels = {self._first(prompt, pair.y) for pair in e.demonstrations} - {answer}
            if not labels:
                raise InputError(
                    f"all demonstrations for {e.query.x!r} show its own answer {e.query.y!r}; "
                    "expected another label to compare it with (use more shots)"
                )
            found.append(sorted(labels))
        return found

    def _first(self, prompt: Prompt, label: str) -> int:
        return self.encoder.answer_tokens(prompt, [label])[0][0]


@dataclass(frozen=True)
class Drawn:
    """A task's prompts, dev apart from test."""

    task: Task
    dev: Prompts
    test: Prompts


def draw(
    model: HookedModel,
    task: Task,
    n_test: int,
    n_dev: int,
    n_shots: int,
    seed: int,
    template: str,
    leading_space: bool | None,
    n_dummies: int = 1,
) -> Drawn:
    """Draw a task's prompts: dev queries, test queries and demonstrations are disjoint.

    Raises:
        InputError: where the counts or the task's pairs do not suffice.
    """
    check_shots(n_shots)
    split = draw_split(task, n_test, n_dev, n_shots, n_dummies, seed)
    encoder = model.encoder(template, [pair.y for pair in task.pairs], leading_space)
    rng = generator(seed, task.name, "shuffled")
    test = Prompts.of(encoder, split.test, rng)
    return Drawn(task, Prompts.of(encoder, split.dev, rng), test)


def check_shots(n_shots: int) -> None:
    """Raise InputError where there are no labels to shuffle."""
    if n_shots < 2:
        raise InputError(f"n_shots is {n_shots}; expected at least 2 (labels are shuffled)")
