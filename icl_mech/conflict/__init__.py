"""Conflicting tasks: a prompt shows one task, a vector of another is injected. Which wins?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.conflict.drawing import ConflictUndefined, draw_conflict
    from icl_mech.conflict.pairs import as_pairs, paper_pairs
    from icl_mech.conflict.result import CONDITIONS, ConflictingTasks
    from icl_mech.conflict.run import conflicting_tasks

# Loaded on first use: `python -m icl_mech.conflict --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "drawing": ["ConflictUndefined", "draw_conflict"],
        "pairs": ["as_pairs", "paper_pairs"],
        "result": ["CONDITIONS", "ConflictingTasks"],
        "run": ["conflicting_tasks"],
    },
)
__all__ = [
    "CONDITIONS",
    "ConflictUndefined",
    "ConflictingTasks",
    "as_pairs",
    "conflicting_tasks",
    "draw_conflict",
    "paper_pairs",
]
