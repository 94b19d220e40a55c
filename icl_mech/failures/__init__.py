"""What one task vector cannot do, which errors it makes, and whether several vectors repair it."""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.failures.errors import KINDS
    from icl_mech.failures.repair import REPAIRS
    from icl_mech.failures.result import TaskVectorFailures
    from icl_mech.failures.run import task_vector_failures

# Loaded on first use: `python -m icl_mech.failures --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "errors": ["KINDS"],
        "repair": ["REPAIRS"],
        "result": ["TaskVectorFailures"],
        "run": ["task_vector_failures"],
    },
)
__all__ = ["KINDS", "REPAIRS", "TaskVectorFailures", "task_vector_failures"]
