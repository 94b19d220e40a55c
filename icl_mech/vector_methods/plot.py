"""The page of a comparison: maps of methods by tasks, curves over layers, accuracy against cost."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.plotting.marks import band, interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, INK, short, state, subject
from icl_mech.vector_methods.plan import NAMED

if TYPE_CHECKING:
    from icl_mech.vector_methods.result import VectorComparison

_ROW, _CURVES, _COST, _GAP = 26, 250, 330, 125
#: Colours of methods. Theta and function vectors have the same colours as in other figures; no
#: method has the colour of few-shot prompts.
_COLOURS = {
    "theta": COLOURS["theta"],
    "theta_mean": "#56B4E9",
    "layer_mean": "#999999",
    "instruction": "#CC79A7",
    "function_vector": COLOURS["function"],
    "state_vector": "#B8860B",
    "state_vector_momentum": "#E69F00",
    "icv": "#4B3FA0",
    "learned": "#D55E00",
    "ltv": "#882255",
    "i2cl": "#2E8B8B",
}
_LEAST_COST = 1.0


def comparison_figure(result: VectorComparison) -> go.Figure:
    """Two maps (accuracy, KL), curves over layers of two tasks a row, and accuracy against cost."""
    tasks, methods = result.tasks, result.methods
    n_curves = -(-len(tasks) // 2)
    names = short(tasks)
    map_height = _ROW * (len(methods) + 3) + 20
    most, above = _darkest(result)
    titles = [
        "first tokens right, zero-shot (white 0, darkest 1)",
        f"KL to the few-shot prompt, nats (white 0, darkest {most:.1f}{' and more' * above})",
        *names,
        *([""] * (2 * n_curves - len(tasks))),
        "what it brings, against what it takes: all tasks",
    ]
    heights = [map_height, *([_CURVES] * n_curves), _COST]
    figure = rows_of_panels(
        heights,
        _GAP,
        titles,
        cols=2,
        horizontal_spacing=0.1,
        specs=[
            [{}, {}],
            *[[{}, {} if 2 * row + 1 < len(tasks) else None] for row in range(n_curves)],
            [{"colspan": 2}, None],
        ],
    )
    _maps(figure, result, names, most)
    for i, task in enumerate(tasks):
        _curves(figure, result, task, 2 + i // 2, 1 + i % 2, i == 0)
    _cost(figure, result, 2 + n_curves)
    p = result.provenance
    state(
        figure,
        result,
        f"Task vectors of {len(methods)} methods: {subject(tasks)}, {escape(p['model'])}",
        f"{result.data.sizes['prompt']} test prompts per task, {p['n_shots']} shots, seed "
        f"{p['seed']}; layers, factors and heads chosen on dev prompts, trained on others; "
        "intervals 95 %",
    )
    frame(figure, legend=True, l=170)
    return figure


def _darkest(result: VectorComparison) -> tuple[float, bool]:
    """The KL (nats) of the darkest cells, and whether cells above it look the same.

    It is the largest of zero-shot prompts, or of all cells if these are nearer: one method that
    breaks the model does not fade all others.
    """
    found = [result.distance(task, m).value for task in result.tasks for m in result.of_task(task)]
    zero = max(result.reference_distance(task, "zero_shot").value for task in result.tasks)
    return max(1e-6, min(zero, max(found, default=zero))), max(found, default=zero) > zero


def _maps(figure: go.Figure, result: VectorComparison, names: list[str], most: float) -> None:
    """Maps of methods by tasks; the last rows are prompts without a vector.

    Args:
        figure, result, names: of the page.
        most: the KL of the darkest cells.
    """
    tasks, rows = result.tasks, [*result.methods]
    labels = [escape(NAMED[m]) for m in rows] + ["few-shot", "shuffled labels", "zero-shot"]
    references = ("few_shot", "shuffled", "zero_shot")
    accuracy, kl, about = [], [], []
    for method in rows:
        cells = [
            (result.accuracy(t, method), result.distance(t, method))
            if method in result.of_task(t)
            else None
            for t in tasks
        ]
        accuracy.append([np.nan if c is None else c[0].value for c in cells])
        kl.append([np.nan if c is None else c[1].value for c in cells])
        about.append(
            [
                "left out" if c is None else _about(result, t, method)
                for t, c in zip(tasks, cells, strict=True)
            ]
        )
    for reference in references:
        accuracy.append([result.reference(t, reference).value for t in tasks])
        kl.append([result.reference_distance(t, reference).value for t in tasks])
        about.append([f"{result.reference(t, reference)}, no vector" for t in tasks])
    for column, (values, scale, top) in enumerate(
        ((accuracy, "Greens", 1.0), (kl, "Oranges", most)), 1
    ):
        figure.add_trace(
            go.Heatmap(
                z=values,
                x=names,
                y=labels,
                zmin=0,
                zmax=top,
                colorscale=scale,
                showscale=False,
                xgap=2,
                ygap=2,
                text=[["" if v != v else f"{v:.2f}" for v in row] for row in values],
                texttemplate="%{text}" if len(tasks) <= 9 else None,
                textfont={"size": 11},
                customdata=about,
                hovertemplate="<b>%{y}, %{x}</b><br>%{customdata}<extra></extra>",
                name="",
            ),
            row=1,
            col=column,
        )
        figure.update_yaxes(
            autorange="reversed", showgrid=False, showticklabels=column == 1, row=1, col=column
        )
        figure.update_xaxes(showgrid=False, tickangle=-35, row=1, col=column)


def _about(result: VectorComparison, task: str, method: str) -> str:
    """The hover text of a cell."""
    works = result.works_at(task, method)
    of = result.of(task).sel({"method": method})
    return "<br>".join(
        [
            f"block {result.layer(task, method)}, works at {len(works)} of the layers tried",
            f"first token: {result.accuracy(task, method)}",
            f"whole answer: {result.accuracy(task, method, 'accepted')}",
            f"in prompts with shuffled labels: {result.accuracy(task, method, setting='shuffled')}",
            f"KL to few-shot: {result.distance(task, method)} nats",
            f"norm {float(of['norm']):.3g}, stream {float(of['stream_norm']):.3g}",
            f"passes: {float(of['forward']):.0f} forward, {float(of['backward']):.0f} backward",
        ]
    )


def _curves(
    figure: go.Figure,
    result: VectorComparison,
    task: str,
    row: int,
    col: int,
    first: bool,
) -> None:
    """First-token accuracy of one task by layer; a method with a single place is one mark."""
    levels = {"few-shot": ("few_shot", "regular"), "zero-shot": ("zero_shot", "baseline")}
    n_layers = result.data.sizes["layer"]
    for name, (reference, colour) in levels.items():
        level = result.reference(task, reference)
        figure.add_trace(
            go.Scatter(
                x=[0, n_layers - 1],
                y=[level.value] * 2,
                mode="lines",
                line={"color": COLOURS[colour], "dash": "dash", "width": 1.5},
                name=name,
                legendgroup=name,
                showlegend=first,
                hovertemplate=f"{level}<extra>{name}</extra>",
            ),
            row=row,
            col=col,
        )
    for method in result.of_task(task):
        curve, name = result.curve(task, method), NAMED[method]
        layers, found = list(curve), list(curve.values())
        if method == "theta":
            figure.add_trace(band(layers, found, _COLOURS[method], name), row=row, col=col)
        figure.add_trace(
            go.Scatter(
                x=layers,
                y=[e.value for e in found],
                mode="markers" if len(layers) == 1 else "lines+markers",
                line={"color": _COLOURS[method], "width": 2},
                marker={"size": 10 if len(layers) == 1 else 5, "symbol": _symbol(len(layers))},
                name=name,
                legendgroup=name,
                showlegend=first,
                customdata=[str(e) for e in found],
                hovertemplate=f"layer %{{x}}: %{{customdata}}<extra>{escape(name)}</extra>",
            ),
            row=row,
            col=col,
        )
    figure.update_yaxes(range=[-0.04, 1.06], gridcolor=GRID, row=row, col=col)
    if col == 1:
        figure.update_yaxes(
            title={"text": "first tokens right", "font": {"size": 12}}, row=row, col=1
        )
    figure.update_xaxes(range=[-0.6, n_layers - 0.4], gridcolor=GRID, row=row, col=col)
    figure.update_xaxes(title={"text": AFTER_BLOCK, "font": {"size": 12}}, row=row, col=col)


def _symbol(n_layers: int) -> str:
    return "diamond" if n_layers == 1 else "circle"


def _cost(figure: go.Figure, result: VectorComparison, row: int) -> None:
    """Accuracy over all tasks against the passes that forming a vector took."""
    for method in result.methods:
        of = result.data.sel({"method": method})
        passes = float((of["forward"] + of["backward"]).mean())
        found = result.pooled(method)
        name = NAMED[method]
        figure.add_trace(
            go.Scatter(
                x=[max(_LEAST_COST, passes)],
                y=[found.value],
                error_y=interval_whiskers([found], color=INK),
                mode="markers",
                marker={"size": 12, "color": _COLOURS[method], "symbol": "diamond"},
                name=name,
                legendgroup=name,
                showlegend=False,
                hovertemplate=(
                    f"{found}<br>{passes:.0f} passes of a prompt, "
                    f"{float(of['seconds'].mean()):.0f} s<extra>{escape(name)}</extra>"
                ),
            ),
            row=row,
            col=1,
        )
    figure.update_yaxes(range=[-0.04, 1.06], title_text="first tokens", gridcolor=GRID, row=row)
    figure.update_xaxes(
        type="log",
        title_text="passes of one prompt to form the vector, forward and backward",
        gridcolor=GRID,
        row=row,
        col=1,
    )
