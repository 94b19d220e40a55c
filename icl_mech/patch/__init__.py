"""Activation patching: where does a task vector work, and where does a prompt hold the task?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.patch.contrasts import CORRUPTIONS, Contrast
    from icl_mech.patch.position_result import DIRECTIONS, PositionScan
    from icl_mech.patch.positions import patch_contrasts, patch_positions
    from icl_mech.patch.result import REFERENCES, VECTORS, LayerScan
    from icl_mech.patch.scan import ControlLayers, layer_scan
    from icl_mech.patch.scores import SCORES, Scored, score

# Loaded on first use: `python -m icl_mech.patch --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "contrasts": ["CORRUPTIONS", "Contrast"],
        "position_result": ["DIRECTIONS", "PositionScan"],
        "positions": ["patch_contrasts", "patch_positions"],
        "scan": ["ControlLayers", "layer_scan"],
        "result": ["REFERENCES", "VECTORS", "LayerScan"],
        "scores": ["SCORES", "Scored", "score"],
    },
)
__all__ = [
    "CORRUPTIONS",
    "DIRECTIONS",
    "REFERENCES",
    "SCORES",
    "VECTORS",
    "Contrast",
    "ControlLayers",
    "LayerScan",
    "PositionScan",
    "Scored",
    "layer_scan",
    "patch_contrasts",
    "patch_positions",
    "score",
]
