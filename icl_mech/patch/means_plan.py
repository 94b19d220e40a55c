"""What mean-activation patching runs on, drawn and checked before anything runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from icl_mech.errors import InputError
from icl_mech.prompts import Matched, Pool, draw_matched, load_pool
from icl_mech.tasks import Task, Tasks

#: How a mean is written.
Mode = Literal["replace", "add"]
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True)
class PatchPlan:
    """Tasks with their prompts drawn.

    Attributes:
        pool: the tasks.
        dev: episodes over which means are taken: every task's, the null task's last.
        test: episodes that are patched; their queries are others.
    """

    pool: Pool
    dev: Matched
    test: Matched

    @property
    def means(self) -> list[Task]:
        """Whose means are written: the tasks', then the null task's where there is one."""
        return [*self.pool.tasks, *([self.pool.null] if self.pool.null else [])]


def plan_patching(
    tasks: Tasks, n_prompts: int, n_mean: int, n_shots: int, seed: int, modes: Sequence[str]
) -> PatchPlan:
    """Load the tasks and draw prompts.

    Raises:
        InputError: where a task, count or mode cannot work, or the tasks ask different inputs.
    """
    pool = load_pool(tasks)
    if not pool.shared:
        raise InputError(
            f"tasks {pool.names} ask different inputs; expected a family, where the injected "
            "task has an answer to the same query"
        )
    if not modes or len(set(modes)) != len(modes) or not set(modes) <= set(MODES):
        raise InputError(f"modes {list(modes)}; expected 'replace', 'add', or both")
    everyone = [*pool.tasks, *([pool.null] if pool.null else [])]
    dev, test = draw_matched(everyone, {"n_mean": n_mean, "n_prompts": n_prompts}, n_shots, seed)
    return PatchPlan(pool, dev, test)
