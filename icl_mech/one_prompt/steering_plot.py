"""The figure of answers' probabilities with a vector, by layer and scale."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from icl_mech.one_prompt.lens_plot import add_menu
from icl_mech.one_prompt.tokens import LONG, markup
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, shades, state

if TYPE_CHECKING:
    from icl_mech.one_prompt.steering import Steering

#: Pixels of a panel, of the gap between two panels, and of the titles above the first.
HEIGHT, GAP, TITLES = 270, 85, 25


def steering_figure(found: Steering) -> go.Figure:
    """A panel for each answer, two in a row."""
    cols = min(2, len(found.answers))
    n_rows = -(-len(found.answers) // cols)
    titles = [f"p({markup(answer, 30)})" for answer in found.answers]
    figure = rows_of_panels([HEIGHT] * n_rows, GAP, titles, cols, horizontal_spacing=0.1)
    for i in range(len(found.answers)):
        place = {"row": i // cols + 1, "col": i % cols + 1}
        for trace in _lines(found, i):
            figure.add_trace(trace, **place)
    top = 1.1 * max(float(max(trace.y)) for trace in figure.data)
    _axes(figure, found, n_rows, cols)
    figure.update_yaxes(range=[-0.03 * top, top])
    p = found.provenance
    whole = "; an answer of several tokens: all of them" * bool((found.data["n_tokens"] > 1).any())
    vector = markup(p["vector"], 40, spaces=False)
    how = "over the stream" if p["mode"] == "replace" else "added to the stream"
    state(
        figure,
        found,
        f"What does a vector make the model say? {escape(p['model'])}",
        f"after the prompt {markup(p['prompt'][-LONG:])}; the vector {vector} x scale, written "
        f"{how} at its last token; dashed: without the vector{whole}",
    )
    frame(figure, below=20, legend=True)
    add_menu(figure, _buttons(figure, top), above=TITLES, more=TITLES)
    return figure


def _lines(found: Steering, i: int) -> list[go.Scatter]:
    """The unsteered value, and a line for every scale (for one layer, a line over scales)."""
    p = np.exp(found.data["logprob"].values[i])
    without = float(np.exp(found.data["unsteered"].values[i]))
    by_scale = len(found.layers) == 1
    x = found.scales if by_scale else found.layers
    ends = [min(x), max(x)] if len(x) > 1 else [x[0] - 0.5, x[0] + 0.5]
    lines = [
        go.Scatter(
            x=ends,
            y=[without] * 2,
            mode="lines",
            line={"color": COLOURS["baseline"], "dash": "dash", "width": 2},
            name="without the vector",
            legendgroup="without",
            showlegend=i == 0,
            hovertemplate="without the vector: %{y:.3g}<extra></extra>",
        )
    ]
    if by_scale:
        name, where = f"after block {found.layers[0]}", "scale %{x}"
        return [*lines, _line(x, p[0], name, COLOURS["theta"], where, i == 0)]
    colours = shades(len(found.scales))
    for j, scale in enumerate(found.scales):
        lines.append(_line(x, p[:, j], f"scale {scale:g}", colours[j], "after block %{x}", i == 0))
    return lines


def _line(
    x: list[Any], y: np.ndarray, name: str, colour: str, where: str, shown: bool
) -> go.Scatter:
    return go.Scatter(
        x=x,
        y=y,
        mode="lines+markers",
        line={"color": colour, "width": 2.5},
        marker={"size": 6},
        name=name,
        legendgroup=name,
        showlegend=shown,
        hovertemplate=f"<b>{name}</b>, {where}: %{{y:.3g}}<extra></extra>",
    )


def _axes(figure: go.Figure, found: Steering, n_rows: int, cols: int) -> None:
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title={"text": "probability", "standoff": 4}, col=1)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    by_scale = len(found.layers) == 1
    name = "scale: factor on the vector" if by_scale else AFTER_BLOCK
    if not by_scale:
        figure.update_xaxes(
            range=[min(found.layers) - 0.5, max(found.layers) + 0.5],
            dtick=1 if max(found.layers) <= 12 else 2 if max(found.layers) <= 30 else 4,
        )
    for col in range(1, cols + 1):
        lowest = n_rows if (n_rows - 1) * cols + col <= len(found.answers) else n_rows - 1
        figure.update_xaxes(title={"text": name, "font": {"size": 12}}, row=lowest, col=col)


def _buttons(figure: go.Figure, top: float) -> list[dict[str, Any]]:
    """Menu entries for linear and logarithmic probabilities."""
    axes = [axis.plotly_name for axis in figure.select_yaxes()]
    floor = min(
        (float(np.log10(y)) for trace in figure.data for y in trace.y if y > 0), default=-3.0
    )
    low = max(-12.0, np.floor(floor))
    linear = {
        f"{axis}.{k}": v for axis in axes for k, v in _scale("linear", -0.03 * top, top).items()
    }
    logs = {
        f"{axis}.{k}": v
        for axis in axes
        for k, v in _scale("log", low, float(np.log10(top))).items()
    }
    return [
        {"label": "probability, linear", "method": "relayout", "args": [linear]},
        {"label": "probability, logarithmic", "method": "relayout", "args": [logs]},
    ]


def _scale(kind: str, low: float, high: float) -> dict[str, Any]:
    return {"type": kind, "range": [low, high]}
