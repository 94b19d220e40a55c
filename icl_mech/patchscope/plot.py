"""The figure of patchscopes: how often texts name the task, layer by layer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from icl_mech.plotting.marks import curve
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, state, subject

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from icl_mech.patchscope import Patchscope

_HEIGHT, _GAP = 230, 85
#: What is drawn: what is counted, of which vectors, its name, colour and dash.
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
                found = result.curve(task, name, what, vector)
                first = row == col == 1
                place = (row, col)
                curve(figure, result.layers, found, label, COLOURS[colour], place, first, dash)
    figure.update_yaxes(range=[-0.04, 1.04], gridcolor=GRID, zeroline=False, dtick=0.25)
    figure.update_yaxes(title_text="share of texts", col=1)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_xaxes(title_text=AFTER_BLOCK, row=len(tasks))
    p = result.provenance
    state(
        figure,
        result,
        f"What does the model say of θ? {subject(tasks)}, {escape(p['model'])}",
        f"θ read and written after the same block; {result.data.sizes['prompt']} vectors per task, "
        f"{p['n_shots']} shots, seed {p['seed']}, {p['max_new_tokens']} tokens; bands: 95 % "
        "intervals (Wilson)",
    )
    frame(figure, below=40, legend=True)
    return figure
