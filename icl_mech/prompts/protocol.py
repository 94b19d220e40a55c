"""How episodes are drawn, for every question that works with task vectors."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icl_mech.errors import InputError
from icl_mech.prompts.sampling import Split, draw_split, shuffle_labels
from icl_mech.prompts.template import DEFAULT_TEMPLATE
from icl_mech.tasks.episode import Episode
from icl_mech.tasks.seeds import count, whole_numbers
from icl_mech.tasks.task import Task

N_DUMMIES = 2


@dataclass(frozen=True)
class Protocol:
    """All that, with the model and the tasks, decides which prompts there are.

    Attributes:
        n_prompts: test prompts per task.
        n_dev: prompts on which the layer is chosen.
        n_shots: demonstrations per prompt.
        n_dummies: dummy queries per demonstration set.
        seed: of every random draw.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; None: as the tokenizer likes.
    """

    n_prompts: int
    n_dev: int
    n_shots: int
    n_dummies: int = N_DUMMIES
    seed: int = 0
    template: str = DEFAULT_TEMPLATE
    leading_space: bool | None = None

    def split(self, task: Task) -> Split:
        """The task's episodes, dev apart from test.

        Raises:
            InputError: where a count is not positive or the task has too few pairs.
        """
        return draw_split(task, self.n_prompts, self.n_dev, self.n_shots, self.n_dummies, self.seed)


def half(n_prompts: Any, n_dev: Any) -> int:
    """The number of dev prompts: by default (None) half as many as test prompts.

    Raises:
        InputError: where one is no count of prompts.
    """
    n_prompts = count("n_prompts", n_prompts)
    return max(1, n_prompts // 2) if n_dev is None else count("n_dev", n_dev)


def shot_counts(n_shots: Any) -> tuple[int, ...]:
    """One number of shots or several, in order.

    Raises:
        InputError: where there is none, one comes twice, or is no positive whole number.
    """
    counts = tuple(sorted(whole_numbers("n_shots", n_shots)))
    if not counts or len(set(counts)) < len(counts):
        raise InputError(f"n_shots {list(counts)}; expected at least one, each once")
    return tuple(count("n_shots", n) for n in counts)


def check_shots(n_shots: int) -> None:
    """Raise InputError where there are no labels to shuffle."""
    if n_shots < 2:
        raise InputError(f"n_shots is {n_shots}; expected at least 2 (labels are shuffled)")


def shuffled(episodes: Sequence[Episode], rng: np.random.Generator) -> tuple[Episode, ...]:
    """The same episodes, each demonstration with another one's label."""
    return tuple(replace(e, demonstrations=shuffle_labels(e.demonstrations, rng)) for e in episodes)
