"""The settings of `compare_vectors`, and the episodes and training pairs of every task."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from icl_mech.errors import InputError, choose
from icl_mech.layers import check_layers
from icl_mech.prompts import Episode, VectorSettings, generator, shuffled
from icl_mech.prompts.sampling import mirrors
from icl_mech.tasks import Pair, Task, Tasks, load_other, load_tasks

#: Every method with its name in findings and figures, in the order of tables.
#: `vector_methods.methods.METHODS` says what each does.
NAMED = {
    "theta": "θ",
    "theta_mean": "θ, mean of sets",
    "layer_mean": "layer mean",
    "instruction": "instruction",
    "function_vector": "function vector",
    "state_vector": "state vector",
    "state_vector_momentum": "state vector, momentum",
    "icv": "in-context vector",
    "learned": "learned vector",
    "ltv": "learned head weights",
    "i2cl": "I2CL",
}
NAMES = tuple(NAMED)
#: The largest learning rate; larger steps would overflow single precision.
MOST_RATE = 1e30


@dataclass(frozen=True, kw_only=True)
class FormingSettings(VectorSettings):
    """Settings of how vectors are formed.

    Example:
        >>> FormingSettings(n_steps=20).n_sets
        10
    """

    n_sets: int = 10
    """Demonstration sets that a vector is read from, of pairs that are never asked."""
    n_steps: int = 40
    """Most gradient steps of methods that train; fewer if the loss on dev prompts stops falling."""
    batch_size: int = 12
    """Training prompts in a step."""
    learning_rate: float = 0.05
    """Learning rate of Adam; for a learned vector, as a share of its root mean square at first."""
    train_layers: tuple[int, ...] | None = None
    """Blocks after which a vector is learned, each by itself; the best on dev prompts is kept. By
    default the block where theta is best, and that at a quarter of the depth."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_sets", "batch_size")
        if self.n_steps != 0:
            self.set_counts("n_steps")
        rate = self.learning_rate
        if not isinstance(rate, int | float) or not 0 < rate <= MOST_RATE:
            raise InputError(
                f"learning_rate is {rate!r}; expected a number above 0, at most {MOST_RATE:g}"
            )
        if self.train_layers is not None:
            self._set("train_layers", tuple(check_layers(self.train_layers, 10_000)))

    @property
    def needed(self) -> int:
        """The fewest training pairs: one demonstration set, its dummy queries and one query."""
        return self.n_shots + self.n_dummies + 1


@dataclass(frozen=True, kw_only=True)
class CompareSettings(FormingSettings):
    """Settings of `compare_vectors`.

    Example:
        >>> CompareSettings(methods=("theta", "ltv")).methods
        ('theta', 'ltv')
    """

    n_prompts: int = 30
    """Test prompts per task."""
    methods: tuple[str, ...] | None = None
    """Which methods; by default all that the model and the task allow."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.methods is not None:
            self._set("methods", several(self.methods))


@dataclass(frozen=True)
class CompareTask:
    """One task with its episodes drawn.

    Attributes:
        task: the task.
        other: the task whose vectors are a control.
        test: episodes that are scored; their demonstrations are training pairs.
        shuffled: the same episodes with shuffled labels.
        dev: episodes that decide layers, factors and when training stops.
        pairs: the pairs that vectors are formed from. No query of dev or test is among them. A
            pair that mirrors a query ("hot -> cold" if "cold" is asked) is left out too, as long
            as enough pairs remain.
        n_queries: number of different test queries.
    """

    task: Task
    other: Task
    test: tuple[Episode, ...]
    shuffled: tuple[Episode, ...]
    dev: tuple[Episode, ...]
    pairs: tuple[Pair, ...]
    n_queries: int


@dataclass(frozen=True)
class ComparePlan:
    """All tasks of a comparison, and the settings that their prompts were drawn with."""

    tasks: Sequence[CompareTask]
    settings: CompareSettings


def plan_compare(
    tasks: Tasks, settings: CompareSettings, other_task: Task | str | None = None
) -> ComparePlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist, has too few pairs or only one answer, or lacks the
            instruction that a named method needs.

    Example:
        >>> plan = plan_compare("antonyms", CompareSettings(n_prompts=4))
        >>> drawn = plan.tasks[0]
        >>> asked = {episode.query.x for episode in (*drawn.dev, *drawn.test)}
        >>> len(drawn.test), asked & {pair.x for pair in drawn.pairs}
        (4, set())
    """
    return ComparePlan(
        [_plan(task, load_other(task, other_task), settings) for task in load_tasks(tasks)],
        settings,
    )


def _plan(task: Task, other: Task, s: CompareSettings) -> CompareTask:
    if len(task.labels()) < 2:
        raise InputError(
            f"task {task.name!r} has one answer only; expected at least two, or every vector that "
            "holds that answer is right"
        )
    if not task.instruction and "instruction" in (s.methods or ()):
        raise InputError(
            f"method 'instruction': task {task.name!r} has no instruction of its own; expected "
            "Task.from_pairs(..., instruction='...'), or other methods"
        )
    split = s.split(task)
    rng = generator(s.seed, task.name, "shuffled prompts")
    return CompareTask(
        task,
        other,
        split.test,
        shuffled(split.test, rng) if s.n_shots > 1 else split.test,
        split.dev,
        training_pairs(task, (*split.dev, *split.test), s.needed),
        split.n_test_queries,
    )


def training_pairs(task: Task, asked: Sequence[Episode], least: int) -> tuple[Pair, ...]:
    """The pairs of a task that vectors are formed from: those that are not asked.

    Pairs that mirror a query are left out too, if at least `least` others remain.

    Raises:
        InputError: if fewer than `least` are left.
    """
    queries = {episode.query.x: episode.query for episode in asked}
    left = [pair for pair in task.pairs if pair.x not in queries]
    apart = [p for p in left if not any(mirrors(p, query) for query in queries.values())]
    pairs = apart if len(apart) >= least else left
    if len(pairs) < least:
        raise InputError(
            f"task {task.name!r} has {len(pairs)} pairs that are not asked; expected at least "
            f"{least} to form a vector from (shots + dummy queries + 1 query)"
        )
    return tuple(pairs)


#: The methods that other questions use by default: one that reads activations, one that trains.
USUAL = ("theta", "learned")


@dataclass(frozen=True, kw_only=True)
class MethodSettings(FormingSettings):
    """Settings of questions that use vectors of several methods.

    Example:
        >>> MethodSettings(methods=("icv",)).methods
        ('icv',)
    """

    methods: tuple[str, ...] = USUAL
    """Methods to get the task vectors that are used (see icl-mech vectors); may be none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("methods", several(self.methods) if self.methods else ())


def several(methods: str | Iterable[str]) -> tuple[str, ...]:
    """A tuple of one method or several, each once.

    Raises:
        InputError: if there is none, one comes twice, or one does not exist (the nearest name is
            suggested).
    """
    given: list[Any] = [methods] if isinstance(methods, str) else list(methods)
    for method in given:
        choose(method, NAMES, "method")
    if not given or len(set(given)) < len(given):
        raise InputError(f"methods {given}; expected at least one, each once: {', '.join(NAMES)}")
    return tuple(given)
