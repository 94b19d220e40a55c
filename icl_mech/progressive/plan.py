"""The settings of `progressive_generation`, and the episodes of every task."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.errors import InputError
from icl_mech.prompts import Episode, whole_numbers
from icl_mech.tasks import Pair, Task, Tasks, load_tasks
from icl_mech.vector_methods.plan import NAMED, MethodSettings, training_pairs

#: Replacements of dropped demonstrations beside vectors: nothing, or the separator's states.
NOTHING, STATES = "nothing", "states"
#: Replacements in words.
KEPT = {NOTHING: "nothing in place", STATES: "the separator's states", **NAMED}


@dataclass(frozen=True, kw_only=True)
class ProgressiveSettings(MethodSettings):
    """Settings of `progressive_generation`.

    Example:
        >>> ProgressiveSettings(first_tokens=(2, 0)).first_tokens
        (0, 2)
    """

    n_prompts: int = 20
    """Test prompts per task."""
    first_tokens: tuple[int, ...] = (0, 1, 2, 3)
    """How many answer tokens are generated after the demonstrations, before these are dropped."""
    n_blocks: int | None = None
    """Of how many first blocks the separator's attention outputs are kept; by default the number
    that is best on dev prompts."""
    n_positions: int = 5
    """At how many answer tokens the divergence from the few-shot prompt is measured."""
    timed_tokens: int = 16
    """Tokens per prompt that are generated to measure the speed."""
    n_rounds: int = 3
    """How often the speed is measured, all of --first-tokens in turn."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_blocks", "n_positions", "timed_tokens", "n_rounds")
        counts = tuple(sorted(whole_numbers("first_tokens", self.first_tokens)))
        if not counts or counts[0] < 0 or len(set(counts)) < len(counts):
            raise InputError(
                f"first_tokens {list(counts)}; expected at least one, each once, 0 or more"
            )
        self._set("first_tokens", counts)


@dataclass(frozen=True)
class ProgressiveTask:
    """One task with its episodes drawn; see `vector_methods.plan.CompareTask`."""

    task: Task
    test: tuple[Episode, ...]
    dev: tuple[Episode, ...]
    pairs: tuple[Pair, ...]
    n_queries: int


@dataclass(frozen=True)
class ProgressivePlan:
    """All tasks, and the settings that they were drawn with."""

    tasks: Sequence[ProgressiveTask]
    settings: ProgressiveSettings


def plan_progressive(tasks: Tasks, settings: ProgressiveSettings) -> ProgressivePlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few pairs.

    Example:
        >>> len(plan_progressive("present_past", ProgressiveSettings(n_prompts=4)).tasks[0].test)
        4
    """
    s, drawn = settings, []
    for task in load_tasks(tasks):
        split = s.split(task)
        pairs = training_pairs(task, (*split.dev, *split.test), s.needed)
        drawn.append(ProgressiveTask(task, split.test, split.dev, pairs, split.n_test_queries))
    return ProgressivePlan(drawn, s)
