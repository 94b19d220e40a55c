"""The figure of patchscopes: how often texts name the task, layer by layer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from icl_mech.plotting.marks import band
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, state, subject

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from icl_mech.patchscope import Patchscope

_HEIGHT, _GAP = 230, 85
#: The lines of a panel: what is counted, of which vectors, and the line's name, colour and dash.
_LINES = (
    ("names", "own", "names the task", "theta", "solid"),
    ("names", "random", "names it, of a random vector", "random", "dot"),
    ("other_names", "own", "names another task (mean)", "other_task", "dash"),
    ("answers", "own", "has an answer of the task", "answer", "solid"),
    ("answers", "random", "has one, of a random vector", "prior", "dot"),
)


def patchscope_figure(result: Patchscope) -> go.Figure:
    """A row per task, a panel per invitation."""
    tasks, invitations = result.tasks, result.invitations
    titles = [f"{escape(task)}: {escape(name)}" for task in tasks for name in invitations]
    figure = rows_of_panels(
        [_HEIGHT] * len(tasks), _GAP, titles, len(invitations), horizontal_spacing=0.06
    )
    for row, task in enumerate(tasks, 1):
        for col, name in enumerate(invitations, 1):
            for what, vector, label, colour, dash in _LINES:
                _line(figure, result, (task, name, what, vector), label, colour, dash, (row, col))
    figure.update_yaxes(range=[-0.04, 1.04], gridcolor=GRID, zeroline=False, dtick=0.25)
    figure.update_yaxes(title_text="share of texts", col=1)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_xaxes(title_text=AFTER_BLOCK, row=len(tasks))
    p = result.provenance
    into = "after the same" if p["into"] is None else f"after block {p['into']}"
    state(
        figure,
        result,
        f"What does the model say of θ? {subject(tasks)}, {escape(p['model'])}",
        f"θ read after each block, written {into}; {result.data.sizes['prompt']} vectors per task, "
        f"{p['n_shots']} shots, seed {p['seed']}, {p['max_new_tokens']} tokens; bands: 95 % "
        "intervals (Wilson)",
    )
    frame(figure, below=40, legend=True)
    return figure


def _line(
    figure: go.Figure,
    result: Patchscope,
    what: tuple[str, str, str, str],
    label: str,
    colour: str,
    dash: str,
    place: tuple[int, int],
) -> None:
    """One line of a panel; lines of the task's own vectors have an interval band."""
    found, x = result.curve(*what), result.layers
    row, col = place
    if what[-1] == "own" and np.isfinite(found[0].low):
        figure.add_trace(band(x, found, COLOURS[colour], label), row=row, col=col)
    figure.add_scatter(
        x=x,
        y=[e.value for e in found],
        mode="lines+markers",
        line={"color": COLOURS[colour], "width": 2.5, "dash": dash},
        marker={"size": 5},
        name=label,
        legendgroup=label,
        showlegend=place == (1, 1),
        customdata=[[e.low, e.high] for e in found],
        hovertemplate=f"{label}, block %{{x}}: %{{y:.2f}} "
        "[%{customdata[0]:.2f}, %{customdata[1]:.2f}]<extra></extra>",
        row=row,
        col=col,
    )
