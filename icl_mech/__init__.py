"""icl-mech: where does in-context learning form its task vector, and where is it decoded?"""

from icl_mech.interrupts import end_quietly

end_quietly()

from typing import TYPE_CHECKING, Any  # noqa: E402

import lazy_loader  # noqa: E402

if TYPE_CHECKING:
    from icl_mech.answers import AnswerScores, answer_scores
    from icl_mech.conflict import ConflictingTasks, conflicting_tasks
    from icl_mech.decodability import (
        MeanPatching,
        TaskDecodability,
        mean_patching,
        task_decodability,
        td_predicts_accuracy,
    )
    from icl_mech.errors import IclMechError, InputError, ModelError
    from icl_mech.failures import TaskVectorFailures, task_vector_failures
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
    from icl_mech.synthetic import (
        Emergence,
        EmergenceOverSeeds,
        emergence_over_seeds,
        measure_emergence,
    )
    from icl_mech.table import TaskTable, task_table
    from icl_mech.tasks import Task, list_failures, list_tasks, load_failure, load_task, lookup_task
    from icl_mech.variability import VectorVariability, vector_variability

# Loaded on first use: `import icl_mech` does not wait for torch.
_lazy, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answers": ["AnswerScores", "answer_scores"],
        "conflict": ["ConflictingTasks", "conflicting_tasks"],
        "decodability": [
            "MeanPatching",
            "TaskDecodability",
            "mean_patching",
            "task_decodability",
            "td_predicts_accuracy",
        ],
        "errors": ["IclMechError", "InputError", "ModelError"],
        "failures": ["TaskVectorFailures", "task_vector_failures"],
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
        "table": ["TaskTable", "task_table"],
        "variability": ["VectorVariability", "vector_variability"],
        "tasks": [
            "Task",
            "list_failures",
            "list_tasks",
            "load_failure",
            "load_task",
            "lookup_task",
        ],
        "synthetic": [
            "Emergence",
            "EmergenceOverSeeds",
            "emergence_over_seeds",
            "measure_emergence",
        ],
    },
)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("icl-mech")
    return _lazy(name)


__all__ = [
    "AnswerScores",
    "ConflictingTasks",
    "Edit",
    "Emergence",
    "EmergenceOverSeeds",
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
    "TaskTable",
    "TaskVectorFailures",
    "VectorLens",
    "VectorVariability",
    "answer_scores",
    "conflicting_tasks",
    "emergence_over_seeds",
    "function_vectors",
    "head_ablation",
    "head_attribution",
    "layer_scan",
    "list_failures",
    "list_tasks",
    "load_failure",
    "load_model",
    "load_result",
    "load_task",
    "localize",
    "logit_lens",
    "lookup_task",
    "mean_patching",
    "measure_emergence",
    "patch_contrasts",
    "patch_positions",
    "task_decodability",
    "task_table",
    "task_vector_failures",
    "td_predicts_accuracy",
    "vector_lens",
    "vector_variability",
]
