"""How much do a task's vectors vary from one set of demonstrations to the next?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.variability.compare import compare_variability
    from icl_mech.variability.drawing import draw_sets
    from icl_mech.variability.result import VectorVariability
    from icl_mech.variability.run import vector_variability

# Loaded on first use: `python -m icl_mech.variability --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "compare": ["compare_variability"],
        "drawing": ["draw_sets"],
        "result": ["VectorVariability"],
        "run": ["vector_variability"],
    },
)
__all__ = [
    "VectorVariability",
    "compare_variability",
    "draw_sets",
    "vector_variability",
]
