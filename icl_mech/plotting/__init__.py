"""What all figures share: style, marks, panels, pages, export. It knows `Estimate` and no room."""

from icl_mech.plotting.export import check_target, export
from icl_mech.plotting.style import COLOURS, FONT, GRID

__all__ = ["COLOURS", "FONT", "GRID", "check_target", "export"]
