"""Can the task be read from the residual stream, and does that predict the answers?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.decodability.decode import task_decodability
    from icl_mech.decodability.result import TaskDecodability

# Loaded on first use: `python -m icl_mech.decodability --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "decode": ["task_decodability"],
        "result": ["TaskDecodability"],
    },
)
__all__ = [
    "TaskDecodability",
    "task_decodability",
]
