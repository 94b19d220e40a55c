"""Results -> plotly figures, and figures -> files. No statistics here: results bring their own."""

from icl_mech.figures.ablation import ablation_figure
from icl_mech.figures.answers import answer_figure
from icl_mech.figures.conflict import conflict_bars_figure, conflict_matrix_figure
from icl_mech.figures.decodability import decodability_figure
from icl_mech.figures.emergence import emergence_figure
from icl_mech.figures.emergence_algorithms import algorithm_figure
from icl_mech.figures.emergence_matrices import basis_heads_figure, perturbation_figure
from icl_mech.figures.emergence_points import points_figure
from icl_mech.figures.emergence_report import emergence_report
from icl_mech.figures.export import check_target, export
from icl_mech.figures.failures import failure_figure
from icl_mech.figures.function_vectors import function_vector_figure
from icl_mech.figures.heads import head_figure
from icl_mech.figures.layer_scan import layer_scan_figure
from icl_mech.figures.lens import lens_figure, prompt_figure
from icl_mech.figures.mean_patching import mean_patching_figure
from icl_mech.figures.positions import position_figure
from icl_mech.figures.report import task_map_report
from icl_mech.figures.seeds import seeds_figure
from icl_mech.figures.style import COLOURS, FONT, GRID
from icl_mech.figures.table_report import task_table_report
from icl_mech.figures.task_map import task_curves_figure, task_map_figure
from icl_mech.figures.task_table import task_table_figure
from icl_mech.figures.variability import variability_figure
from icl_mech.figures.variability_models import variability_models_figure
from icl_mech.figures.vocabulary import vector_figure

__all__ = [
    "COLOURS",
    "FONT",
    "GRID",
    "ablation_figure",
    "algorithm_figure",
    "answer_figure",
    "basis_heads_figure",
    "check_target",
    "conflict_bars_figure",
    "conflict_matrix_figure",
    "decodability_figure",
    "emergence_figure",
    "emergence_report",
    "export",
    "failure_figure",
    "function_vector_figure",
    "head_figure",
    "layer_scan_figure",
    "lens_figure",
    "mean_patching_figure",
    "perturbation_figure",
    "points_figure",
    "position_figure",
    "prompt_figure",
    "seeds_figure",
    "task_curves_figure",
    "task_map_figure",
    "task_map_report",
    "task_table_figure",
    "task_table_report",
    "variability_figure",
    "variability_models_figure",
    "vector_figure",
]
