"""What changes to the residual stream, or to heads, cost each basis."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.figures.panels import frame, rows_of_panels
from icl_mech.figures.style import COLOURS, GRID, title

if TYPE_CHECKING:
    from icl_mech.stats import Estimates
    from icl_mech.synthetic import Emergence

_AT = {
    "last_y": "the y token of the last demonstration",
    "all_y": "the y tokens of all demonstrations",
    "query": "the query",
}
_HOW = {
    "replace": "replaced by the target basis' mean",
    "shift": "shifted from its own basis' mean to the target's",
}
#: Ratios beyond this have its colour.
_MOST = 8.0


def perturbation_figure(result: Emergence, layer: int) -> go.Figure:
    """Source x target matrices before and after training; below, own and other bases by layer.

    Args:
        result: what to draw.
        layer: of the matrices.
    """
    last = result.steps[-1]
    figure = rows_of_panels(
        [340, 280],
        110,
        [f"before training, block {layer}", f"after {last:,} updates, block {layer}",
         f"by layer, after {last:,} updates"],
        cols=2,
        specs=[[{}, {}], [{"colspan": 2}, None]],
        horizontal_spacing=0.12,
    )  # fmt: skip
    for col, step in enumerate((result.steps[0], last), 1):
        figure.add_trace(_matrix(result.perturbation(step, layer)), row=1, col=col)
    for trace in _by_layer(result):
        figure.add_trace(trace, row=2, col=1)
    figure.add_hline(y=1, line={"color": COLOURS["baseline"], "dash": "dot", "width": 1.5},
                     row=2, col=1)  # fmt: skip
    figure.update_yaxes(autorange="reversed", title_text="the sequences' basis", dtick=1, row=1)
    figure.update_xaxes(title_text="injected basis", dtick=1, row=1)
    figure.update_xaxes(title_text="block", dtick=1, gridcolor=GRID, row=2)
    figure.update_yaxes(title_text="error / clean error (log)", type="log", gridcolor=GRID, row=2)
    p = result.provenance
    title(
        figure,
        f"Is the basis read where it is written? {escape(p['model'])}",
        f"error of the query's prediction over the clean error when the residual stream at "
        f"{_AT[p['at']]} is {_HOW[p['how']]}; 1: no change",
    )
    frame(figure, below=45, legend=True)
    figure.update_layout(coloraxis=_scale("error /<br>clean error", 340, figure.layout.height))
    return figure


def basis_heads_figure(result: Emergence) -> go.Figure:
    """A map of layer x head per basis."""
    effects = result.head_effects()
    n_bases, n_layers, _ = effects.value.shape
    figure = rows_of_panels(
        [46 * n_layers + 40],
        0,
        [f"basis {k}" for k in range(n_bases)],
        cols=n_bases,
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    for k in range(n_bases):
        figure.add_trace(_map(effects, k), row=1, col=k + 1)
    figure.update_xaxes(title_text="head", dtick=1)
    figure.update_yaxes(title_text="layer", dtick=1, autorange="reversed", col=1)
    p = result.provenance
    title(
        figure,
        f"Which heads does each basis need? {escape(p['model'])}",
        "error of the query's prediction with one head replaced by its mean at every position, "
        "over the clean error; 1: not needed",
    )
    height = figure.layout.height
    frame(figure, below=10)
    figure.update_layout(coloraxis=_scale("error /<br>clean error", height, figure.layout.height))
    return figure


def _matrix(found: Estimates) -> go.Heatmap:
    return _cells(found, "source: basis %{y}, injected: basis %{x}")


def _map(found: Estimates, basis: int) -> go.Heatmap:
    one = replace(found, value=found.value[basis], low=found.low[basis], high=found.high[basis])
    return _cells(one, f"basis {basis}, head %{{y}}.%{{x}}")


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
    """Colours of ratios, white where nothing changes; the bar as high as the first row."""
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


def _by_layer(result: Emergence) -> list[go.Scatter]:
    """The worst of the own bases and the best of the others, at every layer."""
    layers = list(range(result.data.sizes["layer"]))
    tables = [result.perturbation(layer=layer).value for layer in layers]
    own = np.eye(len(tables[0]), dtype=bool)
    lines = {
        "own basis injected (largest of all)": ([t[own].max() for t in tables], "regular"),
        "another basis injected (smallest of all)": ([t[~own].min() for t in tables], "other_task"),
    }
    return [
        go.Scatter(
            x=layers,
            y=y,
            mode="lines+markers",
            name=name,
            line={"color": COLOURS[colour], "width": 2},
            hovertemplate="block %{x}: %{y:.2f}" + f"<extra>{name}</extra>",
        )
        for name, (y, colour) in lines.items()
    ]
