"""The figure of a finetuning: accuracy and loss over updates."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.marks import curve
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, shades, short, state

if TYPE_CHECKING:
    from icl_mech.finetune import Finetuning

_HEIGHT, _GAP = 300, 80


def finetuning_figure(result: Finetuning) -> go.Figure:
    """Top panel: accuracy; bottom panel: loss. A line per task, and one with a band for all."""
    p = result.provenance
    figure = rows_of_panels(
        [_HEIGHT, _HEIGHT], _GAP, ["Held-out prompts answered right", "Loss on held-out prompts"]
    )
    # A logarithmic axis has no 0: checkpoints stand at 1 + their updates.
    x = [1 + step for step in result.steps]
    colours = shades(len(result.tasks))
    for task, name, shade in zip(result.tasks, short(result.tasks), colours, strict=True):
        for row, measure in ((1, result.accuracy), (2, result.loss)):
            found = [measure(task, step) for step in result.steps]
            figure.add_trace(
                go.Scatter(
                    x=x,
                    y=[e.value for e in found],
                    mode="lines",
                    line={"color": shade, "width": 1.5},
                    name=name,
                    legendgroup=name,
                    showlegend=row == 1,
                    customdata=[
                        [e.low, e.high, step] for e, step in zip(found, result.steps, strict=True)
                    ],
                    hovertemplate=(
                        f"<b>{name}</b> after %{{customdata[2]}} updates: %{{y:.2f}} "
                        "[%{customdata[0]:.2f}, %{customdata[1]:.2f}]<extra></extra>"
                    ),
                ),
                row=row,
                col=1,
            )
    for row, measure in ((1, result.accuracy), (2, result.loss)):
        found = [measure(None, step) for step in result.steps]
        curve(figure, x, found, "all tasks", COLOURS["regular"], (row, 1), shown=row == 1)
    updates, losses = _smooth(result)
    figure.add_trace(
        go.Scatter(
            x=updates,
            y=losses,
            mode="lines",
            line={"color": COLOURS["baseline"], "width": 1.2, "dash": "dot"},
            name="batches of training",
            hovertemplate="batches of training, %{x:.0f}: %{y:.2f}<extra></extra>",
        ),
        row=2,
        col=1,
    )
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title_text="accuracy (exact match)", range=[-0.03, 1.05], row=1, col=1)
    figure.update_yaxes(title_text="nats per answer token", rangemode="tozero", row=2, col=1)
    figure.update_xaxes(gridcolor=GRID, type="log", dtick=1)
    figure.update_xaxes(title_text="1 + updates (log scale)", row=2, col=1)
    blocks = p["trained_blocks"]
    heads = {task.rpartition("/")[0] for task in result.tasks}
    what = heads.pop() if len(heads) == 1 and "" not in heads else f"{len(result.tasks)} tasks"
    state(
        figure,
        result,
        f"Finetuning blocks {blocks[0]} to {blocks[-1]} on {escape(what)}, {escape(p['model'])}",
        f"adapters of rank {p['rank']} on {len(blocks)} of {p['n_blocks']} blocks, "
        f"{p['n_shots']}-shot, {result.data.sizes['prompt']} held-out prompts per task, seed "
        f"{p['seed']}; band: 95 % interval over all tasks' queries",
    )
    frame(figure, legend=True)
    return figure


def _smooth(result: Finetuning) -> tuple[list[float], list[float]]:
    """Losses of batches, averaged within at most forty intervals of updates."""
    losses = result.data["train_loss"].values
    edges = sorted({round(len(losses) ** (i / 40)) for i in range(41)})
    pairs = list(zip([0, *edges[:-1]], edges, strict=True))
    return [1 + (a + b) / 2 for a, b in pairs], [float(losses[a:b].mean()) for a, b in pairs]
