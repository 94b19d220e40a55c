"""The figure of mean-activation patching: maps of source task x injected mean."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.errors import choose
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import short, state

if TYPE_CHECKING:
    from icl_mech.patch import MeanPatching

UNITS = {"right": "change in accuracy", "logprob": "change in log probability (nats)"}
WHOSE = {
    "source": "the prompts' own task (rows)",
    "injected": "the injected task, on prompts of another (rows),",
}
#: Maps side by side, and how many means fit a map then; with more means there is one map a row.
COLUMNS, FITS = 2, 11


def mean_patching_figure(
    result: MeanPatching,
    mode: str | None = None,
    measure: str = "right",
    answer: str = "source",
    task: str | None = None,
) -> go.Figure:
    """The change that every injected mean makes, a map per layer on one colour scale.

    Args:
        result: what to draw.
        mode: `"replace"` or `"add"`; the first that was measured by default.
        measure: `"right"` or `"logprob"`.
        answer: the answer of the prompts' own task (`"source"`), or that of the injected task to
            the same query (`"injected"`).
        task: show only the prompts of this task; all by default.
    """
    mode = result.modes[0] if mode is None else choose(mode, result.modes, "mode")
    choose(measure, UNITS, "measure")
    layers = result.layers
    tasks = result.tasks if task is None else [task]
    tables = [result.matrix(layer, mode, measure, answer).loc[tasks] for layer in layers]
    columns = COLUMNS if len(layers) > 1 and tables[0].shape[1] <= FITS else 1
    n_rows = -(-len(layers) // columns)
    height, gap = 34 * len(tasks), 75
    figure = rows_of_panels(
        [height] * n_rows,
        gap,
        [f"after block {layer}" for layer in layers],
        columns,
        shared_xaxes=True,
        shared_yaxes=True,
        horizontal_spacing=0.04,
    )
    largest = max(float(table.abs().to_numpy().max()) for table in tables) or 1.0
    names = short(tasks, result.tasks)
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
                text=[[_number(v, digits) for v in row] for row in values],
                texttemplate="%{text}",
                textfont={"size": 10},
                hovertemplate=(
                    "<b>prompts of %{y}</b>, injected: %{x}<br>"
                    f"{UNITS[measure]}: %{{z:+.2f}}<extra></extra>"
                ),
                name="",
            ),
            row=i // columns + 1,
            col=i % columns + 1,
        )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_yaxes(title_text="prompts of", col=1)
    figure.update_xaxes(showgrid=False, tickangle=40)
    figure.update_xaxes(title_text="injected mean", row=n_rows)
    p = result.provenance
    state(
        figure,
        result,
        f"What does another task's mean do to the answer? {escape(p['model'])}",
        f"{UNITS[measure]} of {WHOSE[answer]} when a mean (columns) is "
        f"{'added' if mode == 'add' else 'written over the residual stream'}; "
        f"{result.data.sizes['prompt']} prompts per task, {p['n_shots']} shots, seed {p['seed']}",
        result.finding() if task is None else "",
    )
    # The slanted names of the injected means stand under the last row.
    longest = max(map(len, names))
    frame(figure, below=60, l=50 + 8 * longest)
    figure.update_layout(
        coloraxis={
            "cmin": -largest,
            "cmax": largest,
            "colorscale": "RdBu",
            "colorbar": {"title": {"text": UNITS[measure].replace(" in ", " in<br>")}},
        },
    )
    return figure


def _number(value: float, digits: str) -> str:
    """A number with its sign, without a zero before the point, to fit a narrow cell.

    >>> _number(-0.05, ".2f"), _number(10.52, ".1f")
    ('-.05', '+10.5')
    """
    text = f"{value:+{digits}}"
    return text[0] + text[1:].removeprefix("0")
