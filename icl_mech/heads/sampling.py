"""The prompts that questions about heads are asked on."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from icl_mech.model import HookedModel
from icl_mech.prompts import (
    Encoder,
    Episode,
    Prompt,
    check_shots,
    draw_split,
    generator,
    in_context,
    shuffled,
    zero_shot,
)
from icl_mech.tasks import Task


@dataclass(frozen=True)
class Prompts:
    """Few-shot prompts with right and with shuffled labels, for the same queries.

    Attributes:
        episodes: what they were made from.
        clean: with right labels.
        shuffled: the same demonstrations, each with another one's label.
        labels: all labels of the task.
    """

    encoder: Encoder
    labels: tuple[str, ...]
    episodes: tuple[Episode, ...]
    clean: tuple[Prompt, ...]
    shuffled: tuple[Prompt, ...]

    @staticmethod
    def of(
        encoder: Encoder, task: Task, episodes: Sequence[Episode], rng: np.random.Generator
    ) -> "Prompts":
        """Encode episodes, shuffling labels with `rng`."""
        return Prompts(
            encoder,
            tuple(dict.fromkeys(pair.y for pair in task.pairs)),
            tuple(episodes),
            tuple(in_context(encoder, episodes)),
            tuple(in_context(encoder, shuffled(episodes, rng))),
        )

    @cached_property
    def zero_shot(self) -> tuple[Prompt, ...]:
        """The queries alone."""
        return tuple(zero_shot(self.encoder, self.episodes))

    @cached_property
    def answers(self) -> list[int]:
        """The first token of each right answer."""
        return [
            self.encoder.answer_tokens(prompt, [e.query.y])[0][0]
            for prompt, e in zip(self.clean, self.episodes, strict=True)
        ]

    @property
    def targets(self) -> list[list[int]]:
        """The same as what `model.evaluate` and `model.predict` read."""
        return [[token] for token in self.answers]

    @cached_property
    def rivals(self) -> list[tuple[int, ...]]:
        """What each answer is compared with: the first tokens of the other labels shown.

        Where all labels shown are the right answer, as happens in tasks with few labels: of all
        other labels of the task.

        Raises:
            InputError: where the task has no other label.
        """
        found = []
        for prompt, e in zip(self.clean, self.episodes, strict=True):
            shown = self.encoder.rivals(
                prompt, e.query.answers, (pair.y for pair in e.demonstrations)
            )
            rivals = shown or self.encoder.rivals(prompt, e.query.answers, self.labels)
            if not rivals:
                raise InputError(
                    f"all labels begin with the same token as {e.query.y!r}, the answer to "
                    f"{e.query.x!r}; expected another label to compare it with"
                )
            found.append(rivals)
        return found


@dataclass(frozen=True)
class Drawn:
    """A task's prompts, dev apart from test.

    Attributes:
        n_queries: how many test queries differ (small tasks repeat queries).
    """

    task: Task
    dev: Prompts
    test: Prompts
    n_queries: int


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
    test = Prompts.of(encoder, task, split.test, rng)
    return Drawn(task, Prompts.of(encoder, task, split.dev, rng), test, split.n_test_queries)
