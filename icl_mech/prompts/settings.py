"""The settings that decide which prompts are asked, shared by all questions."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from icl_mech.errors import InputError
from icl_mech.prompts.instructions import check_instruction, instructed
from icl_mech.prompts.matched import Matched, draw_matched
from icl_mech.prompts.sampling import Split, draw_split, shuffle_labels
from icl_mech.prompts.template import DEFAULT_TEMPLATE, Template
from icl_mech.tasks.context import ContextTask
from icl_mech.tasks.seeds import check_seed, count, whole_numbers
from icl_mech.tasks.task import Episode, Task

#: Dummy queries per set of demonstrations, by default.
N_DUMMIES = 2


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """The settings that, together with the model and the tasks, decide which prompts are asked.

    The settings are checked when they are made. They are also the options of the command line, and
    a result's provenance records them. Questions add their own settings in a subclass.

    Raises:
        InputError: where a count, the seed or the template cannot work.

    Example:
        >>> PromptSettings(n_prompts=8, n_shots=3).n_shots
        3
    """

    n_prompts: int = 50
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    seed: int = 0
    """Of every random draw."""
    template: str = DEFAULT_TEMPLATE
    r"""How a pair is written; {x} is the input, {y} the answer, \n a line break."""
    leading_space: bool | None = None
    """Write words with a space before them; by default as the tokenizer needs fewer tokens."""
    instruction: str = "none"
    """A line before the demonstrations, never in zero-shot prompts: none, true (it names the task),
    other (it names another task), irrelevant (it names none), or the line itself."""

    def __post_init__(self) -> None:
        self.set_counts("n_prompts")
        if isinstance(self.n_shots, Sequence):
            self._set("n_shots", shot_counts(self.n_shots))
        else:
            self.set_counts("n_shots")
        self._set("seed", check_seed(self.seed))
        Template(self.template)
        check_instruction(self.instruction)

    def set_counts(self, *names: str) -> None:
        """Check fields that are counts, and keep them as plain integers; None stays None.

        Raises:
            InputError: where one is no whole number, less than 1 or too large to draw.
        """
        for name in names:
            if getattr(self, name) is not None:
                self._set(name, count(name, getattr(self, name)))

    def draw(
        self, task: Task, n_dev: int = 1, n_dummies: int = 1, known: Collection[str] = ()
    ) -> Split:
        """A task's episodes with their instruction, dev apart from test.

        Inputs that are `known` are not asked.

        Raises:
            InputError: where the task has too few pairs, or has no instruction of its own.
        """
        counts = (self.n_prompts, n_dev, self.n_shots, n_dummies)
        split = draw_split(task, *counts, self.seed, known)
        return self.instruct(split, task)

    def match(
        self, tasks: Sequence[Task], sizes: Mapping[str, int], n_shots: int
    ) -> tuple[Matched, ...]:
        """Episodes that match across tasks, as `draw_matched` draws them, with instructions."""
        return tuple(
            Matched(
                tuple(
                    instructed(of, task, self.instruction)
                    for of, task in zip(drawn.episodes, tasks, strict=True)
                ),
                drawn.n_queries,
            )
            for drawn in draw_matched(tasks, sizes, n_shots, self.seed)
        )

    def instruct(self, split: Split, task: Task | ContextTask) -> Split:
        """The same episodes with the instruction that the settings ask for."""
        dev, test = (instructed(of, task, self.instruction) for of in (split.dev, split.test))
        return replace(split, dev=dev, test=test)

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def recorded(self) -> dict[str, Any]:
        """What provenance records: every setting by name, tuples as the lists that files hold."""
        return {n: list(v) if isinstance(v, tuple) else v for n, v in vars(self).items()}


@dataclass(frozen=True, kw_only=True)
class VectorSettings(PromptSettings):
    """Settings of questions that read task vectors and choose a layer on dev prompts.

    Example:
        >>> VectorSettings(n_prompts=8).dev
        4
    """

    n_dev: int | None = None
    """Other prompts per task, on which the layer is chosen; by default half of --n-prompts."""
    n_dummies: int = N_DUMMIES
    """Dummy queries per set of demonstrations, over which a task vector is averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_dev", "n_dummies")

    @property
    def dev(self) -> int:
        """The number of dev prompts: `n_dev`, or half of the number of test prompts."""
        return max(1, self.n_prompts // 2) if self.n_dev is None else self.n_dev

    def recorded(self) -> dict[str, Any]:
        """What provenance records: every setting by name, with the number of dev prompts."""
        return super().recorded() | {"n_dev": self.dev}

    def split(self, task: Task, known: Collection[str] = ()) -> Split:
        """The task's episodes, dev apart from test. Inputs that are `known` are not asked.

        Raises:
            InputError: where the task has too few pairs.
        """
        return self.draw(task, self.dev, self.n_dummies, known)


def half(n_prompts: Any, n_dev: Any) -> int:
    """The number of dev prompts: by default (None) half as many as test prompts.

    >>> half(100, None), half(100, 20)
    (50, 20)

    Raises:
        InputError: where one of them is no count of prompts.
    """
    n_prompts = count("n_prompts", n_prompts)
    return max(1, n_prompts // 2) if n_dev is None else count("n_dev", n_dev)


def shot_counts(n_shots: Any) -> tuple[int, ...]:
    """One number of shots or several, in ascending order.

    >>> shot_counts(5), shot_counts([8, 2])
    ((5,), (2, 8))

    Raises:
        InputError: where the list is empty, names a number twice, or holds anything but positive
            whole numbers.
    """
    counts = tuple(sorted(whole_numbers("n_shots", n_shots)))
    if not counts or len(set(counts)) < len(counts):
        raise InputError(f"n_shots {list(counts)}; expected at least one, each once")
    return tuple(count("n_shots", n) for n in counts)


def check_shots(n_shots: int) -> None:
    """Refuse a single demonstration, whose label cannot be shuffled.

    Raises:
        InputError: where there are fewer than two.

    Example:
        >>> check_shots(2)
    """
    if n_shots < 2:
        raise InputError(f"n_shots is {n_shots}; expected at least 2 (labels are shuffled)")


def shuffled(episodes: Sequence[Episode], rng: np.random.Generator) -> tuple[Episode, ...]:
    """The same episodes, each demonstration with the label of another one.

    >>> from icl_mech.tasks import Pair
    >>> pairs = (Pair("a", ("A",)), Pair("b", ("B",)))
    >>> (episode,) = shuffled([Episode(pairs, Pair("c", ("C",)), ())], np.random.default_rng(0))
    >>> [(pair.x, pair.y) for pair in episode.demonstrations]
    [('a', 'B'), ('b', 'A')]
    """
    return tuple(replace(e, demonstrations=shuffle_labels(e.demonstrations, rng)) for e in episodes)
