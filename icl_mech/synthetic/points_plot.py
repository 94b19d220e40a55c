"""A slider over checkpoints: sequences in the plane, coloured by basis."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from icl_mech.plotting.style import GRID, MARGIN, MENU, title
from icl_mech.synthetic.plot import TOKENS, basis_colour

if TYPE_CHECKING:
    from icl_mech.synthetic import Emergence

_AXES = {"pca": "principal component", "tsne": "t-SNE", "umap": "UMAP"}
_FRAME_MS = 350
_NOW = {"mode": "immediate", "frame": {"duration": 0, "redraw": True}}


def points_figure(result: Emergence, layer: int) -> go.Figure:
    """A frame for every checkpoint, each with its own ranges, as the stream grows in training.

    Args:
        result: with `points`.
        layer: of the residual stream.
    """
    p = result.provenance
    frames = [
        go.Frame(data=_marks(result, i, layer), name=str(step), layout=_axes(result, i, layer))
        for i, step in enumerate(result.steps)
    ]
    last = len(frames) - 1
    figure = go.Figure(data=frames[last].data, frames=frames)
    title(
        figure,
        f"Where do sequences of each {result.kind} lie? {escape(p['model'])}",
        f"residual stream after block {layer} at {TOKENS[p['token']]}; "
        f"{p['n_per_basis']} held-out sequences per {result.kind}",
    )
    name = _AXES[p["projection"]]
    look = {"gridcolor": GRID, "zeroline": False}
    figure.update_xaxes(title_text=f"{name} 1", **look)
    figure.update_yaxes(title_text=f"{name} 2", **look)
    figure.update_layout(frames[last].layout)
    figure.update_layout(
        height=680,
        margin={**MARGIN, "t": figure.layout.margin.t + 20, "b": 170},
        sliders=[_slider(result.steps, last)],
        updatemenus=[_buttons()],
        legend={"itemsizing": "constant"},
    )
    return figure


def _marks(result: Emergence, i: int, layer: int) -> list[go.Scatter]:
    points = result.data["points"].isel(step=i, layer=layer)
    return [
        go.Scatter(
            x=points.isel(basis=k, axis=0).values,
            y=points.isel(basis=k, axis=1).values,
            mode="markers",
            name=result.names[k],
            marker={"size": 7, "opacity": 0.75, "color": basis_colour(k)},
            hovertemplate=f"{result.names[k]}, sequence %{{pointNumber}}<extra></extra>",
        )
        for k in range(result.data.sizes["basis"])
    ]


def _axes(result: Emergence, i: int, layer: int) -> dict[str, Any]:
    """The layout of a frame: ranges with a margin, and a note of its TD."""
    points = result.data["points"].isel(step=i, layer=layer)
    ranges = {}
    for axis, name in enumerate(("xaxis", "yaxis")):
        values = points.isel(axis=axis).values
        margin = 0.06 * float(np.ptp(values)) or 1.0
        ranges[name] = {"range": [float(values.min()) - margin, float(values.max()) + margin]}
    step = result.steps[i]
    text = f"after {step:,} updates: TD {result.td(step, layer)}"
    note = {
        "text": text, "x": 0, "xref": "paper", "xanchor": "left", "y": 1.0, "yref": "paper",
        "yanchor": "bottom", "showarrow": False, "font": {"size": 14},
    }  # fmt: skip
    return {**ranges, "annotations": [note]}


def _slider(steps: list[int], active: int) -> dict[str, Any]:
    return {
        "active": active,
        "pad": {"t": 60},
        "currentvalue": {"prefix": "updates: ", "font": {"size": 13}},
        "steps": [
            {"label": f"{s:,}", "method": "animate", "args": [[str(s)], _NOW]} for s in steps
        ],
    }


def _buttons() -> dict[str, Any]:
    play = {"frame": {"duration": _FRAME_MS, "redraw": True}, "fromcurrent": True}
    return {
        "type": "buttons",
        **MENU,
        "direction": "left",
        "x": 1,
        "xanchor": "right",
        "y": 1.02,
        "yanchor": "bottom",
        "buttons": [
            {"label": "play", "method": "animate", "args": [None, play]},
            {"label": "stop", "method": "animate", "args": [[None], _NOW]},
        ],
    }
