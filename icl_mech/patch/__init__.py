"""Activation patching: at which layer does a task vector work?"""

from icl_mech.patch.layer_scan import layer_scan
from icl_mech.patch.result import REFERENCES, VECTORS, LayerScan
from icl_mech.patch.scores import SCORES

__all__ = ["REFERENCES", "SCORES", "VECTORS", "LayerScan", "layer_scan"]
