"""The settings of a position scan, and the demonstrations and queries of every prompt pair."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from icl_mech.errors import InputError, choose
from icl_mech.layers import SITES
from icl_mech.prompts import PromptSettings, generator, header, shuffle_labels
from icl_mech.tasks import Pair, Task, Tasks, load_other, load_tasks

Corruption = Literal["labels", "task", "query"]
Direction = Literal["denoise", "noise", "both"]
#: Tokens by the names of their roles, or by index into the prompt.
Roles = Sequence[str | int]

#: How the corrupted prompt differs. `labels`: the answers of the demonstrations are shuffled.
#: `task`: the demonstrations are those of another task. `query`: it asks another input.
CORRUPTIONS: tuple[str, ...] = get_args(Corruption)
#: `denoise`: clean activations into the corrupted prompt. `noise`: the reverse.
DIRECTIONS = ("denoise", "noise")
#: Number of inputs drawn that may replace the query. The first one whose answer begins with
#: another token than the query's own answer is taken.
N_SUBSTITUTES = 4


@dataclass(frozen=True, kw_only=True)
class PositionSettings(PromptSettings):
    """Settings of `patch_positions`.

    Example:
        >>> PositionSettings(direction="noise").directions
        ('noise',)
    """

    n_prompts: int = 16
    """Pairs of prompts per task, each a clean and a corrupted one."""
    corruption: Corruption = "labels"
    """What differs in the corrupted prompt: the labels of its demonstrations are shuffled, its
    demonstrations are those of another task, or it asks another query."""
    direction: Direction = "both"
    """Write clean activations into corrupted prompts (denoise), the reverse (noise), or both."""
    sites: tuple[str, ...] = ("resid_pre",)
    """What is patched: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z (single heads)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.corruption, CORRUPTIONS, "corruption")
        check_direction(self.direction)
        self._set("sites", check_sites(self.sites))
        if self.corruption == "labels" and self.n_shots < 2:
            raise InputError(
                f"n_shots is {self.n_shots}; expected at least 2 (labels are shuffled), "
                "or corruption='task' or 'query'"
            )

    @property
    def directions(self) -> tuple[str, ...]:
        """One of `DIRECTIONS`, or both."""
        return check_direction(self.direction)


@dataclass(frozen=True, kw_only=True)
class ComponentSettings(PositionSettings):
    """Settings of `patch_positions` for the outputs of attention, MLPs and single heads.

    Example:
        >>> ComponentSettings().sites
        ('attn_out', 'mlp_out', 'z')
    """

    sites: tuple[str, ...] = ("attn_out", "mlp_out", "z")
    """What is patched: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z (single heads)."""


@dataclass(frozen=True)
class PromptPair:
    """The demonstrations and queries of a clean and a corrupted prompt.

    Attributes:
        shown: the demonstrations of the clean prompt.
        corrupted: the demonstrations of the corrupted prompt.
        query: the query of the clean prompt.
        substitutes: queries that the corrupted prompt may ask instead; empty if both ask the same.
        instruction: the line before the demonstrations of both; empty for none.
    """

    shown: tuple[Pair, ...]
    corrupted: tuple[Pair, ...]
    query: Pair
    substitutes: tuple[Pair, ...] = ()
    instruction: str = ""


@dataclass(frozen=True)
class PositionPlan:
    """Tasks with their pairs of prompts drawn.

    Attributes:
        tasks: the tasks of the clean prompts.
        others: per task, the task of the corrupted demonstrations; None for other corruptions.
        pairs: per task, its pairs of prompts.
        settings: the settings that they were drawn with.
        roles, head_roles: which tokens are patched, as in `patch_positions`.
    """

    tasks: Sequence[Task]
    others: Sequence[Task | None]
    pairs: Sequence[Sequence[PromptPair]]
    settings: PositionSettings
    roles: str | Roles | None = None
    head_roles: str | Roles | None = None


def plan_positions(
    tasks: Tasks,
    settings: PositionSettings,
    other_task: Task | str | None = None,
    roles: str | Roles | None = None,
    head_roles: str | Roles | None = None,
) -> PositionPlan:
    """Load the tasks and draw their pairs of prompts; no model is needed.

    Raises:
        InputError: if a task does not exist, has too few pairs or only one label to shuffle, or
            `other_task` is given with a corruption that does not use it.

    Example:
        >>> plan = plan_positions("antonyms", PositionSettings(n_prompts=4, corruption="task"))
        >>> len(plan.pairs[0]), plan.others[0].name
        (4, 'country_capital')
    """
    loaded = load_tasks(tasks)
    by_task = settings.corruption == "task"
    if other_task is not None and not by_task:
        raise InputError(
            f"other_task goes with corruption='task', not {settings.corruption!r}; expected one "
            "of them changed"
        )
    others = [load_other(task, other_task) if by_task else None for task in loaded]
    pairs = [draw_pairs(task, of, settings) for task, of in zip(loaded, others, strict=True)]
    return PositionPlan(loaded, others, pairs, settings, roles, head_roles)


def draw_pairs(task: Task, other: Task | None, s: PositionSettings) -> list[PromptPair]:
    """Draw the pairs of clean and corrupted prompts of a task.

    Args:
        task: the task of the clean prompts.
        other: the task of the corrupted demonstrations, if `s.corruption` is `"task"`.
        s: the number of pairs of prompts, and how they differ.

    Raises:
        InputError: if a task has too few pairs or only one label to shuffle.
    """
    n_dummies = N_SUBSTITUTES if s.corruption == "query" else 1
    test = s.draw(task, n_dummies=n_dummies).test
    line = header(task, s.instruction)
    if s.corruption == "query":
        return [
            PromptPair(e.demonstrations, e.demonstrations, e.query, e.dummies, line) for e in test
        ]
    if s.corruption == "task":
        assert other is not None
        theirs = [e.demonstrations for e in s.draw(other).test]
    else:
        rng = generator(s.seed, task.name, "contrast", s.corruption)
        theirs = [shuffle_labels(e.demonstrations, rng) for e in test]
    return [
        PromptPair(e.demonstrations, shown, e.query, instruction=line)
        for e, shown in zip(test, theirs, strict=True)
    ]


def check_direction(direction: str) -> tuple[str, ...]:
    """The directions that a `Direction` stands for.

    Raises:
        InputError: if it is unknown.
    """
    choose(direction, get_args(Direction), "direction")
    return DIRECTIONS if direction == "both" else (direction,)


def check_sites(sites: str | Sequence[str]) -> tuple[str, ...]:
    """A tuple of one site or several.

    Raises:
        InputError: if one does not exist (the nearest is named) or comes twice, or there is none.
    """
    several = (sites,) if isinstance(sites, str) else tuple(sites)
    for name in several:
        choose(name, SITES, "site")
    if not several or len(set(several)) != len(several):
        raise InputError(
            f"sites {list(several)}; expected at least one of {', '.join(SITES)}, each once"
        )
    return several
