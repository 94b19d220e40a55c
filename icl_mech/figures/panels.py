"""Figures of several panels in rows, each row as many pixels high as it was asked to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from icl_mech.figures.style import MARGIN

#: A legend in one line at the very bottom, however tall the figure is.
LEGEND_BELOW = {"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom"}


def rows_of_panels(
    heights: Sequence[int], gap: int, titles: Sequence[str] | None, cols: int = 1, **options: Any
) -> go.Figure:
    """A figure of empty panels; `frame` adds what stands round them.

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
    """Add margins to the height of the panels, and room for the first row's titles.

    Args:
        figure: from `rows_of_panels`, its title set.
        below: pixels under the last row, besides the margin of all figures.
        legend: one line at the bottom; needs room `below`.
        margin: sides other than those of all figures (`l`, `r`, `t`, `b`).
    """
    sides = {**MARGIN, "t": MARGIN["t"] + 25, **margin}
    sides["b"] += below
    figure.update_layout(height=figure.layout.height + sides["t"] + sides["b"], margin=sides)
    if legend:
        figure.update_layout(legend=LEGEND_BELOW)
