"""The figure of a conflict of knowledge and context: layers, heads and vectors per task."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.knowledge.plan import CONDITIONS
from icl_mech.plotting.marks import curve, interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, INK, RULE, state, subject
from icl_mech.vector_methods.plan import NAMED

if TYPE_CHECKING:
    from icl_mech.knowledge.result import KnowledgeConflict

_HEIGHT, _GAP, _BAR, _BARS_LEAST, _LABELS = 270, 110, 24, 240, 225
#: Names and colours of the prompts.
_PROMPTS = {
    "zero_shot": ("no demonstrations", COLOURS["baseline"]),
    "right": ("right demonstrations", COLOURS["regular"]),
    "exchanged": ("answers exchanged", COLOURS["shuffled"]),
    "lookup": ("the query shown with a wrong answer", COLOURS["other_task"]),
    "insisted": ("shown so by all demonstrations", COLOURS["encoding"]),
}
_SHORT = {"lookup": "wrong lookup", "insisted": "lookup in every line"}
_SOURCES = {
    "right": ("right pairs", "circle"),
    "exchanged": ("exchanged pairs", "diamond"),
    "lookup": ("wrong lookup", "square"),
    "random": ("random", "x"),
}
#: The number of heads that are drawn.
_N_HEADS = 8


def knowledge_figure(result: KnowledgeConflict) -> go.Figure:
    """Two rows of panels per task: layers above; heads and vectors below."""
    tasks = result.tasks
    marks = sum(len(result._sources(tasks[0], v)) for v in result.vectors) * 2 + len(CONDITIONS)
    bars = max(_BARS_LEAST, _BAR * max(_N_HEADS, marks))
    titles = []
    for task in tasks:
        name = escape(task)
        titles += [
            f"{name}: shown − known by the lens",
            f"{name}: share of the shift in the last token's stream",
            f"{name}: shown − known, with vectors",
            f"{name}: heads, direct effect",
        ]
    figure = rows_of_panels(
        [height for _ in tasks for height in (_HEIGHT, bars)],
        _GAP,
        titles,
        cols=2,
        horizontal_spacing=0.14,
    )
    for i, task in enumerate(tasks):
        _layers(figure, result, task, 2 * i + 1, i == 0)
        _heads(figure, result, task, 2 * i + 2)
        _vectors(figure, result, task, 2 * i + 2)
    p = result.provenance
    state(
        figure,
        result,
        f"Knowledge or context, which answer wins? {subject(tasks)}, {escape(p['model'])}",
        f"logit of the answer shown − logit of the answer known; up to {p['n_prompts']} queries "
        f"per task, {p['n_shots']} shots, seed {p['seed']}; intervals: 95 %, over queries",
    )
    frame(figure, legend=True, l=_LABELS)
    return figure


def _layers(figure: go.Figure, result: KnowledgeConflict, task: str, row: int, shown: bool) -> None:
    layers = result.layers
    for condition, (name, colour) in _PROMPTS.items():
        found = result.lens_curve(task, condition)
        curve(figure, layers, found, name, colour, (row, 1), shown)
    name = "the contradicting prompt's last token, written into the right one"
    curve(figure, layers, result.state_curve(task), name, COLOURS["theta"], (row, 2), shown)
    for col, level in ((1, 0), (2, 0.5)):
        figure.add_hline(y=level, line={"color": RULE, "dash": "dot", "width": 1}, row=row, col=col)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, row=row)
    figure.update_xaxes(title={"text": AFTER_BLOCK, "font": {"size": 12}}, row=row)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, row=row)
    figure.update_yaxes(title_text="logits", row=row, col=1)
    figure.update_yaxes(range=[-0.3, 1.3], row=row, col=2)


def _heads(figure: go.Figure, result: KnowledgeConflict, task: str, row: int) -> None:
    """Change of the direct effect of the heads that change most."""
    heads = result.heads(task, _N_HEADS)
    axis = {"row": row, "col": 2}
    figure.update_xaxes(gridcolor=GRID, title_text="change of direct effect, logits", **axis)
    figure.update_yaxes(showgrid=False, type="category", autorange="reversed", **axis)
    if heads.empty:
        return
    low, high = heads["change"] - heads["change_low"], heads["change_high"] - heads["change"]
    colours = {"shown": COLOURS["other_task"], "known": COLOURS["regular"], "": COLOURS["alone"]}
    figure.add_trace(
        go.Bar(
            x=heads["change"],
            y=[f"head {name}" for name in heads.index],
            orientation="h",
            marker_color=[colours[c] for c in heads["carries"]],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": np.nan_to_num(high),
                "arrayminus": np.nan_to_num(low),
                "color": INK,
                "thickness": 1.2,
            },
            customdata=np.stack(
                [
                    heads["lookup"],
                    heads["right"],
                    heads["attention"],
                    heads["p_holm"],
                    [c or "not told apart from 0" for c in heads["carries"]],
                ],
                axis=1,
            ),
            hovertemplate=(
                "%{y}: %{x:.2f} logits, carries: %{customdata[4]}<br>after the contradiction "
                "%{customdata[0]:.2f}, after right demonstrations %{customdata[1]:.2f}<br>"
                "attention to the contradicting label %{customdata[2]:.2f}; p (Holm) "
                "%{customdata[3]:.3f}<extra></extra>"
            ),
            name="heads",
            showlegend=False,
        ),
        **axis,
    )


def _vectors(figure: go.Figure, result: KnowledgeConflict, task: str, row: int) -> None:
    """The measure after every prompt, and with every vector written in."""
    labels, found, colours, symbols, said = [], [], [], [], []
    for condition, (name, colour) in _PROMPTS.items():
        labels.append(f"<b>{_SHORT.get(condition, name)}</b>")
        found.append(result.difference(task, condition))
        colours.append(colour)
        symbols.append("line-ns-open")
        said.append(_said(result, task, condition))
    for into, short in (("zero_shot", "zero-shot"), ("lookup", "lookup")):
        for vector in result.vectors:
            for source in result._sources(task, vector):
                about, symbol = _SOURCES[source]
                labels.append(f"{short}: {escape(NAMED[vector])}, {about}")
                found.append(result.vector_difference(task, vector, source, into))
                colours.append(COLOURS["random"] if source == "random" else COLOURS["theta"])
                symbols.append(symbol)
                shown, known = (
                    result.vector_follows(task, vector, what, source, into)
                    for what in ("shown", "known")
                )
                said.append(f"follows shown {shown}, known {known}")
    figure.add_trace(
        go.Scatter(
            x=[e.value for e in found],
            y=labels,
            mode="markers",
            error_x=interval_whiskers(found, color=INK),
            marker={"size": 10, "color": colours, "symbol": symbols, "line": {"width": 2}},
            customdata=[f"{e} logits<br>{text}" for e, text in zip(found, said, strict=True)],
            hovertemplate="%{y}<br>%{customdata}<extra></extra>",
            name="vectors",
            showlegend=False,
        ),
        row=row,
        col=1,
    )
    figure.add_vline(x=0, line={"color": RULE, "dash": "dot", "width": 1}, row=row, col=1)
    figure.update_xaxes(gridcolor=GRID, zeroline=False, title_text="logits", row=row, col=1)
    figure.update_yaxes(gridcolor=GRID, autorange="reversed", tickfont={"size": 11}, row=row, col=1)


def _said(result: KnowledgeConflict, task: str, condition: str) -> str:
    shown, known = (result.follows(task, what, condition) for what in ("shown", "known"))
    return f"follows shown {shown}, known {known}"
