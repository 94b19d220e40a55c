"""Can the task be read from the residual stream, and does that predict the answers?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.decodability.accuracy import td_predicts_accuracy
    from icl_mech.decodability.decode import task_decodability
    from icl_mech.decodability.mean_patching import mean_patching
    from icl_mech.decodability.measure import knn_credit
    from icl_mech.decodability.patching_result import MeanPatching
    from icl_mech.decodability.result import TaskDecodability

# Loaded on first use: `python -m icl_mech.decodability --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "accuracy": ["td_predicts_accuracy"],
        "decode": ["task_decodability"],
        "mean_patching": ["mean_patching"],
        "measure": ["knn_credit"],
        "patching_result": ["MeanPatching"],
        "result": ["TaskDecodability"],
    },
)
__all__ = [
    "MeanPatching",
    "TaskDecodability",
    "knn_credit",
    "mean_patching",
    "task_decodability",
    "td_predicts_accuracy",
]
