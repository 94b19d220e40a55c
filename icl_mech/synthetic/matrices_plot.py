"""Figures of the error that changes to the residual stream, or to heads, cause per basis."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, IN_BLOCK, title

if TYPE_CHECKING:
    from icl_mech.stats import Estimates
    from icl_mech.synthetic import Emergence

_AT = {
    "last_y": "the last y token",
    "all_y": "every y token",
    "query": "the query",
}
_HOW = {
    "replace": "replaced by the target basis' mean",
    "shift": "shifted by the difference of two bases' means",
    "exchange": "given the target basis' line (level + slope · y) for its own",
    "random": "changed as far, in a random direction",
}
_COLOURS = ("theta", "lens", "shuffled", "random", "other_task", "baseline")
#: The ratio at which the colour scale ends; larger ratios have the same colour.
_MOST = 8.0
_MATRIX, _LINES, _GAP = 230, 280, 100


def perturbation_figure(result: Emergence) -> go.Figure:
    """A row of matrices per perturbation, before and after training; below, curves over layers."""
    last, names = result.steps[-1], result.perturbations
    titles = []
    for name in names:
        layer = result.causal_layer(which=name)
        at, how = name.split(":")
        titles += [f"{_AT[at]}: {_HOW[how]}<br>before training, block {layer}",
                   f"<br>after {last:,} updates, block {layer}"]  # fmt: skip
    titles += [
        "Error / clean error, by layer<br>another basis (least), dotted: its own (most)",
        "Does it become the target basis' prediction?<br>0: not at all, 1: entirely; mean",
    ]
    figure = rows_of_panels(
        [*[_MATRIX] * len(names), _LINES], _GAP, titles, cols=2, horizontal_spacing=0.14
    )
    for row, name in enumerate(names, 1):
        layer = result.causal_layer(which=name)
        for col, step in enumerate((result.steps[0], last), 1):
            found = result.perturbation(step, layer, name)
            cells = _cells(found, "source: basis %{y}, injected: basis %{x}")
            figure.add_trace(cells, row=row, col=col)
        figure.update_yaxes(autorange="reversed", title_text="sequences' basis", dtick=1, row=row)
        figure.update_xaxes(title_text="injected basis", dtick=1, title_standoff=4, row=row)
    _add_layers(figure, result, len(names) + 1)
    # Titles have two lines, which begin at the left edge of their panel.
    figure.update_annotations(xanchor="left", align="left")
    for note in figure.layout.annotations:
        note.x -= 0.215
    title(
        figure,
        f"Is the basis read where it is written? {escape(result.provenance['model'])}",
        "error of the query's prediction over the clean error, when the residual stream is given "
        "another basis; 1: no change",
    )
    frame(figure, below=20, legend=True)
    figure.update_layout(coloraxis=_scale("error /<br>clean error", _MATRIX, figure.layout.height))
    return figure


def _add_layers(figure: go.Figure, result: Emergence, row: int) -> None:
    """Below the matrices: every perturbation at every layer, after training."""
    layers = list(range(result.data.sizes["layer"]))
    for i, which in enumerate(result.perturbations):
        tables = [result.perturbation(layer=layer, which=which).value for layer in layers]
        taken = [result.followed(layer=layer, which=which).value[..., 1] for layer in layers]
        own = np.eye(len(tables[0]), dtype=bool)
        name = which.replace(":", ", ")
        curves = (
            (1, [t[~own].min() for t in tables], name, "solid"),
            (1, [t[own].max() for t in tables], f"{name}: own basis", "dot"),
            (2, [t[~own].mean() for t in taken], f"{name}: taken over", "solid"),
        )
        for column, y, label, dash in curves:
            curve = go.Scatter(
                x=layers,
                y=y,
                mode="lines+markers" if dash == "solid" else "lines",
                name=label,
                legendgroup=name,
                showlegend=label == name,
                line={"color": COLOURS[_COLOURS[i % len(_COLOURS)]], "width": 2, "dash": dash},
                hovertemplate="block %{x}: %{y:.2f}" + f"<extra>{label}</extra>",
            )
            figure.add_trace(curve, row=row, col=column)
    figure.update_xaxes(title_text=AFTER_BLOCK, dtick=1, gridcolor=GRID, row=row)
    figure.update_yaxes(
        title_text="ratio (log)",
        type="log",
        gridcolor=GRID,
        tickvals=[0.5, 1, 2, 5, 10, 20, 50],
        row=row,
        col=1,
    )
    figure.update_yaxes(title_text="share", gridcolor=GRID, row=row, col=2)


def basis_heads_figure(result: Emergence) -> go.Figure:
    """A map of layer x head per basis."""
    effects = result.head_effects()
    n_bases, n_layers, _ = effects.value.shape
    figure = rows_of_panels(
        [46 * n_layers + 40],
        0,
        result.names,
        cols=n_bases,
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    for k in range(n_bases):
        own = replace(effects, value=effects.value[k], low=effects.low[k], high=effects.high[k])
        figure.add_trace(_cells(own, f"{result.names[k]}, head %{{y}}.%{{x}}"), row=1, col=k + 1)
    figure.update_xaxes(title_text="head", dtick=1)
    figure.update_yaxes(title_text=IN_BLOCK, dtick=1, autorange="reversed", col=1)
    p = result.provenance
    title(
        figure,
        f"Which heads does each {result.kind} need? {escape(p['model'])}",
        "error of the query's prediction with one head replaced by its mean at every position, "
        "over the clean error; 1: not needed",
    )
    height = figure.layout.height
    frame(figure, below=10)
    figure.update_layout(coloraxis=_scale("error /<br>clean error", height, figure.layout.height))
    return figure


def _cells(found: Estimates, hover: str) -> go.Heatmap:
    return go.Heatmap(
        z=np.log2(found.value),
        text=[[f"{v:.2f}" for v in row] for row in found.value],
        texttemplate="%{text}",
        customdata=np.stack([found.low, found.high], axis=-1),
        hovertemplate=(
            f"{hover}<br>%{{text}} times the clean error "
            "[%{customdata[0]:.2f}, %{customdata[1]:.2f}]<extra></extra>"
        ),
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
        name="",
    )


def _scale(name: str, panel: int, height: int) -> dict:
    """The colour axis of ratios, white at 1; its bar is as high as the first row of panels."""
    ticks = [0.5, 1, 2, 4, 8]
    return {
        "colorscale": "RdBu_r",
        "cmid": 0,
        "cmin": -np.log2(_MOST),
        "cmax": np.log2(_MOST),
        "colorbar": {
            "title": {"text": name},
            "tickvals": [float(np.log2(t)) for t in ticks],
            "ticktext": [*map(str, ticks[:-1]), "8 or more"],
            "len": panel,
            "lenmode": "pixels",
            "y": 1,
            "yanchor": "top",
        },
    }
