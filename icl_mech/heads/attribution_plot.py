"""The figure of a head attribution: maps of layers x heads, a panel per task and method."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import IN_BLOCK, INK, state, subject

if TYPE_CHECKING:
    from icl_mech.heads import HeadAttribution

N_NAMED = 5
NAMES = {
    "aie": "AIE, exact",
    "attribution": "attribution patching (gradient)",
    "direct": "direct logit attribution",
}
UNITS = {
    "aie": "change in<br>probability",
    "attribution": "change in<br>probability",
    "direct": "logits",
}
_GAP = 62


def head_figure(result: HeadAttribution) -> go.Figure:
    """Mean effect of every head; one colour scale per method, the largest heads named."""
    tasks, methods = result.tasks, result.methods
    n_heads = result.data.sizes["head"]
    n_named = min(N_NAMED, n_heads * result.data.sizes["layer"])
    panels = [(task, method) for task in tasks for method in methods]
    height = max(110, min(30 * n_heads, 420))
    titles = [f"{escape(task)}: {NAMES[method]}" for task, method in panels]
    figure = rows_of_panels([height] * len(panels), _GAP, titles)
    for row, (task, method) in enumerate(panels, 1):
        figure.add_trace(_map(result, task, method), row=row, col=1)
        figure.data[-1].coloraxis = f"coloraxis{methods.index(method) + 1}"
        for layer, head, _ in result.top(task, n_named, method, absolute=True):
            figure.add_annotation(
                x=layer,
                y=head,
                text=f"{layer}.{head}",
                showarrow=False,
                font={"size": 11, "color": INK},
                bgcolor="rgba(255,255,255,0.7)",
                borderpad=1,
                row=row,
                col=1,
            )
    for index, method in enumerate(methods):
        figure.update_layout({f"coloraxis{index + 1}": _scale(result, method, index, figure)})
    figure.update_yaxes(title_text="head", dtick=1 if n_heads <= 16 else None)
    figure.update_xaxes(dtick=1 if result.data.sizes["layer"] <= 24 else None)
    figure.update_xaxes(title_text=IN_BLOCK, row=len(panels), col=1)
    p = result.provenance
    state(
        figure,
        result,
        f"Which heads write the task? {subject(tasks)}, {escape(p['model'])}",
        f"mean over {result.data.sizes['prompt']} prompts with shuffled labels, "
        f"{p['n_shots']} shots, seed {p['seed']}; the {n_named} largest by "
        "absolute value are named (layer.head)",
    )
    frame(figure)
    return figure


def _map(result: HeadAttribution, task: str, method: str) -> go.Heatmap:
    """One panel: mean effects; on hover each head's interval, attention and induction score."""
    layers = result.data["layer"].values.tolist()
    heads = result.data["head"].values.tolist()
    estimates = result.estimates(task, method)
    looks = result.data["attention"].sel(task=task).mean("prompt")
    shares = looks.transpose("layer", "head", "role").values
    inductions = result.data["induction"].transpose("layer", "head").values
    roles = looks["role"].values

    def about(layer: int, head: int) -> list:
        e, attention = estimates[layer][head], shares[layer, head]
        looks_at = str(roles[attention.argmax()])
        induction = float(inductions[layer, head])
        return [e.low, e.high, e.n, looks_at, float(attention.max()), induction]

    unit = UNITS[method].replace("<br>", " ")
    return go.Heatmap(
        z=[[estimates[layer][head].value for layer in layers] for head in heads],
        x=layers,
        y=heads,
        xgap=1,
        ygap=1,
        customdata=[[about(layer, head) for layer in layers] for head in heads],
        hovertemplate=(
            f"<b>head %{{x}}.%{{y}}</b><br>{unit} %{{z:+.4f}} [%{{customdata[0]:+.4f}}, "
            "%{customdata[1]:+.4f}], n = %{customdata[2]} prompts<br>"
            "attends most to: %{customdata[3]} (%{customdata[4]:.0%})<br>"
            "induction score %{customdata[5]:.2f}<extra></extra>"
        ),
        name="",
    )


def _scale(result: HeadAttribution, method: str, index: int, figure: go.Figure) -> dict:
    """A method's colour scale, symmetric about 0, with its bar beside the method's first panel."""
    largest = float(abs(result.data[method].mean("prompt")).max()) or 1.0
    low, high = figure.layout[f"yaxis{index + 1 if index else ''}"].domain
    return {
        "cmin": -largest,
        "cmax": largest,
        "colorscale": "RdBu_r",
        "colorbar": {
            "title": {"text": UNITS[method], "font": {"size": 12}},
            "thickness": 12,
            "len": high - low,
            "y": (low + high) / 2,
            "yanchor": "middle",
            "nticks": 5,
            "tickfont": {"size": 11},
        },
    }
