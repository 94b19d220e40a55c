"""The figure of function vectors: accuracy against layer, beside theta and controls."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.marks import band
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, state, subject

if TYPE_CHECKING:
    from icl_mech.heads import FunctionVectors

_HEIGHT, _GAP = 300, 90
#: Name, colour, dash and mark of each vector. Theta and the function vector have thick lines,
#: filled marks and bands; the controls have thin lines and open marks.
_NAMES = {
    "theta": ("θ, replaces", "theta", "solid", "circle"),
    "function": ("function vector, added", "function", "solid", "diamond"),
    "function_unscaled": ("function vector, added times 1", "function_unscaled", "dash", "square"),
    "layer_mean": ("layer mean, added", "prior", "solid", "x-thin-open"),
    "random_heads": ("random heads, added", "heads", "dot", "triangle-up-open"),
    "random": ("random vector, added", "random", "dot", "cross-thin-open"),
}
_WITH_BANDS = ("theta", "function")
_CONTROLS = ("layer_mean", "random_heads", "random")
_SETTINGS = {"zero_shot": "zero-shot prompts", "shuffled": "prompts with shuffled labels"}


def function_vector_figure(result: FunctionVectors) -> go.Figure:
    """One row per task: zero-shot prompts on the left, shuffled labels on the right."""
    tasks = result.tasks
    titles = [
        f"{escape(t)}: {name}, vectors times {result.scale(t):g}"
        for t in tasks
        for name in _SETTINGS.values()
    ]
    figure = rows_of_panels(
        [_HEIGHT] * len(tasks), _GAP, titles, 2, shared_yaxes=True, horizontal_spacing=0.04
    )
    layers = result.data["layer"].values.tolist()
    for row, task in enumerate(tasks, 1):
        for column, setting in enumerate(_SETTINGS, 1):
            _panel(figure, result, task, setting, layers, row, column)
    figure.update_yaxes(range=[-0.03, 1.08], gridcolor=GRID)
    figure.update_yaxes(title_text="accuracy", col=1)
    figure.update_xaxes(gridcolor=GRID, dtick=2 if len(layers) <= 24 else None)
    figure.update_xaxes(title_text=AFTER_BLOCK, row=len(tasks))
    p = result.provenance
    state(
        figure,
        result,
        f"Function vector against θ: {subject(tasks)}, {escape(p['model'])}",
        f"{_vectors(result)}; {result.data.sizes['prompt']} prompts, {p['n_shots']} shots, "
        f"seed {p['seed']}; bands: 95 % intervals",
    )
    frame(figure, legend=True)
    return figure


def _panel(
    figure: go.Figure,
    result: FunctionVectors,
    task: str,
    setting: str,
    layers: list[int],
    row: int,
    column: int,
) -> None:
    first = row == 1 and column == 1
    levels = {
        "few-shot, right labels": (result.few_shot(task), "regular"),
        "no vector": (result.plain(task, setting), "baseline"),
    }
    for name, (estimate, colour) in levels.items():
        figure.add_trace(
            go.Scatter(
                x=[layers[0], layers[-1]],
                y=[estimate.value] * 2,
                mode="lines",
                line={"color": COLOURS[colour], "dash": "dash", "width": 1.5},
                name=name,
                legendgroup=name,
                showlegend=first,
                hovertemplate=f"{estimate}<extra>{name}</extra>",
            ),
            row=row,
            col=column,
        )
    for vector in result.vectors:
        name, colour, dash, symbol = _NAMES[vector]
        curve = result.curve(task, vector, setting)
        if vector in _WITH_BANDS:
            figure.add_trace(band(layers, curve, COLOURS[colour], name), row=row, col=column)
        figure.add_trace(
            go.Scatter(
                x=layers,
                y=[e.value for e in curve],
                mode="lines+markers",
                name=name,
                legendgroup=name,
                showlegend=first,
                line={
                    "color": COLOURS[colour],
                    "dash": dash,
                    "width": 1.3 if vector in _CONTROLS else 2.5,
                },
                marker={
                    "symbol": symbol,
                    "size": 7,
                    "line": {"width": 1.3, "color": COLOURS[colour]},
                },
                customdata=[[e.low, e.high] for e in curve],
                hovertemplate=(
                    "layer %{x}: %{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]"
                    f"<extra>{name}</extra>"
                ),
            ),
            row=row,
            col=column,
        )


def _vectors(result: FunctionVectors) -> str:
    """The part of the subtitle on heads and scale; both are named if one task is shown."""
    if len(result.tasks) > 1:
        if not isinstance(result.provenance["heads"], str):
            heads = ", ".join(f"{layer}.{head}" for layer, head in result.provenance["heads"])
            return f"heads {heads} (given), scale chosen on dev prompts"
        return "heads and scale chosen on dev prompts"
    heads = str(result.data["heads"].values[0])
    scale = f"times {float(result.data['scale'].values[0]):g}"
    given = not isinstance(result.provenance["heads"], str)
    return f"heads {heads} {'(given) ' if given else ''}{scale}, chosen on dev prompts"
