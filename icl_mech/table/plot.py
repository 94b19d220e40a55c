"""The figure of the main table: three accuracies per task, and the range of published means."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.marks import interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, RULE, state, subject

if TYPE_CHECKING:
    from icl_mech.stats import Estimate
    from icl_mech.table import TaskTable

_ROW = 34
#: Name, colour, marker, and offset within its row (from -0.5 to 0.5).
_DOTS = {
    "baseline": ("zero-shot prompt (baseline)", "baseline", "square", 0.26),
    "hypothesis": ("zero-shot + task vector θ (hypothesis)", "theta", "circle", 0.0),
    "regular": ("few-shot prompt (regular)", "regular", "diamond", -0.26),
}


def task_table_figure(table: TaskTable, score: str = "first_token") -> go.Figure:
    """Dots with intervals, a row per task; shaded: the range of the published means."""
    tasks = table.tasks
    n_rows = len(tasks) + 1
    figure = rows_of_panels([_ROW * n_rows], 0, None)
    published = table.means(score).query("source == 'published'")
    for column, (name, colour, symbol, offset) in _DOTS.items():
        estimates = [
            *(table.estimate(task, column, score) for task in tasks),
            table.mean(column, score),
        ]
        rows = [row + offset for row in range(n_rows)]
        figure.add_trace(_dots(estimates, rows, [*tasks, "mean over tasks"], name, colour, symbol))
    # After the dots: plotly adds no shapes to empty panels.
    for column, (_, colour, *_) in _DOTS.items():
        low, high = published[column].min(), published[column].max()
        figure.add_vrect(
            x0=low,
            x1=high,
            fillcolor=COLOURS[colour],
            opacity=0.13,
            line_width=0,
            layer="below",
        )
    prior = [table.estimate(task, "label_prior", score) for task in tasks]
    names = list(tasks)
    figure.add_trace(
        _dots(
            prior,
            list(map(float, range(len(tasks)))),
            names,
            "most frequent answer (label prior)",
            "prior",
            "line-ns-open",
            bars=False,
        )
    )
    figure.add_hline(y=len(tasks) - 0.5, line={"color": RULE, "width": 1})
    figure.update_yaxes(
        tickvals=list(range(n_rows)),
        ticktext=[*(escape(task) for task in tasks), "<b>mean over tasks</b>"],
        range=[n_rows - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        ticks="",
    )
    figure.update_xaxes(
        title_text="accuracy (share of prompts)<br>shaded: range of 7 published models' means",
        range=[-0.02, 1.02],
        gridcolor=GRID,
        zeroline=False,
    )
    p = table.provenance
    state(
        figure,
        table,
        f"What does a task vector keep? {subject(tasks)}, {escape(str(p['model']))}",
        f"{table.data.sizes['prompt']} test prompts per task, {p['n_shots']} shots, seed "
        f"{p['seed']}, layer chosen on {table.data.sizes['dev_prompt']} dev prompts; bars: 95 % "
        "intervals (of the mean: over tasks)",
        table.finding(score),
    )
    frame(figure, below=60, legend=True, l=190)
    return figure


def _dots(
    estimates: list[Estimate],
    rows: list[float],
    names: list[str],
    name: str,
    colour: str,
    symbol: str,
    bars: bool = True,
) -> go.Scatter:
    return go.Scatter(
        x=[e.value for e in estimates],
        y=rows,
        mode="markers",
        name=name,
        marker={
            "color": COLOURS[colour],
            "symbol": symbol,
            "size": 9,
            "line": {"width": 0 if bars else 2, "color": COLOURS[colour]},
        },
        error_x=interval_whiskers(estimates, color=COLOURS[colour], visible=bars),
        customdata=[[e.low, e.high, e.n, escape(n)] for e, n in zip(estimates, names, strict=True)],
        hovertemplate=(
            f"<b>%{{customdata[3]}}</b>, {name}<br>%{{x:.2f}} [%{{customdata[0]:.2f}}, "
            "%{customdata[1]:.2f}]<br>n = %{customdata[2]}<extra></extra>"
        ),
    )
