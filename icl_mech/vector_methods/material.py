"""What a method forms its vector from, and what that costs."""

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
    """What forming a vector took.

    Attributes:
        forward, backward: passes of one prompt each, of whatever length; a pass that begins at a
            later block or token counts as one too.
        seconds: of wall time.
    """

    forward: int = 0
    backward: int = 0
    seconds: float = 0.0

    def ran(self, n: int) -> None:
        """Count forward passes; a `tick` of the model's functions."""
        self.forward += n


@dataclass(frozen=True)
class Material:
    """Training pairs, demonstration sets of them, and dev prompts to choose on.

    Attributes:
        task: that is shown.
        encoder: writes its prompts.
        pairs: for training; none of them is a query of `dev`.
        dev: episodes on which layers and factors are chosen, and training stops.
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
        """With the counts that settings name."""
        counts = (s.n_sets, s.n_shots, s.n_dummies, s.seed)
        return Material(task, encoder, tuple(pairs), tuple(dev), *counts)

    @cached_property
    def sets(self) -> tuple[Episode, ...]:
        """Demonstration sets, each with a training query and dummies that it does not show."""
        rng = generator(self.seed, self.task.name, "sets")
        return tuple(self.draws(rng, self.n_sets))

    @cached_property
    def clean(self) -> list[Prompt]:
        """The few-shot prompts of the sets."""
        return in_context(self.encoder, self.sets)

    def draws(self, rng: np.random.Generator, n: int) -> list[Episode]:
        """Training queries in turn, each after demonstrations from the other training pairs."""
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
        """The same inputs, each with the answer of another one: the control of what labels say."""
        rng = generator(self.seed, self.task.name, "shuffled material")
        return replace(self, pairs=shuffle_labels(self.pairs, rng))

    @property
    def instruction(self) -> str:
        """The line that names the task.

        Raises:
            InputError: where the task has none.
        """
        return header(self.task, "true")

    @property
    def shown(self) -> list[str]:
        """All inputs that a vector may have been formed from."""
        return sorted({pair.x for pair in self.pairs})
