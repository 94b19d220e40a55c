"""The figure of a model over its training: when tasks are encoded and solved, and where."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.checkpoints.emergence import MEAN
from icl_mech.plotting.marks import band
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, PAPER, short, state, subject
from icl_mech.stats import MIN_CLUSTERS
from icl_mech.stats.onset import lead_in_words, log_position

if TYPE_CHECKING:
    from icl_mech.checkpoints import Checkpoints
    from icl_mech.stats import Estimate

_HEIGHT, _GAP = 300, 110
#: The least distance between labels of steps, as a share of the axis, by row of panels.
_APART = {1: 0.055, 2: 0.12}
_STEPS = "training step (logarithmic)"
_CURVES = {
    "td": ("TD", "encoding", "solid"),
    "regular": ("few-shot accuracy", "regular", "solid"),
    "baseline": ("zero-shot accuracy", "baseline", "dash"),
}


def checkpoints_figure(result: Checkpoints) -> go.Figure:
    """Top panel: TD and accuracy over steps, means with bands, single tasks as thin lines.

    Bottom panels: TD, and accuracy with theta injected, by layer and step.
    """
    figure = rows_of_panels(
        [_HEIGHT, _HEIGHT],
        _GAP,
        [
            "When is the task encoded, when is it solved?",
            "Task decodability (TD) by layer",
            "Accuracy with θ injected, by layer",
        ],
        cols=2,
        specs=[[{"colspan": 2}, None], [{}, {}]],
        horizontal_spacing=0.1,
    )
    x = log_position(result.steps, result.steps)
    for name in _CURVES:
        _lines(figure, result, x, name)
    _chance(figure, result)
    _onsets(figure, result)
    for column, (what, values) in enumerate(
        {"TD": result.td_by_layer, "accuracy": result.transfer}.items(), 1
    ):
        found = [values(step) for step in result.steps]
        figure.add_trace(_heat(result, x, found, what), row=2, col=column)
        figure.update_yaxes(title_text="after block l, from 0", row=2, col=column)
    for row, col in ((1, 1), (2, 1), (2, 2)):
        places, labels = _ticks(result.steps, x, _APART[row])
        figure.update_xaxes(
            tickvals=places,
            ticktext=labels,
            title_text=_STEPS,
            showgrid=row == 1,
            gridcolor=GRID,
            zeroline=False,
            row=row,
            col=col,
        )
    margin = 0.03 * (x[-1] - x[0])
    figure.update_xaxes(range=[x[0] - margin, x[-1] + margin], row=1, col=1)
    figure.update_yaxes(
        title_text="share", range=[-0.03, 1.05], gridcolor=GRID, zeroline=False, row=1, col=1
    )
    figure.update_layout(
        coloraxis={
            "colorscale": "Viridis",
            "cmin": 0,
            "cmax": 1,
            "colorbar": {
                "title": {"text": "share", "font": {"size": 13}},
                "len": _HEIGHT / (2 * _HEIGHT + _GAP),
                "y": 0,
                "yanchor": "bottom",
                "thickness": 14,
            },
        }
    )
    _title(figure, result)
    frame(figure, legend=True, r=75)
    return figure


def _lines(figure: go.Figure, result: Checkpoints, x: np.ndarray, name: str) -> None:
    """The mean over tasks with its band, and each task as a thin line."""
    label, colour, dash = _CURVES[name]

    def found(task: str | None) -> list[Estimate]:
        if name == "td":
            return [result.td(step, task) for step in result.steps]
        return [result.accuracy(step, task, name) for step in result.steps]

    def line(estimates: Sequence[Estimate], said: str, shown: bool, **style: object) -> go.Scatter:
        return go.Scatter(
            x=x,
            y=[e.value for e in estimates],
            customdata=[
                [f"{step:,}", e.low, e.high]
                for step, e in zip(result.steps, estimates, strict=True)
            ],
            name=label,
            legendgroup=label,
            showlegend=shown,
            line={"color": COLOURS[colour], "dash": dash, "width": 3 if shown else 1},
            hovertemplate=(
                "step %{customdata[0]}: %{y:.2f} [%{customdata[1]:.2f}, %{customdata[2]:.2f}]"
                f"<extra>{said}</extra>"
            ),
            **style,
        )

    mean = found(None)
    if name != "baseline" and not _few(result):
        figure.add_trace(band(x.tolist(), mean, COLOURS[colour], label), row=1, col=1)
    if name != "baseline" and len(result.tasks) > 1:
        for task, said in zip(result.tasks, short(result.tasks), strict=True):
            of_task = found(task)
            if _few(result):
                figure.add_trace(band(x.tolist(), of_task, COLOURS[colour], label), row=1, col=1)
            trace = line(of_task, f"{label}, {said}", False, mode="lines", opacity=0.35)
            figure.add_trace(trace, row=1, col=1)
    over = f"{label}, mean of {len(result.tasks)} tasks" if len(result.tasks) > 1 else label
    trace = line(mean, over, True, mode="lines+markers", marker={"size": 7})
    figure.add_trace(trace, row=1, col=1)


def _few(result: Checkpoints) -> bool:
    """Whether there are too few tasks for an interval over tasks; each task then has its own."""
    return 1 < len(result.tasks) < MIN_CLUSTERS


def _chance(figure: go.Figure, result: Checkpoints) -> None:
    """A line at chance: TD of a representation without information about the task."""
    level = float(result.data["chance"].mean())
    figure.add_hline(
        y=level,
        line={"color": COLOURS["encoding"], "dash": "dot", "width": 1.2},
        annotation={
            "text": f"chance of TD: {level:.2f}",
            "font": {"size": 12, "color": COLOURS["encoding"]},
        },
        annotation_position="bottom right",
        row=1,
        col=1,
    )


def _onsets(figure: go.Figure, result: Checkpoints) -> None:
    """A mark, with its interval, where each mean curve has half risen."""
    when = result.onset()
    for what, curve, rise in zip(
        ("encoding", "accuracy"), ("td", "regular"), result.rises[MEAN], strict=True
    ):
        e = when[what].estimate
        if e.value != e.value:
            continue
        label, colour, _ = _CURVES[curve]
        at, low, high = log_position([e.value, e.low, e.high], result.steps)
        name = f"half risen, {label}"
        figure.add_trace(
            go.Scatter(
                x=[at],
                y=[(rise.curve[0] + rise.curve[-1]) / 2],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [np.nan_to_num(high - at)],
                    "arrayminus": [np.nan_to_num(at - low)],
                    "thickness": 2,
                    "width": 6,
                },
                mode="markers",
                marker={
                    "symbol": "diamond",
                    "size": 13,
                    "color": COLOURS[colour],
                    "line": {"color": PAPER, "width": 1.5},
                },
                name=name,
                hovertemplate=(
                    f"half risen at step {e.value:,.0f} [{e.low:,.0f}, {e.high:,.0f}]"
                    f"<extra>{label}</extra>"
                ),
            ),
            row=1,
            col=1,
        )


def _heat(
    result: Checkpoints, x: np.ndarray, found: Sequence[Sequence[Estimate]], what: str
) -> go.Heatmap:
    """A heat map with layers on the vertical axis and steps on the horizontal one."""
    values = np.array([[e.value for e in layers] for layers in found]).T
    said = [
        [f"step {step:,}, after block {layer}" for step in result.steps] for layer in result.layers
    ]
    return go.Heatmap(
        x=x,
        y=result.layers,
        z=values,
        customdata=said,
        coloraxis="coloraxis",
        hovertemplate=f"%{{customdata}}<br>{what}: %{{z:.2f}}<extra></extra>",
    )


def _ticks(steps: Sequence[int], x: np.ndarray, apart: float) -> tuple[list[float], list[str]]:
    """Positions and labels of steps: the first, the last, and those between that have room."""
    room = apart * (x[-1] - x[0])
    kept = [0]
    for i in range(1, len(x) - 1):
        if x[i] - x[kept[-1]] >= room and x[-1] - x[i] >= room:
            kept.append(i)
    kept.append(len(x) - 1)
    return [float(x[i]) for i in kept], [_brief(steps[i]) for i in kept]


def _brief(step: int) -> str:
    """A step in few characters.

    >>> [_brief(step) for step in (0, 512, 143_000, 1_500_000)]
    ['0', '512', '143k', '1.5M']
    """
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if step >= unit:
            return f"{step / unit:.4g}{letter}"
    return str(step)


def _title(figure: go.Figure, result: Checkpoints) -> None:
    p = result.provenance
    first, last = (escape(str(run["model"])) for run in (p["runs"][0], p["runs"][-1]))
    lead = result.onset()["lead"].estimate
    comes = f"; encoding {lead_in_words(lead)} steps" if lead.value == lead.value else ""
    bands = "over tasks" if len(result.tasks) >= MIN_CLUSTERS else "of each task over queries"
    state(
        figure,
        result,
        f"What training teaches: {subject(result.tasks)}, {first} to {last}",
        f"{p['n_shots']} shots, {p['n_prompts']} prompts per task "
        f"({p['n_points']} for TD), seed {p['seed']}; bands: 95 % intervals {bands}, thin: "
        f"single tasks, diamonds: half risen, with intervals over queries{comes}",
    )
