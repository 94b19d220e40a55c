"""Activation patching: at which layer does a task vector work?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.patch.result import REFERENCES, VECTORS, LayerScan
    from icl_mech.patch.scan import layer_scan
    from icl_mech.patch.scores import SCORES

# Loaded on first use: `python -m icl_mech.patch --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "scan": ["layer_scan"],
        "result": ["REFERENCES", "VECTORS", "LayerScan"],
        "scores": ["SCORES"],
    },
)
__all__ = ["REFERENCES", "SCORES", "VECTORS", "LayerScan", "layer_scan"]
