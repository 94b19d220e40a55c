"""The settings of the main table's layer scans, and the prompts of every task."""

from dataclasses import dataclass

from icl_mech.errors import InputError
from icl_mech.patch.scan_plan import ControlLayers, ScanPlan, ScanSettings, plan_scan
from icl_mech.tasks import Tasks, list_tasks

#: The name of the table's last row, over tasks.
MEAN = "mean"


@dataclass(frozen=True, kw_only=True)
class TableSettings(ScanSettings):
    """Settings of `task_table`.

    Example:
        >>> TableSettings().control_layers
        'chosen'
    """

    n_prompts: int = 100
    """Test prompts per task."""
    control_layers: ControlLayers = "chosen"
    """Inject the controls where θ is best on dev prompts, or after every block (takes twice as
    long). The table shows them at the chosen layer only."""


def plan_table(tasks: Tasks | None, settings: TableSettings) -> ScanPlan:
    """Load the tasks (all built-in ones by default) and draw their prompts; no model is needed.

    Raises:
        InputError: where a task does not exist, has too few pairs, or has the name of the last row.

    Example:
        >>> len(plan_table(None, TableSettings(n_prompts=4)).tasks)
        18
    """
    plan = plan_scan(list_tasks() if tasks is None else tasks, settings)
    if any(of.task.name == MEAN for of in plan.tasks):
        raise InputError(f"a task is named {MEAN!r}, as the last row is; expected another name")
    return plan
