"""The figure of label scores: by condition and score, and by class."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.classification.words import SCORINGS, WORDS
from icl_mech.plotting.marks import interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, INK, RULE, state, subject

if TYPE_CHECKING:
    from icl_mech.classification.result import LabelScores

_HEIGHT, _GAP, _ROW = 250, 110, 40
_COLOURS = {"restricted": COLOURS["theta"], "open": COLOURS["shuffled"]}
_NAMES = {"restricted": "among the labels", "open": "among all tokens"}


def labels_figure(result: LabelScores) -> go.Figure:
    """Two panels per task."""
    tasks = result.tasks
    titles = [
        title
        for task in tasks
        for title in (
            f"{escape(task)}: accuracy",
            f"{escape(task)}: by class, among the labels",
        )
    ]
    height = max(_HEIGHT, _ROW * len(result.conditions))
    figure = rows_of_panels([height] * len(tasks), _GAP, titles, cols=2, horizontal_spacing=0.16)
    for row, task in enumerate(tasks, 1):
        _scores(figure, result, task, row)
        _classes(figure, result, task, row)
    p = result.provenance
    state(
        figure,
        result,
        f"Which label? {subject(tasks)}, {escape(p['model'])}",
        f"{result.data.sizes['prompt']} balanced test prompts per task, {p['n_shots']} shots, seed "
        f"{p['seed']}; dotted: chance among the labels; bars: 95 % intervals over queries",
    )
    figure.update_layout(barmode="group", bargap=0.25)
    frame(figure, legend=True, l=130)
    return figure


def _scores(figure: go.Figure, result: LabelScores, task: str, row: int) -> None:
    names = [WORDS[condition] for condition in result.conditions]
    for scoring in SCORINGS:
        found = [result.accuracy(task, c, scoring) for c in result.conditions]
        figure.add_trace(
            go.Bar(
                x=[e.value for e in found],
                y=names,
                orientation="h",
                error_x=interval_whiskers(found, color=INK),
                marker_color=_COLOURS[scoring],
                name=_NAMES[scoring],
                legendgroup=scoring,
                showlegend=row == 1,
                customdata=[str(e) for e in found],
                hovertemplate=f"%{{y}}, {_NAMES[scoring]}: %{{customdata}}<extra></extra>",
            ),
            row=row,
            col=1,
        )
    figure.add_vline(
        x=result.chance(task), line={"color": RULE, "dash": "dot", "width": 1.5}, row=row, col=1
    )
    figure.update_xaxes(range=[0, 1.04], gridcolor=GRID, row=row, col=1)
    figure.update_yaxes(autorange="reversed", showgrid=False, row=row, col=1)


def _classes(figure: go.Figure, result: LabelScores, task: str, row: int) -> None:
    """Conditions in rows, classes in columns."""
    tables = [result.per_class(task, condition) for condition in result.conditions]
    labels = [escape(label) for label in result.labels(task)]
    values = np.array([table["accuracy"] for table in tables])
    about = [
        [
            f"{name}, {label}: {of['accuracy']:.2f} [{of['accuracy_low']:.2f}, "
            f"{of['accuracy_high']:.2f}]<br>{of['n']:.0f} prompts; said in {of['said']:.0%} of all"
            for label, (_, of) in zip(labels, table.iterrows(), strict=True)
        ]
        for name, table in zip(map(WORDS.get, result.conditions), tables, strict=True)
    ]
    figure.add_trace(
        go.Heatmap(
            z=values,
            x=labels,
            y=[WORDS[condition] for condition in result.conditions],
            zmin=0,
            zmax=1,
            colorscale="Blues",
            showscale=False,
            xgap=2,
            ygap=2,
            text=[["" if v != v else f"{v:.2f}" for v in line] for line in values],
            texttemplate="%{text}",
            customdata=about,
            hovertemplate="%{customdata}<extra></extra>",
            name="",
        ),
        row=row,
        col=2,
    )
    figure.update_yaxes(autorange="reversed", showticklabels=False, showgrid=False, row=row, col=2)
    figure.update_xaxes(showgrid=False, row=row, col=2)
