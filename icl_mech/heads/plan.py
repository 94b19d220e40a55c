"""The settings of questions about heads, and the prompts of every task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Generic, Literal, TypeVar, get_args

from icl_mech.errors import InputError, choose
from icl_mech.prompts import (
    Episode,
    PromptSettings,
    Split,
    VectorSettings,
    check_shots,
    draw_split,
    generator,
    half,
    shuffled,
    whole_numbers,
)
from icl_mech.tasks import Task, Tasks, list_tasks, load_task, load_tasks

#: Exact indirect effect, its first-order estimate, and the direct contribution to the logits.
Method = Literal["aie", "attribution", "direct"]
METHODS: tuple[Method, ...] = get_args(Method)
#: What replaces the output of a head that is switched off.
Off = Literal["other_tasks", "shuffled_labels", "zero"]
#: A layer and the number of a head in it.
Head = tuple[int, int]
#: Default numbers of heads that are switched off together, up to the model's number of heads.
COUNTS = (1, 2, 5, 10, 20)
#: Few-shot prompts per other task over which a head's output is averaged.
PER_TASK = 4


@dataclass(frozen=True, kw_only=True)
class AttributionSettings(PromptSettings):
    """Settings of `head_attribution`.

    Example:
        >>> AttributionSettings(methods=("aie",)).n_clean
        50
    """

    n_prompts: int = 25
    """Prompts with shuffled labels, per task."""
    n_shots: int = 10
    """Demonstrations per prompt."""
    n_clean: int = 50
    """Prompts with right labels, per task, over which a head's output is averaged."""
    methods: tuple[Method, ...] = METHODS
    """Which methods to run. Quantised models allow only aie."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shots(self.n_shots)
        self.set_counts("n_clean")
        self._set("methods", several_methods(self.methods))

    def split(self, task: Task) -> Split:
        """The task's episodes; those of dev are the clean prompts."""
        return self.draw(task, self.n_clean)


@dataclass(frozen=True, kw_only=True)
class AblationSettings(PromptSettings):
    """Settings of `head_ablation`.

    Example:
        >>> AblationSettings(counts=(5, 1)).counts
        (1, 5)
    """

    n_shots: int = 10
    """Demonstrations per prompt."""
    off: Off = "other_tasks"
    """What replaces the output of a head: its mean over prompts of other tasks, its mean over
    prompts with shuffled labels, or zero."""
    counts: tuple[int, ...] | None = None
    """How many heads are switched off together, each number in turn; by default 1, 2, 5, 10 and
    20, as far as there are heads."""
    n_draws: int = 10
    """Sets of random heads for each of these numbers."""
    n_dev: int | None = None
    """Other prompts per task, on which heads are ranked; by default half of --n-prompts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shots(self.n_shots)
        self.set_counts("n_draws", "n_dev")
        choose(self.off, get_args(Off), "way to switch heads off")
        if self.counts is not None:
            self._set("counts", several_counts("counts", self.counts))

    @property
    def dev(self) -> int:
        """The number of dev prompts: `n_dev`, or half of the number of test prompts."""
        return half(self.n_prompts, self.n_dev)

    def recorded(self) -> dict[str, Any]:
        """What provenance records: every setting by name, with the number of dev prompts."""
        return super().recorded() | {"n_dev": self.dev}

    def split(self, task: Task) -> Split:
        """The task's episodes, dev apart from test."""
        return self.draw(task, self.dev)


@dataclass(frozen=True, kw_only=True)
class FunctionVectorSettings(VectorSettings):
    """Settings of `function_vectors`.

    Example:
        >>> FunctionVectorSettings(n_heads=(10, 2, 2)).n_heads
        (2, 10)
    """

    n_shots: int = 10
    """Demonstrations per prompt."""
    n_heads: tuple[int, ...] = (1, 2, 5, 10)
    """How many heads a vector sums; of several numbers the best on dev prompts."""
    scale: tuple[float, ...] = (1.0, 2.0, 4.0)
    """Factor on vectors that are added; of several the best on dev prompts."""
    output_bias: bool = False
    """Add attention's output bias once per head, as the paper's code does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shots(self.n_shots)
        self._set("n_heads", several_counts("n_heads", self.n_heads))
        self._set("scale", several_scales(self.scale))


Settings = TypeVar("Settings", AttributionSettings, AblationSettings, FunctionVectorSettings)


@dataclass(frozen=True)
class Labelled:
    """Episodes with right labels, and the same episodes with shuffled labels."""

    clean: tuple[Episode, ...]
    shuffled: tuple[Episode, ...]


@dataclass(frozen=True)
class HeadsTask:
    """One task with its episodes drawn; dev queries, test queries and demonstrations differ.

    Attributes:
        n_queries: number of different test queries (small tasks repeat queries).
        elsewhere: for an ablation, other tasks with the episodes over which head outputs are
            averaged.
    """

    task: Task
    dev: Labelled
    test: Labelled
    n_queries: int
    elsewhere: tuple[tuple[Task, tuple[Episode, ...]], ...] = ()


@dataclass(frozen=True)
class HeadsPlan(Generic[Settings]):
    """All tasks of a question about heads, the settings, and the heads that the caller gave."""

    tasks: Sequence[HeadsTask]
    settings: Settings
    heads: Sequence[Head] | None = None


def plan_heads(
    tasks: Tasks, settings: Settings, heads: Sequence[Head] | None = None
) -> HeadsPlan[Settings]:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few pairs.

    Example:
        >>> plan = plan_heads("antonyms", AttributionSettings(n_prompts=4, n_shots=2))
        >>> len(plan.tasks[0].test.shuffled)
        4
    """
    return HeadsPlan([_plan(task, settings) for task in load_tasks(tasks)], settings, heads)


def _plan(
    task: Task, s: AttributionSettings | AblationSettings | FunctionVectorSettings
) -> HeadsTask:
    split = s.split(task)
    rng = generator(s.seed, task.name, "shuffled")
    test = Labelled(split.test, shuffled(split.test, rng))
    dev = Labelled(split.dev, shuffled(split.dev, rng))
    means = isinstance(s, AblationSettings) and s.off == "other_tasks"
    elsewhere = _elsewhere(task, s) if means else ()
    return HeadsTask(task, dev, test, split.n_test_queries, elsewhere)


def _elsewhere(task: Task, s: PromptSettings) -> tuple[tuple[Task, tuple[Episode, ...]], ...]:
    """Few-shot episodes of the built-in tasks that share no pair with this one.

    Raises:
        InputError: if none has enough pairs.
    """
    # Compare pairs, not names: a task of a family may equal a built-in one.
    own = {(pair.x, pair.y) for pair in task.pairs}
    others = [
        other
        for other in map(load_task, list_tasks())
        if len(other) >= s.n_shots + 3 and not own & {(pair.x, pair.y) for pair in other.pairs}
    ]
    if not others:
        raise InputError(
            f"no other built-in task has enough pairs for {s.n_shots} shots; expected fewer "
            "shots, or another way to switch heads off"
        )
    return tuple(
        (t, s.instruct(draw_split(t, PER_TASK, 1, s.n_shots, 1, s.seed), t).test) for t in others
    )


def several_methods(methods: str | Iterable[str]) -> tuple[Method, ...]:
    """A tuple of one method or several.

    Raises:
        InputError: if there is none, or one does not exist.
    """
    several = (methods,) if isinstance(methods, str) else tuple(methods)
    for method in several:
        choose(method, METHODS, "method")
    if not several:
        raise InputError(f"no methods; expected at least one of {', '.join(METHODS)}")
    return several  # type: ignore[return-value]  # each of them was found among METHODS


def several_counts(name: str, given: Any) -> tuple[int, ...]:
    """A tuple of one number of heads or several, each once, in ascending order.

    Raises:
        InputError: if there is none, or one is not a positive whole number.
    """
    counts = tuple(sorted(set(whole_numbers(name, given))))
    if not counts or counts[0] < 1:
        raise InputError(f"{name} is {given}; expected numbers of at least 1")
    return counts


def several_scales(scale: Any) -> tuple[float, ...]:
    """A tuple of one factor or several, as plain numbers.

    Raises:
        InputError: if there is none, or one is not a finite number.
    """
    is_one = isinstance(scale, str) or not isinstance(scale, Iterable)
    scales = []
    for given in [scale] if is_one else scale:
        try:
            scales.append(float(given))
        except (TypeError, ValueError):
            raise InputError(f"scale is {given!r}; expected a number") from None
        if not isfinite(scales[-1]):
            raise InputError(f"scale is {given}; expected a finite number")
    if not scales:
        raise InputError("no scale; expected at least one number")
    return tuple(scales)
