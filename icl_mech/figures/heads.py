"""The figure of a head attribution: a map of layers x heads for every task."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from icl_mech.figures.style import MARGIN, title

if TYPE_CHECKING:
    from icl_mech.heads import HeadAttribution

N_NAMED = 5


def head_figure(result: HeadAttribution) -> go.Figure:
    """AIE of every head, one map per task on one colour scale; the largest are named."""
    tasks = result.tasks
    layers = result.data["layer"].values.tolist()
    heads = result.data["head"].values.tolist()
    height, gap = 30 * len(heads) + 30, 75
    total = height * len(tasks) + gap * (len(tasks) - 1)
    figure = make_subplots(
        rows=len(tasks),
        cols=1,
        subplot_titles=[escape(task) for task in tasks] if len(tasks) > 1 else None,
        vertical_spacing=gap / total if len(tasks) > 1 else 0,
    )
    largest = float(abs(result.data["effect"].mean("prompt")).max()) or 1.0
    for row, task in enumerate(tasks, 1):
        estimates = result.estimates(task)
        figure.add_trace(
            go.Heatmap(
                z=[[estimates[layer][head].value for layer in layers] for head in heads],
                x=layers,
                y=heads,
                zmin=-largest,
                zmax=largest,
                colorscale="RdBu_r",
                xgap=1,
                ygap=1,
                showscale=row == 1,
                colorbar={"title": {"text": "AIE (change in<br>probability)"}, "thickness": 14},
                customdata=[
                    [[e.low, e.high, e.n] for e in (estimates[layer][head] for layer in layers)]
                    for head in heads
                ],
                hovertemplate=(
                    "<b>head %{x}.%{y}</b><br>AIE %{z:+.4f} [%{customdata[0]:+.4f}, "
                    "%{customdata[1]:+.4f}]<br>n = %{customdata[2]} prompts<extra></extra>"
                ),
                name="",
            ),
            row=row,
            col=1,
        )
        for layer, head, _ in result.top(task, N_NAMED):
            figure.add_annotation(
                x=layer,
                y=head,
                text=f"{layer}.{head}",
                showarrow=False,
                font={"size": 12, "color": "#222222"},
                bgcolor="rgba(255,255,255,0.7)",
                row=row,
                col=1,
            )
    figure.update_yaxes(title_text="head", dtick=1 if len(heads) <= 16 else None)
    figure.update_xaxes(dtick=1 if len(layers) <= 24 else None)
    figure.update_xaxes(title_text="layer", row=len(tasks), col=1)
    p = result.provenance
    what = escape(tasks[0]) if len(tasks) == 1 else f"{len(tasks)} tasks"
    title(
        figure,
        f"Which heads write the task? {what}, {escape(p['model'])}",
        f"average indirect effect over {result.data.sizes['prompt']} prompts with shuffled labels, "
        f"{p['n_shots']} shots, seed {p['seed']}; the {N_NAMED} largest are named (layer.head)",
    )
    figure.update_layout(height=total + MARGIN["t"] + MARGIN["b"])
    return figure
