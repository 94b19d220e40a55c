"""The figure of a layer scan."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from icl_mech.errors import choose
from icl_mech.plotting.marks import band
from icl_mech.plotting.panels import frame
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, INK, MENU, as_text, state, subject

if TYPE_CHECKING:
    from icl_mech.patch import LayerScan
    from icl_mech.stats import Estimate

NAMES = {
    "theta": "task vector θ (hypothesis)",
    "regular": "few-shot prompt (regular)",
    "baseline": "zero-shot prompt (baseline)",
    "prior": "most frequent answer (label prior)",
    "shuffled": "θ from shuffled labels",
    "other_task": "θ of another task",
    "random": "random vector, same norm",
}
SCORE_TITLES = {
    "first_token": "accuracy (first token)",
    "two_way_prefix": "accuracy (two-way prefix)",
}


def layer_scan_figure(scan: LayerScan, score: str = "first_token") -> go.Figure:
    """Accuracy against layer; with several tasks, a heat map above and a menu of tasks."""
    choose(score, SCORE_TITLES, "score")
    many = len(scan.tasks) > 1
    if many:
        # In pixels: a row of the heat map has the same height for 2 tasks and for 18.
        map_height, gap, curve_height = 30 * len(scan.tasks), 110, 380
        total = map_height + gap + curve_height
        figure = make_subplots(
            rows=2,
            cols=1,
            row_heights=[map_height, curve_height],
            vertical_spacing=gap / total,
        )
        figure.add_trace(_heat_map(scan, score), row=1, col=1)
        bottom, top = figure.layout.yaxis.domain
        length = max(top - bottom, 150 / total)
        figure.data[0].colorbar.update(y=top, yanchor="top", len=length)
        figure.update_layout(height=total)
    else:
        figure = make_subplots(rows=1, cols=1)
        figure.update_layout(height=400)
    row = 2 if many else 1
    first = len(figure.data)
    per_task = []
    for task in scan.tasks:
        traces = _curves(scan, task, score)
        for trace in traces:
            trace.visible = task == scan.tasks[0]
            figure.add_trace(trace, row=row, col=1)
        per_task.append(len(traces))
    if many:
        top = figure.layout.yaxis2.domain[1]
        figure.update_layout(updatemenus=[_task_menu(scan, first, per_task, top)])
    _style(figure, scan, score, row)
    return figure


def _curves(scan: LayerScan, task: str, score: str) -> list[go.Scatter]:
    """The traces of the lower panel for one task."""
    layers = scan.data["layer"].values.tolist()
    theta = scan.curve(task, score=score)
    best = scan.best_layer(task, score)
    interval = band(layers, theta, COLOURS["theta"], "interval")
    interval.update(name="95 % interval", showlegend=True)
    traces = [interval]
    references = {
        "regular": (scan.reference(task, "regular", score), "dash"),
        "baseline": (scan.reference(task, "baseline", score), "dash"),
        "prior": (scan.prior(task), "dot"),
    }
    # Where two lines almost meet, one label goes above and one below.
    close = abs(references["regular"][0].value - references["baseline"][0].value) < 0.08
    for name, (estimate, dash) in references.items():
        label = "middle right"
        if close:
            label = "bottom right" if name == "baseline" else "top right"
        constant = [estimate] * len(layers)
        traces.append(_line(name, layers, constant, width=2.0, dash=dash, label=label))
    for name in ("shuffled", "other_task", "random"):
        where = scan.layers(task, name)
        curve = scan.curve(task, name, score)
        traces.append(_line(name, where, curve, width=1.2, markers=where != layers))
    traces.append(_line("theta", layers, theta, width=3.5, markers=True))
    traces.append(
        go.Scatter(
            x=[best],
            y=[None if best is None else theta[best].value],
            mode="markers",
            marker={
                "size": 17,
                "color": "rgba(0,0,0,0)",
                "line": {"width": 2.5, "color": INK},
            },
            name="no layer works on dev" if best is None else f"layer {best}, chosen on dev",
            hovertemplate=f"layer {best}: best on the dev prompts<extra></extra>",
        )
    )
    return traces


def _line(
    name: str,
    layers: list[int],
    estimates: list[Estimate],
    width: float,
    dash: str = "solid",
    markers: bool = False,
    label: str = "middle right",
) -> go.Scatter:
    value = estimates[0].value
    constant = name in ("regular", "baseline", "prior")
    labelled = name in ("regular", "baseline")  # the prior often has the value of the baseline
    return go.Scatter(
        x=layers,
        y=[e.value for e in estimates],
        mode="lines+markers" if markers else "lines+text" if labelled else "lines",
        text=[*[""] * (len(layers) - 1), f"\u00a0{name} {value:.2f}"] if labelled else None,
        textposition=label,
        cliponaxis=False,  # labels stand beside the panel
        textfont={"color": as_text(COLOURS[name])} if labelled else None,
        line={"color": COLOURS[name], "width": width, "dash": dash},
        marker={"size": 7},
        name=f"{NAMES[name]}: {value:.2f}" if constant else NAMES[name],
        customdata=[[e.low, e.high, e.n] for e in estimates],
        hovertemplate=(
            f"<b>{NAMES[name]}</b><br>after block %{{x}}: %{{y:.2f}} "
            "[%{customdata[0]:.2f}, %{customdata[1]:.2f}]<br>"
            "n = %{customdata[2]} prompts<extra></extra>"
        ),
    )


def _heat_map(scan: LayerScan, score: str) -> go.Heatmap:
    layers = scan.data["layer"].values.tolist()
    curves = [scan.curve(task, score=score) for task in scan.tasks]
    return go.Heatmap(
        z=[[e.value for e in curve] for curve in curves],
        x=layers,
        y=[escape(task) for task in scan.tasks],
        zmin=0,
        zmax=1,
        colorscale="Blues",
        xgap=1,
        ygap=1,
        customdata=[[[e.low, e.high, e.n] for e in curve] for curve in curves],
        hovertemplate=(
            "<b>%{y}</b><br>after block %{x}: %{z:.2f} "
            "[%{customdata[0]:.2f}, %{customdata[1]:.2f}]<br>"
            "n = %{customdata[2]} prompts<extra></extra>"
        ),
        colorbar={
            "title": {"text": "accuracy<br>with θ"},
            "thickness": 14,
            "len": 0.42,
            "y": 1,
            "yanchor": "top",
        },
        name="",
    )


def _task_menu(scan: LayerScan, first: int, per_task: list[int], top: float) -> dict[str, Any]:
    """A menu, above the lower panel, that shows one task's curves at a time."""
    buttons = []
    for i, task in enumerate(scan.tasks):
        shown = [True] * first + [j == i for j, n in enumerate(per_task) for _ in range(n)]
        buttons.append({"label": escape(task), "method": "restyle", "args": [{"visible": shown}]})
    return {
        "buttons": buttons,
        "direction": "down",
        "showactive": True,
        "x": 0,
        "xanchor": "left",
        "y": top + 0.015,
        "yanchor": "bottom",
        **MENU,
    }


def _style(figure: go.Figure, scan: LayerScan, score: str, row: int) -> None:
    p = scan.provenance
    many = len(scan.tasks) > 1
    subtitle = (
        f"{scan.data.sizes['prompt']} test prompts per task, {p['n_shots']} shots, "
        f"seed {p['seed']}; layer chosen on {scan.data.sizes['dev_prompt']} dev prompts; "
        "band: 95 % interval"
    )
    state(
        figure,
        scan,
        f"At which layer does the task vector work? {subject(scan.tasks)}, {escape(p['model'])}",
        subtitle,
        scan.finding(score),
    )
    frame(figure, legend=True, r=110)
    axis = f"{AFTER_BLOCK}; here the vector is written"
    n_layers = scan.data.sizes["layer"]
    figure.update_xaxes(
        gridcolor=GRID,
        zeroline=False,
        range=[-0.5, n_layers - 0.5],
        dtick=1 if n_layers <= 24 else None,
    )
    figure.update_xaxes(title_text=axis, row=row, col=1)
    figure.update_yaxes(
        range=[-0.03, 1.05],
        gridcolor=GRID,
        zeroline=False,
        title_text=SCORE_TITLES[score],
        row=row,
        col=1,
    )
    if many:
        # "category": plotly would read a task named 1990 as a number, or 2023-01-01 as a date.
        figure.update_yaxes(type="category", autorange="reversed", row=1, col=1)
