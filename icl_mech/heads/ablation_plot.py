"""The figure of a head ablation: accuracy against the number of heads switched off."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.marks import interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, state, subject

if TYPE_CHECKING:
    from icl_mech.heads import HeadAblation
    from icl_mech.stats import Estimate

_HEIGHT, _GAP = 300, 75
_OFF = {
    "other_tasks": "mean output over other tasks' prompts",
    "shuffled_labels": "mean output with shuffled labels",
    "zero": "output 0",
}


def ablation_figure(result: HeadAblation) -> go.Figure:
    """One panel per task: the top k heads off against k random heads off."""
    tasks, counts = result.tasks, result.counts
    titles = [escape(task) for task in tasks] if len(tasks) > 1 else None
    figure = rows_of_panels([_HEIGHT] * len(tasks), _GAP, titles)
    for row, task in enumerate(tasks, 1):
        random = [result.random(task, k) for k in counts]
        top = [result.top(task, k) for k in counts]
        first = row == 1
        names = [", ".join(result.ranked(task)[:k]) for k in counts]
        for trace in (
            _curve(counts, random, "k random heads off", "random", first),
            _curve(counts, top, f"top k heads{_ranking(result)} off", "heads", first, names),
        ):
            figure.add_trace(trace, row=row, col=1)
        intact = result.intact(task)
        figure.add_hline(
            y=intact.value,
            line={"color": COLOURS["regular"], "dash": "dash", "width": 1.5},
            annotation={"text": f"all heads on: {intact.value:.2f}", "yshift": 2},
            annotation_position="top right",
            row=row,
            col=1,
        )
    figure.update_yaxes(title_text="accuracy", range=[-0.03, 1.08], gridcolor=GRID)
    figure.update_xaxes(
        gridcolor=GRID, type="log", tickvals=counts, ticktext=list(map(str, counts))
    )
    figure.update_xaxes(title_text="k, heads switched off (log scale)", row=len(tasks), col=1)
    p = result.provenance
    state(
        figure,
        result,
        f"Does the task need these heads? {subject(tasks)}, {escape(p['model'])}",
        f"switched off: {_OFF[p['off']]}; {result.data.sizes['prompt']} prompts, "
        f"{p['n_shots']} shots, "
        f"{p['n_draws']} random draws, seed {p['seed']}; bars: 95 % intervals",
    )
    frame(figure, below=40, legend=True)
    return figure


def _ranking(result: HeadAblation) -> str:
    """How the heads were ranked, for the legend; heads from the caller may have any order."""
    return " by AIE" if isinstance(result.provenance["heads"], str) else ", as given,"


def _curve(
    counts: list[int],
    estimates: list[Estimate],
    name: str,
    colour: str,
    shown: bool,
    notes: list[str] | None = None,
) -> go.Scatter:
    text = notes or [""] * len(counts)
    return go.Scatter(
        x=counts,
        y=[e.value for e in estimates],
        error_y=interval_whiskers(estimates),
        mode="lines+markers",
        name=name,
        legendgroup=name,
        showlegend=shown,
        line={"color": COLOURS[colour], "width": 2},
        marker={"size": 7},
        customdata=[[e.low, e.high, t] for e, t in zip(estimates, text, strict=True)],
        hovertemplate=(
            "k = %{x}: %{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}]<br>%{customdata[2]}"
            f"<extra>{name}</extra>"
        ),
    )
