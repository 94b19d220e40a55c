"""The prompts that a method forms its vector from, and the cost of forming it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from icl_mech.prompts import (
    Encoder,
    Episode,
    Prompt,
    generator,
    header,
    in_context,
    shuffle_labels,
)
from icl_mech.prompts.sampling import draw_episodes
from icl_mech.tasks import Pair, Task
from icl_mech.vector_methods.plan import FormingSettings


@dataclass
class Cost:
    """The cost of forming a vector.

    Attributes:
        forward, backward: passes of one prompt each, of any length; a pass that begins at a later
            block or token also counts as one.
        seconds: wall time.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0

    def ran(self, n: int) -> None:
        """Count `n` forward passes; given to the model's functions as `tick`."""
        self.forward += n


@dataclass(frozen=True)
class Material:
    """Training pairs, demonstration sets drawn from them, and dev prompts.

    Attributes:
        task: the task that the vector is formed for.
        encoder: encodes the prompts.
        pairs: training pairs; none of them is a query of `dev`.
        dev: episodes that decide the layer, the factor and when training stops.
        n_sets, n_shots, n_dummies, seed: of the demonstration sets.
    """

    task: Task
    encoder: Encoder
    pairs: tuple[Pair, ...]
    dev: tuple[Episode, ...]
    n_sets: int
    n_shots: int
    n_dummies: int
    seed: int

    @staticmethod
    def of(
        task: Task,
        encoder: Encoder,
        pairs: Sequence[Pair],
        dev: Sequence[Episode],
        s: FormingSettings,
    ) -> "Material":
        """The material of a task, with the counts and the seed of `s`."""
        counts = (s.n_sets, s.n_shots, s.n_dummies, s.seed)
        return Material(task, encoder, tuple(pairs), tuple(dev), *counts)

    @cached_property
    def sets(self) -> tuple[Episode, ...]:
        """Demonstration sets, each with a query and dummy queries that it does not show."""
        rng = generator(self.seed, self.task.name, "sets")
        return tuple(self.draws(rng, self.n_sets))

    @cached_property
    def clean(self) -> list[Prompt]:
        """The few-shot prompts of the sets."""
        return in_context(self.encoder, self.sets)

    def draws(self, rng: np.random.Generator, n: int) -> list[Episode]:
        """Draw `n` episodes: each training pair is the query in turn, others demonstrate."""
        order = rng.permutation(len(self.pairs))
        drawn: list[Episode] = []
        for i in range(n):
            asked = int(order[i % len(order)])
            others = [pair for j, pair in enumerate(self.pairs) if j != asked]
            drawn += draw_episodes(
                [self.pairs[asked]], others, 1, self.n_shots, self.n_dummies, rng
            )
        return drawn

    def shuffled(self) -> "Material":
        """The same material with shuffled answers: a control for what the labels add."""
        rng = generator(self.seed, self.task.name, "shuffled material")
        return replace(self, pairs=shuffle_labels(self.pairs, rng))

    @property
    def instruction(self) -> str:
        """The line that names the task.

        Raises:
            InputError: if the task has none.
        """
        return header(self.task, "true")

    @property
    def shown(self) -> list[str]:
        """All inputs that the vector may have been formed from."""
        return sorted({pair.x for pair in self.pairs})
