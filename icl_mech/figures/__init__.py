"""Results -> plotly figures, and figures -> files. No statistics here: results bring their own."""

from icl_mech.figures.decodability import decodability_figure
from icl_mech.figures.export import check_target, export
from icl_mech.figures.heads import head_figure
from icl_mech.figures.layer_scan import layer_scan_figure
from icl_mech.figures.mean_patching import mean_patching_figure
from icl_mech.figures.style import COLOURS, FONT, GRID

__all__ = [
    "COLOURS",
    "FONT",
    "GRID",
    "check_target",
    "decodability_figure",
    "export",
    "head_figure",
    "layer_scan_figure",
    "mean_patching_figure",
]
