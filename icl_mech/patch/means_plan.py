"""The settings of mean-activation patching, and the prompts of every task."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from icl_mech.errors import InputError
from icl_mech.layers import Mode
from icl_mech.prompts import Matched, Pool, PromptSettings, load_pool, whole_numbers
from icl_mech.tasks import Task, Tasks

MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, kw_only=True)
class MeanSettings(PromptSettings):
    """Settings of `mean_patching`.

    Example:
        >>> MeanSettings(modes=("add",)).n_mean
        50
    """

    n_prompts: int = 20
    """Prompts per task that are patched."""
    n_shots: int = 4
    """Demonstrations per prompt."""
    n_mean: int = 50
    """Other prompts per task, over which its mean activation is taken."""
    layers: tuple[int, ...] | None = None
    """Blocks after which the mean is written; by default six, evenly spaced."""
    modes: tuple[Mode, ...] = MODES
    """Write over the residual stream, add to it, or both."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_mean")
        if self.layers is not None:
            self._set("layers", tuple(whole_numbers("layers", self.layers)))
        modes = list(self.modes)
        if not modes or len(set(modes)) != len(modes) or not set(modes) <= set(MODES):
            raise InputError(f"modes {modes}; expected 'replace', 'add', or both")


@dataclass(frozen=True)
class MeanPlan:
    """Tasks with their prompts drawn.

    Attributes:
        pool: the tasks.
        sources: the tasks whose means are written: those of the pool, then its null task if any.
        dev: per source, the episodes over which its mean is taken.
        test: the episodes that are patched; their queries are not among those of `dev`.
        settings: what they were drawn with.
    """

    pool: Pool
    sources: Sequence[Task]
    dev: Matched
    test: Matched
    settings: MeanSettings


def plan_means(tasks: Tasks, settings: MeanSettings) -> MeanPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few inputs, or the tasks ask different
            inputs.

    Example:
        >>> plan = plan_means("letters", MeanSettings(n_prompts=3, n_mean=4))
        >>> plan.pool.names, len(plan.dev.episodes[0])
        (['letters/next', 'letters/previous', 'letters/upper'], 4)
    """
    pool, s = load_pool(tasks), settings
    if not pool.shared:
        raise InputError(
            f"tasks {pool.names} ask different inputs; expected a family, where the injected "
            "task has an answer to the same query"
        )
    sources = [*pool.tasks, *([pool.null] if pool.null else [])]
    sizes = {"n_mean": s.n_mean, "n_prompts": s.n_prompts}
    dev, test = s.match(sources, sizes, s.n_shots)
    return MeanPlan(pool, sources, dev, test, s)
