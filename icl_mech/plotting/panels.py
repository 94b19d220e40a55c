"""Figures of several panels in rows, with the height of every row in pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from icl_mech.plotting.style import MARGIN, NARROWEST, n_lines, wrapped

#: A legend at the very bottom, however tall the figure is.
LEGEND_BELOW = {
    "orientation": "h",
    "yref": "container",
    "y": 0.01,
    "yanchor": "bottom",
    "xref": "container",
    "x": 0.01,
    "xanchor": "left",
}
_TAG = re.compile(r"<[^>]*>")
#: The font size of panels' titles, and the height of one of their lines, in pixels.
_TITLE, _LINE = 15, 19


def rows_of_panels(
    heights: Sequence[int], gap: int, titles: Sequence[str] | None, cols: int = 1, **options: Any
) -> go.Figure:
    """A figure of empty panels; `frame` adds the margins around them.

    Args:
        heights: of every row, in pixels.
        gap: between two rows, in pixels.
        titles: of every panel, row by row, escaped.
        cols: panels in a row.
        options: for plotly's `make_subplots`.
    """
    total = sum(heights) + gap * (len(heights) - 1)
    figure = make_subplots(
        rows=len(heights),
        cols=cols,
        row_heights=list(heights),
        vertical_spacing=gap / total if len(heights) > 1 else 0,
        subplot_titles=titles,
        **options,
    )
    figure.update_layout(height=total)
    return figure


def frame(figure: go.Figure, below: int = 0, legend: bool = False, **margin: int) -> None:
    """Add margins to the height of the panels, with room for titles and for the legend.

    Args:
        figure: from `rows_of_panels`, its title set.
        below: pixels under the last row, in addition to the usual margin and the legend.
        legend: put the legend below everything, with room for as many lines as the narrowest page
            needs.
        margin: margins that replace the usual ones (`l`, `r`, `b`).
    """
    sides = {**MARGIN, **margin}
    across = NARROWEST - sides["l"] - sides["r"]
    sides["t"] = figure.layout.margin.t + _wrap_titles(figure, across)
    sides["b"] += below
    if legend:
        sides["b"] += 20 + 20 * legend_lines(figure)
        figure.update_layout(legend=LEGEND_BELOW)
    figure.update_layout(height=figure.layout.height + sides["t"] + sides["b"], margin=sides)


def legend_lines(figure: go.Figure) -> int:
    """How many lines a legend below takes on the narrowest page.

    All columns of a legend are as wide as its widest entry.
    """
    names = {trace.name for trace in figure.data if trace.name and trace.showlegend is not False}
    if not names:
        return 0
    widest = max(len(_TAG.sub("", name)) for name in names)
    columns = max(1, int((NARROWEST - 30) / (45 + 7.5 * widest)))
    return -(-len(names) // columns)


def _wrap_titles(figure: go.Figure, across: int) -> int:
    """Break the panels' titles into lines that fit, and return the height of the first row's."""
    domains = [axis.domain for axis in figure.select_xaxes() if axis.domain]
    top, room = 0.0, 0
    for note in figure.layout.annotations:
        if note.xref != "paper" or note.yref != "paper" or note.yanchor != "bottom":
            continue
        widths = [b - a for a, b in domains if abs((a + b) / 2 - note.x) < 1e-6]
        note.text = wrapped(note.text, max(widths, default=1.0) * across, _TITLE)
        note.font.size = _TITLE
        lines = 6 + _LINE * n_lines(note.text)
        top, room = max((top, room), (note.y, lines))
    return room
