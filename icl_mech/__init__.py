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
    from icl_mech.heads import (
        FunctionVectors,
        HeadAblation,
        HeadAttribution,
        function_vectors,
        head_ablation,
        head_attribution,
    )
    from icl_mech.lens import LogitLens, VectorLens, logit_lens, vector_lens
    from icl_mech.localize import TaskMap, localize
    from icl_mech.model import Edit, HookedModel, load_model
    from icl_mech.patch import LayerScan, PositionScan, layer_scan, patch_contrasts, patch_positions
    from icl_mech.results import Result, load_result
    from icl_mech.synthetic import Emergence, measure_emergence
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
        "heads": [
            "FunctionVectors",
            "HeadAblation",
            "HeadAttribution",
            "function_vectors",
            "head_ablation",
            "head_attribution",
        ],
        "localize": ["TaskMap", "localize"],
        "lens": ["LogitLens", "VectorLens", "logit_lens", "vector_lens"],
        "model": ["Edit", "HookedModel", "load_model"],
        "patch": [
            "LayerScan",
            "PositionScan",
            "layer_scan",
            "patch_contrasts",
            "patch_positions",
        ],
        "results": ["Result", "load_result"],
        "synthetic": ["Emergence", "measure_emergence"],
        "tasks": ["Task", "list_tasks", "load_task"],
    },
)
__all__ = [
    "Edit",
    "Emergence",
    "FunctionVectors",
    "HeadAblation",
    "HeadAttribution",
    "HookedModel",
    "IclMechError",
    "InputError",
    "LayerScan",
    "LogitLens",
    "MeanPatching",
    "ModelError",
    "PositionScan",
    "Result",
    "Task",
    "TaskDecodability",
    "TaskMap",
    "VectorLens",
    "function_vectors",
    "head_ablation",
    "head_attribution",
    "layer_scan",
    "list_tasks",
    "load_model",
    "load_result",
    "load_task",
    "localize",
    "logit_lens",
    "mean_patching",
    "measure_emergence",
    "patch_contrasts",
    "patch_positions",
    "task_decodability",
    "td_predicts_accuracy",
    "vector_lens",
]
