"""What would the model say if it stopped after this layer, and what do its task vectors say?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.lens.naming import NAMING
    from icl_mech.lens.reading import logit_lens
    from icl_mech.lens.result import LogitLens
    from icl_mech.lens.targets import TARGETS
    from icl_mech.lens.vector_result import VectorLens
    from icl_mech.lens.vectors import vector_lens

# Loaded on first use: `python -m icl_mech.lens --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "naming": ["NAMING"],
        "reading": ["logit_lens"],
        "result": ["LogitLens"],
        "targets": ["TARGETS"],
        "vector_result": ["VectorLens"],
        "vectors": ["vector_lens"],
    },
)
__all__ = ["NAMING", "TARGETS", "LogitLens", "VectorLens", "logit_lens", "vector_lens"]
