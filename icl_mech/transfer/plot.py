"""Maps of vectors between formats and between tokens: a row of panels per task."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import state, subject

if TYPE_CHECKING:
    from icl_mech.transfer.result import VectorTransfer

_CELL, _LEAST, _GAP = 42, 170, 125
#: The most characters of a format's name that an axis shows.
_NAME = 18


def transfer_figure(result: VectorTransfer, tasks: Sequence[str] | None = None) -> go.Figure:
    """Three maps per task: accuracy and decodability between formats, accuracy between tokens."""
    tasks = result.tasks if tasks is None else list(tasks)
    height = max(_LEAST, _CELL * (len(result.formats) + 1))
    titles = []
    for task in tasks:
        name = escape(task)
        titles += [f"{name}: steers", f"{name}: decoded", f"{name}: by token"]
    figure = rows_of_panels(
        [height] * len(tasks),
        _GAP,
        titles,
        cols=3,
        horizontal_spacing=0.04,
        column_widths=[0.4, 0.4, 0.2],
    )
    for row, task in enumerate(tasks, 1):
        _formats(figure, result, task, row)
        _tokens(figure, result, task, row)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=-35)
    figure.update_yaxes(title_text="formed under", col=1)
    last = len(tasks)
    for col, text in enumerate(("written into", "neighbours of vectors under", "over"), 1):
        figure.update_xaxes(title={"text": text, "font": {"size": 12}}, row=last, col=col)
    p = result.provenance
    state(
        figure,
        result,
        f"Does a vector work under another format? {subject(tasks)}, {escape(p['model'])}",
        f"first tokens right of {result.data.sizes['prompt']} zero-shot prompts per task with the "
        f"vector; share whose nearest neighbours are of its task; {p['n_shots']} shots, seed "
        f"{p['seed']}; layers chosen on dev prompts; 95 % intervals on hover",
    )
    frame(figure, below=60, l=150)
    return figure


def _shortened(name: str) -> str:
    return escape(name if len(name) <= _NAME else f"{name[: _NAME - 1]}…")


def _map(
    figure: go.Figure,
    values: Sequence[Sequence[float]],
    about: Sequence[Sequence[str]],
    names: tuple[list[str], list[str]],
    scale: str,
    place: tuple[int, int],
) -> None:
    row, col = place
    figure.add_trace(
        go.Heatmap(
            z=values,
            x=names[1],
            y=names[0],
            zmin=0,
            zmax=1,
            colorscale=scale,
            showscale=False,
            xgap=2,
            ygap=2,
            text=[["" if v != v else f"{v:.2f}" for v in line] for line in values],
            texttemplate="%{text}",
            textfont={"size": 12},
            customdata=about,
            hovertemplate="%{customdata}<extra></extra>",
            name="",
        ),
        row=row,
        col=col,
    )


def _formats(figure: go.Figure, result: VectorTransfer, task: str, row: int) -> None:
    """Vectors in rows, prompts in columns; the last row is the few-shot prompts."""
    formats = result.formats
    names = [_shortened(name) for name in formats]
    right = [[result.accuracy(task, f, w).value for w in formats] for f in formats]
    about = [[_about(result, task, f, w) for w in formats] for f in formats]
    right.append([result.reference(task, w).value for w in formats])
    about.append([f"few-shot, no vector: {result.reference(task, w)}" for w in formats])
    _map(figure, right, about, ([*names, "few-shot"], names), "Greens", (row, 1))
    decoded = [[result.decoded(task, f, w).value for w in formats] for f in formats]
    decoded.append([np.nan] * len(formats))
    _map(figure, decoded, about, ([*names, "few-shot"], names), "Blues", (row, 2))
    figure.update_yaxes(showticklabels=False, row=row, col=2)


def _tokens(figure: go.Figure, result: VectorTransfer, task: str, row: int) -> None:
    formed = [str(name) for name in result.data["formed_at"].values]
    written = [str(name) for name in result.data["written_at"].values]
    found = [[result.at_token(task, f, w) for w in written] for f in formed]
    about = [
        [
            f"formed at the {f}, written over the {w}<br>after block "
            f"{result.token_layer(task, f, w)}: {e}"
            for w, e in zip(written, line, strict=True)
        ]
        for f, line in zip(formed, found, strict=True)
    ]
    values = [[e.value for e in line] for line in found]
    _map(figure, values, about, (formed, written), "Greens", (row, 3))
    figure.update_yaxes(side="right", tickfont={"size": 11}, row=row, col=3)


def _about(result: VectorTransfer, task: str, formed: str, written: str) -> str:
    """The hover text of a cell."""
    cell = task, formed, written
    lines = [
        f"<b>{escape(formed)} under {escape(written)}</b>, block {result.layer(*cell)}",
        f"right: {result.accuracy(*cell)}",
        f"share of few-shot: {result.recovered(*cell)}",
        f"decoded across: {result.decoded(*cell)}",
        f"cosine of means {result.cosine(*cell, centred=False):.2f}, without the mean over tasks "
        f"{result.cosine(*cell):.2f}",
        f"random vector: {result.control(*cell)}",
        f"another task's: {result.control(*cell, 'other_task')}",
        f"zero-shot: {result.reference(task, written, 'zero_shot')}",
    ]
    return "<br>".join(lines)
