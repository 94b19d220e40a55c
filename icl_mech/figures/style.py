"""What all figures share: colours, fonts, margins, titles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

if TYPE_CHECKING:
    from icl_mech.stats import Estimate

#: One colour per meaning, the same in every figure (Okabe and Ito's colour-blind safe set).
COLOURS = {
    "theta": "#0072B2",
    "regular": "#009E73",
    "baseline": "#555555",
    "prior": "#999999",
    "shuffled": "#E69F00",
    "other_task": "#CC79A7",
    "random": "#D55E00",
    "function": "#56B4E9",
    "encoding": "#882255",
    "transfer": "#0072B2",
    "lens": "#117733",
    "heads": "#999933",
    "answer": "#009E73",
    "query": "#E69F00",
}
FONT = {"family": "Helvetica, Arial, DejaVu Sans, sans-serif", "size": 14, "color": "#222222"}
GRID = "#E8E8E8"
MARGIN = {"l": 70, "r": 30, "t": 95, "b": 70}


def title(figure: go.Figure, text: str, subtitle: str) -> None:
    """Set the look that all figures share. Both texts must be escaped already."""
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        title={
            "text": text,
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": "#666666"}},
            "x": 0.01,
            "xanchor": "left",
            # Pixels from the top, however tall the figure is.
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 16},
        },
        margin=MARGIN,
        hovermode="closest",
    )


def band(x: Sequence[int], estimates: Sequence[Estimate], colour: str, group: str) -> go.Scatter:
    """The intervals round a curve, in one of `COLOURS`; `group` is the curve's legend group."""
    red, green, blue = (int(COLOURS[colour][i : i + 2], 16) for i in (1, 3, 5))
    return go.Scatter(
        x=[*x, *x[::-1]],
        y=[*(e.high for e in estimates), *(e.low for e in estimates[::-1])],
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=group,
        showlegend=False,
    )
