"""icl-mech: where does in-context learning form its task vector, and where is it decoded?"""

from importlib.metadata import version
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.decodability import (
        MeanPatching,
        TaskDecodability,
        mean_patching,
        task_decodability,
        td_predicts_accuracy,
    )
    from icl_mech.errors import IclMechError, InputError, ModelError
    from icl_mech.heads import HeadAttribution, head_attribution
    from icl_mech.model import Edit, HookedModel, load_model
    from icl_mech.patch import LayerScan, layer_scan
    from icl_mech.results import Result, load_result
    from icl_mech.tasks import Task, list_tasks, load_task

__version__ = version("icl-mech")

# Loaded on first use: `import icl_mech` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decodability": [
            "MeanPatching",
            "TaskDecodability",
            "mean_patching",
            "task_decodability",
            "td_predicts_accuracy",
        ],
        "errors": ["IclMechError", "InputError", "ModelError"],
        "heads": ["HeadAttribution", "head_attribution"],
        "model": ["Edit", "HookedModel", "load_model"],
        "patch": ["LayerScan", "layer_scan"],
        "results": ["Result", "load_result"],
        "tasks": ["Task", "list_tasks", "load_task"],
    },
)
__all__ = [
    "Edit",
    "HeadAttribution",
    "HookedModel",
    "IclMechError",
    "InputError",
    "LayerScan",
    "MeanPatching",
    "ModelError",
    "Result",
    "Task",
    "TaskDecodability",
    "head_attribution",
    "layer_scan",
    "list_tasks",
    "load_model",
    "load_result",
    "load_task",
    "mean_patching",
    "task_decodability",
    "td_predicts_accuracy",
]
