"""The figure of whole answers: accuracy by every score, and log probabilities."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.marks import interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, INK, state, subject

if TYPE_CHECKING:
    from icl_mech.answers import AnswerScores
    from icl_mech.stats import Estimate

_HEIGHT, _GAP = 300, 120
_CONDITIONS = {
    "baseline": ("zero-shot prompt (baseline)", "baseline"),
    "hypothesis": ("zero-shot + task vector θ (hypothesis)", "theta"),
    "regular": ("few-shot prompt (regular)", "regular"),
}
_SCORES = {
    "two_way_prefix": "two-way<br>prefix",
    "first_token": "first<br>token",
    "most_probable": "most<br>probable",
    "begins": "text<br>begins",
    "accepted": "text is<br>accepted",
    "strict": "text is<br>the one",
}


def answer_figure(result: AnswerScores) -> go.Figure:
    """A row of panels per task: bars per score and condition, then log probabilities."""
    tasks = result.tasks
    titles = [
        text
        for task in tasks
        for text in (
            f"{escape(task)}, θ after block {int(result.of(task)['layer'])}",
            "whole answer",
        )
    ]
    figure = rows_of_panels(
        [_HEIGHT] * len(tasks), _GAP, titles, cols=2, column_widths=[0.8, 0.2],
        horizontal_spacing=0.13,
    )  # fmt: skip
    for row, task in enumerate(tasks, 1):
        for condition, (name, colour) in _CONDITIONS.items():
            bars = [result.accuracy(task, condition, score) for score in _SCORES]
            shares = _bars(list(_SCORES.values()), bars, name, colour, "")
            shares.update(showlegend=row == 1)
            figure.add_trace(shares, row=row, col=1)
            nats = _bars([condition], [result.logprob(task, condition)], name, colour, " nats")
            nats.update(showlegend=False)
            figure.add_trace(nats, row=row, col=2)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title_text="accuracy (share of prompts)", range=[0, 1.05], col=1)
    figure.update_yaxes(title_text="mean log probability (nats)", col=2)
    figure.update_xaxes(showgrid=False)
    figure.update_layout(barmode="group", bargap=0.2, bargroupgap=0.05)
    p = result.provenance
    state(
        figure,
        result,
        f"Do conclusions change with the score? {subject(tasks)}, {escape(p['model'])}",
        f"{result.data.sizes['prompt']} test prompts per task, {p['n_shots']} shots, "
        f"seed {p['seed']}; from lenient to strict; most probable: of the right answer and "
        f"{int(result.data['n_rivals'].min())} others; bars: 95 % intervals",
    )
    frame(figure, below=60, legend=True)
    return figure


def _bars(x: list[str], estimates: list[Estimate], name: str, colour: str, unit: str) -> go.Bar:
    """Bars of one condition, with their intervals."""
    return go.Bar(
        x=x,
        y=[e.value for e in estimates],
        error_y=interval_whiskers(estimates, color=INK),
        name=name,
        legendgroup=name,
        marker={"color": COLOURS[colour]},
        customdata=[[e.low, e.high, e.n] for e in estimates],
        hovertemplate=(
            f"<b>{name}</b><br>%{{x}}: %{{y:.2f}}{unit} [%{{customdata[0]:.2f}}, "
            "%{customdata[1]:.2f}]<br>n = %{customdata[2]} prompts<extra></extra>"
        ),
    )
