"""The figure of mean-activation patching: maps of source task x injected mean."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.errors import choose
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import short, title

if TYPE_CHECKING:
    from icl_mech.patch import MeanPatching

UNITS = {"right": "change in accuracy", "logprob": "change in log probability (nats)"}
WHOSE = {
    "source": "the prompts' own task (rows)",
    "injected": "the injected task, on prompts of another (rows),",
}
COLUMNS = 2


def mean_patching_figure(
    result: MeanPatching, mode: str | None = None, measure: str = "right", answer: str = "source"
) -> go.Figure:
    """Change of an answer through every mean, a map per layer on one colour scale.

    Args:
        result: what to draw.
        mode: `"replace"` or `"add"`; the first that was measured by default.
        measure: `"right"` or `"logprob"`.
        answer: the prompts' own task's (`"source"`), or the injected one's to the same query
            (`"injected"`).
    """
    mode = result.modes[0] if mode is None else choose(mode, result.modes, "mode")
    choose(measure, UNITS, "measure")
    layers = result.layers
    n_rows = -(-len(layers) // COLUMNS)
    height, gap = 34 * len(result.tasks), 75
    figure = rows_of_panels(
        [height] * n_rows,
        gap,
        [f"after block {layer}" for layer in layers],
        COLUMNS,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    tables = [result.matrix(layer, mode, measure, answer) for layer in layers]
    largest = max(float(table.abs().to_numpy().max()) for table in tables) or 1.0
    names = short(result.tasks)
    across = short([str(name) for name in tables[0].columns], result.tasks)
    digits = ".2f" if measure == "right" else ".1f"
    for i, table in enumerate(tables):
        values = table.to_numpy()
        figure.add_trace(
            go.Heatmap(
                z=values,
                x=across,
                y=names,
                coloraxis="coloraxis",
                xgap=1,
                ygap=1,
                text=[[f"{v:+{digits}}" for v in row] for row in values],
                texttemplate="%{text}",
                textfont={"size": 11},
                hovertemplate=(
                    "<b>prompts of %{y}</b>, injected: %{x}<br>"
                    f"{UNITS[measure]}: %{{z:+.2f}}<extra></extra>"
                ),
                name="",
            ),
            row=i // COLUMNS + 1,
            col=i % COLUMNS + 1,
        )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, tickangle=40)
    p = result.provenance
    title(
        figure,
        f"What does another task's mean do to the answer? {escape(p['model'])}",
        f"{UNITS[measure]} of {WHOSE[answer]} when a mean (columns) is "
        f"{'added' if mode == 'add' else 'written over the residual stream'}; "
        f"{result.data.sizes['prompt']} prompts per task, {p['n_shots']} shots, seed {p['seed']}",
    )
    # The slanted names of the injected means stand under the last row.
    frame(figure, below=40, l=110)
    figure.update_layout(
        coloraxis={
            "cmin": -largest,
            "cmax": largest,
            "colorscale": "RdBu",
            "colorbar": {"title": {"text": UNITS[measure].replace(" in ", " in<br>")}},
        },
    )
    return figure
