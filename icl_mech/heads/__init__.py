"""Which attention heads carry the task to the last token?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.heads.ablation import head_ablation
    from icl_mech.heads.ablation_result import HeadAblation
    from icl_mech.heads.attribution import head_attribution, indirect_effects
    from icl_mech.heads.function_vectors import function_vectors
    from icl_mech.heads.result import METHODS, HeadAttribution
    from icl_mech.heads.vector_result import FunctionVectors

# Loaded on first use: `python -m icl_mech.heads --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "ablation": ["head_ablation"],
        "ablation_result": ["HeadAblation"],
        "attribution": ["head_attribution", "indirect_effects"],
        "function_vectors": ["function_vectors"],
        "result": ["METHODS", "HeadAttribution"],
        "vector_result": ["FunctionVectors"],
    },
)
__all__ = [
    "METHODS",
    "FunctionVectors",
    "HeadAblation",
    "HeadAttribution",
    "function_vectors",
    "head_ablation",
    "head_attribution",
    "indirect_effects",
]
