"""The figure of progressive generation: a row per task."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.marks import band, curve, interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, INK, SERIES, state, subject
from icl_mech.progressive.plan import KEPT, NOTHING, STATES

if TYPE_CHECKING:
    from icl_mech.progressive.result import ProgressiveGeneration

_HEIGHT, _GAP = 260, 110
_COLOURS = {
    NOTHING: COLOURS["baseline"],
    STATES: COLOURS["states"],
    "theta": COLOURS["theta"],
    "learned": COLOURS["random"],
}


def progressive_figure(result: ProgressiveGeneration) -> go.Figure:
    """Three panels per task."""
    tasks = result.tasks
    titles = []
    for task in tasks:
        name = escape(task)
        titles += [
            f"{name}: KL to the few-shot prompt",
            f"{name}: whole answers",
            f"{name}: tokens per second",
        ]
    figure = rows_of_panels([_HEIGHT] * len(tasks), _GAP, titles, cols=3, horizontal_spacing=0.08)
    for row, task in enumerate(tasks, 1):
        _panels(figure, result, task, row)
    last = len(tasks)
    labels = ("answer token", "first tokens with demonstrations", "first tokens with them")
    for col, label in enumerate(labels, 1):
        figure.update_xaxes(title={"text": label, "font": {"size": 12}}, row=last, col=col)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, dtick=1)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, rangemode="tozero")
    figure.update_yaxes(range=[-0.04, 1.06], col=2)
    figure.update_yaxes(title_text="nats", col=1)
    p = result.provenance
    state(
        figure,
        result,
        f"How many answer tokens need the demonstrations? {subject(tasks)}, {escape(p['model'])}",
        f"{result.data.sizes['prompt']} prompts per task, {p['n_shots']} shots, seed {p['seed']}; "
        "intervals 95 %; tokens per second: median and range of rounds",
    )
    frame(figure, legend=True)
    return figure


def _panels(figure: go.Figure, result: ProgressiveGeneration, task: str, row: int) -> None:
    shown = row == 1
    places = result.positions(task)
    for i, kept in enumerate(result.kept):
        name, colour = KEPT[kept], _COLOURS.get(kept, SERIES[i % len(SERIES)])
        found = [result.divergence(task, at, kept) for at in places]
        curve(figure, [at + 1 for at in places], found, name, colour, (row, 1), shown)
        right = [result.accuracy(task, k, kept) for k in result.first_tokens]
        curve(figure, result.first_tokens, right, name, colour, (row, 2), False)
    few = [result.few_shot(task)] * len(result.first_tokens)
    colour, name = COLOURS["regular"], "demonstrations throughout"
    figure.add_trace(band(result.first_tokens, few, colour, name), row=row, col=2)
    figure.add_trace(
        go.Scatter(
            x=result.first_tokens,
            y=[e.value for e in few],
            mode="lines",
            line={"color": colour, "dash": "dash", "width": 2},
            name=name,
            legendgroup=name,
            showlegend=shown,
            hovertemplate=f"{name}: {few[0]}<extra></extra>",
        ),
        row=row,
        col=2,
    )
    ks = [*result.first_tokens, result.first_tokens[-1] + 1]
    speeds = [*(result.speed(task, k) for k in result.first_tokens), result.speed(task)]
    figure.add_trace(
        go.Bar(
            x=ks,
            y=[e.value for e in speeds],
            error_y=interval_whiskers(speeds, color=INK),
            marker_color=[COLOURS["alone"]] * len(result.first_tokens) + [colour],
            hovertemplate="%{y:.0f} tokens per second<extra></extra>",
            name="tokens per second",
            showlegend=False,
        ),
        row=row,
        col=3,
    )
    figure.update_xaxes(
        tickvals=ks, ticktext=[*map(str, result.first_tokens), "all"], row=row, col=3
    )
