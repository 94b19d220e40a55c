"""The main table: zero-shot, task vector and few-shot accuracy for all tasks, on any model."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.table.files import FORMATS, write_table
    from icl_mech.table.folder import DamagedFileWarning
    from icl_mech.table.result import ACCURACIES, CONTROLS, TaskTable
    from icl_mech.table.run import task_table

# Loaded on first use: `python -m icl_mech.table --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "files": ["FORMATS", "write_table"],
        "folder": ["DamagedFileWarning"],
        "result": ["ACCURACIES", "CONTROLS", "TaskTable"],
        "run": ["task_table"],
    },
)
__all__ = [
    "ACCURACIES",
    "CONTROLS",
    "FORMATS",
    "DamagedFileWarning",
    "TaskTable",
    "task_table",
    "write_table",
]
