"""The figure of context masking: accuracy and KL divergence, layer by layer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from icl_mech.masking.plan import MASKS
from icl_mech.plotting.marks import band
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, state, subject

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from icl_mech.masking import ContextMasking

_HEIGHT, _GAP = 230, 85
_COLOURS = {
    "demonstrations": "masking",
    "last_token": "theta",
    "labels": "answer",
    "inputs": "query",
    "arrows": "other_task",
}
#: The panels of a row: title, direction, value, and title of the y axis.
_PANELS = (
    ("seen until block l", "until", "right", "share right"),
    ("seen after block l only", "after", "right", ""),
    ("distance, seen until block l", "until", "kl", "KL (nats)"),
)


def masking_figure(result: ContextMasking) -> go.Figure:
    """A row per task: accuracy in both directions, and the distance to the few-shot prompt."""
    tasks = result.tasks
    titles = [f"{escape(task)}: {title}" for task in tasks for title, *_ in _PANELS]
    figure = rows_of_panels(
        [_HEIGHT] * len(tasks), _GAP, titles, len(_PANELS), horizontal_spacing=0.07
    )
    for row, task in enumerate(tasks, 1):
        for col, (_, direction, what, axis) in enumerate(_PANELS, 1):
            for mask in result.masks:
                _line(figure, result, (task, mask, direction, what), (row, col))
            if what == "right":
                _levels(figure, result, task, (row, col))
                figure.update_yaxes(range=[-0.04, 1.04], dtick=0.25, row=row, col=col)
            else:
                figure.update_yaxes(rangemode="tozero", row=row, col=col)
            figure.update_yaxes(title_text=axis, title_standoff=4, row=row, col=col)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_xaxes(title_text="block l, from 0", row=len(tasks))
    p = result.provenance
    state(
        figure,
        result,
        f"By which layer have the demonstrations been read? {subject(tasks)}, {escape(p['model'])}",
        f"attention of the tokens after the demonstrations, cut in the other blocks; "
        f"{result.data.sizes['prompt']} prompts per task, {p['n_shots']} shots, seed {p['seed']}; "
        "bands: 95 % intervals over queries",
    )
    frame(figure, below=40, legend=True)
    return figure


def _line(
    figure: go.Figure,
    result: ContextMasking,
    what: tuple[str, str, str, str],
    place: tuple[int, int],
) -> None:
    """One mask's curve; the first mask has an interval band, the others show it on hover."""
    found, x, mask = result.curve(*what), result.layers, what[1]
    colour, name = COLOURS[_COLOURS[mask]], MASKS[mask].said
    row, col = place
    if mask == result.masks[0]:
        figure.add_trace(band(x, found, colour, name), row=row, col=col)
    figure.add_scatter(
        x=x,
        y=[e.value for e in found],
        mode="lines+markers",
        line={"color": colour, "width": 2.5 if mask == result.masks[0] else 1.5},
        marker={"size": 5},
        name=name,
        legendgroup=name,
        showlegend=place == (1, 1),
        customdata=[[e.low, e.high] for e in found],
        hovertemplate=f"{name}<br>block %{{x}}: %{{y:.2f}} "
        "[%{customdata[0]:.2f}, %{customdata[1]:.2f}]<extra></extra>",
        row=row,
        col=col,
    )


def _levels(figure: go.Figure, result: ContextMasking, task: str, place: tuple[int, int]) -> None:
    """Accuracy with nothing hidden, and without demonstrations."""
    x = result.layers
    for of, name, colour in (
        ("few_shot", "few-shot", "regular"),
        ("zero_shot", "zero-shot", "baseline"),
    ):
        level = result.accuracy(task, of)
        figure.add_scatter(
            x=[x[0], x[-1]],
            y=[level.value] * 2,
            mode="lines",
            line={"color": COLOURS[colour], "width": 1.5, "dash": "dash"},
            name=name,
            legendgroup=name,
            showlegend=place == (1, 1),
            hovertemplate=f"{name}: {level}<extra></extra>",
            row=place[0],
            col=place[1],
        )
