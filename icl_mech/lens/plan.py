"""The settings of the lenses, and the prompts of every task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from icl_mech.errors import InputError, choose
from icl_mech.lens.naming import naming_words
from icl_mech.prompts import (
    N_DUMMIES,
    PromptSettings,
    Split,
    Template,
    check_shots,
    whole,
)
from icl_mech.prompts.encode import SINK
from icl_mech.tasks import Pair, Task, Tasks, list_tasks, load_other, load_task, load_tasks

#: Which vectors can be read, and how several are averaged.
Vector = Literal["theta", "function"]
Average = Literal["log_probability", "vector"]
#: Default number of heads that a function vector sums.
N_HEADS = 10
#: The share of a task's inputs that another task must have to be its default rival.
SHARED = 0.5


@dataclass(frozen=True, kw_only=True)
class LensSettings(PromptSettings):
    """Settings of `logit_lens`.

    Example:
        >>> LensSettings(n_shots=2, roles=("demo_1_arrow", "final_arrow")).top_k
        5
    """

    n_prompts: int = 25
    """Prompts per task."""
    roles: tuple[str, ...] = ("final_arrow",)
    """At which tokens: final_arrow, query, demo_0_x, demo_0_arrow, ...; or all."""
    top_k: int = 5
    """How many of the most probable tokens are kept."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.roles == ("all",):
            self._set("roles", tuple(every_role(self.template, self.n_shots)))
        check_roles(self.roles, self.template, self.n_shots)
        self._set("top_k", _top_k(self.top_k))


@dataclass(frozen=True, kw_only=True)
class VectorLensSettings(PromptSettings):
    """Settings of `vector_lens`.

    Example:
        >>> VectorLensSettings(vector="function", n_heads=3).top_k
        20
    """

    n_prompts: int = 25
    """Vectors per task, each from other demonstrations."""
    n_dummies: int = N_DUMMIES
    """Dummy queries per set of demonstrations, over which theta is averaged."""
    vector: Vector = "theta"
    """theta at every layer, or function vectors from the heads with the largest AIE."""
    layers: tuple[int, ...] | None = None
    """After which blocks theta is read; by default after all."""
    n_heads: int | None = None
    """How many heads a function vector sums; by default 10."""
    output_bias: bool = False
    """Add attention's output bias to function vectors once per head, as the paper's code does."""
    top_k: int = 20
    """How many of the most probable tokens are kept."""
    average: Average = "log_probability"
    """What is averaged over a task's vectors: the log probabilities that they give, or the vectors
    themselves, whose mean is then read."""
    only_words: bool = False
    """Leave out tokens that are not letters only (recorded in the result)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_dummies", "n_heads")
        choose(self.vector, get_args(Vector), "vector")
        choose(self.average, get_args(Average), "average")
        self._set("top_k", _top_k(self.top_k))
        if self.vector == "function" and self.layers is not None:
            raise InputError("layers of a function vector, which belongs to none; expected None")
        for name in ("n_heads", "output_bias"):
            if self.vector == "theta" and getattr(self, name):
                raise InputError(f"{name} is for function vectors; expected vector='function'")


@dataclass(frozen=True)
class LensTask:
    """One task with its episodes drawn.

    Attributes:
        other: the task whose answers are rivals; None if no task shares enough inputs.
    """

    task: Task
    other: Task | None
    split: Split


@dataclass(frozen=True)
class LensPlan:
    """All tasks of a logit lens, and the settings that they were drawn with."""

    tasks: Sequence[LensTask]
    settings: LensSettings


@dataclass(frozen=True)
class VectorLensPlan:
    """All tasks of a vector lens with their episodes, settings, heads and naming words.

    Attributes:
        heads: the heads of function vectors; None if they will be ranked.
        naming: the words that name each task, in lower case.
    """

    tasks: Sequence[tuple[Task, Split]]
    settings: VectorLensSettings
    heads: Sequence[tuple[int, int]] | None
    naming: Mapping[str, frozenset[str]]


def plan_lens(
    tasks: Tasks, settings: LensSettings, other_task: Task | str | None = None
) -> LensPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist, has too few pairs, or is `other_task`.

    Example:
        >>> plan_lens("en_fr", LensSettings(n_prompts=4)).tasks[0].other.name
        'en_es'
    """
    s = settings
    return LensPlan(
        [
            LensTask(
                task,
                sharing_task(task) if other_task is None else load_other(task, other_task),
                s.draw(task),
            )
            for task in load_tasks(tasks)
        ],
        settings,
    )


def plan_vectors(
    tasks: Tasks,
    settings: VectorLensSettings,
    heads: Sequence[tuple[int, int]] | None = None,
    naming: Mapping[str, Sequence[str]] | None = None,
) -> VectorLensPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few pairs, if there are too few shots to
            rank heads, or if `naming` holds a text instead of a list.

    Example:
        >>> plan = plan_vectors("antonyms", VectorLensSettings(n_prompts=4))
        >>> len(plan.tasks[0][1].test)
        4
    """
    s = settings
    if s.vector == "function" and heads is None:
        check_shots(s.n_shots)  # heads are ranked on prompts with shuffled labels
    every = load_tasks(tasks)
    splits = [s.draw(t, n_dummies=s.n_dummies) for t in every]
    return VectorLensPlan(
        list(zip(every, splits, strict=True)), settings, heads, naming_words(naming)
    )


def sharing_task(task: Task) -> Task | None:
    """The built-in task that shares most inputs with a task; None if all share less than half.

    >>> sharing_task(load_task("en_fr")).name, sharing_task(load_task("plural_singular"))
    ('en_es', None)
    """
    inputs = {pair.x for pair in task.pairs}

    def shared(other: Task) -> float:
        return len(inputs & {pair.x for pair in other.pairs}) / len(inputs)

    others = [load_task(name) for name in list_tasks() if name != task.name]
    best = max(others, key=shared)
    return best if shared(best) >= SHARED else None


def every_role(template: str, n_shots: int) -> list[str]:
    """The roles of all tokens of prompts with this template and number of shots, in order.

    >>> every_role("{x}->{y}", 1)
    ['sink', 'demo_0_x', 'demo_0_arrow', 'demo_0_y', 'demo_0_end', 'query', 'final_arrow']
    """
    shown = [Pair("x", ("y",))] * n_shots
    spans = Template(template, leading_space=False).render(shown, "x")
    return list(dict.fromkeys([SINK, *(span.role for span in spans)]))


def check_roles(roles: Sequence[str], template: str, n_shots: int) -> None:
    """Refuse roles that prompts with this template and number of shots do not have.

    Raises:
        InputError: naming the nearest role; also if there is no role or one comes twice.
    """
    known = every_role(template, n_shots)
    for role in roles:
        choose(role, known, "role")
    if not roles or len(set(roles)) != len(roles):
        raise InputError(f"roles {list(roles)}; expected at least one, each once")


def _top_k(value: Any) -> int:
    number = whole("top_k", value)
    if number < 1:
        raise InputError(f"top_k is {number}; expected at least 1")
    return number
