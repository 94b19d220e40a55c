"""Several training runs: decodability and error of every basis over training, with onsets."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import GRID, PAPER, state
from icl_mech.stats.onset import lead_in_words
from icl_mech.synthetic.plot import basis_colour

if TYPE_CHECKING:
    import pandas as pd

    from icl_mech.synthetic import Emergence, EmergenceOverSeeds

_HEIGHT, _GAP = 250, 80


def seeds_figure(result: EmergenceOverSeeds) -> go.Figure:
    """A row per seed: share of sequences decoded, and the fall of the error, by basis.

    Both are rescaled to go from 0 (before training) to 1 (at its end). A mark shows where each
    passes one half for good, a vertical line where the error falls below that of ridge regression.
    """
    runs = {seed: result.run(seed) for seed in result.seeds}
    onsets = result.onsets()
    figure = rows_of_panels(
        [_HEIGHT] * len(runs),
        _GAP,
        [f"seed {seed}, block {run.best_layer()}" for seed, run in runs.items()],
    )
    for row, (seed, run) in enumerate(runs.items(), 1):
        when = onsets.loc[seed]
        for trace in _traces(run, when, row == 1):
            figure.add_trace(trace, row=row, col=1)
        for k, step in enumerate(when["use"]):
            if step == step:
                line = {"color": basis_colour(k), "dash": "dot", "width": 1.5}
                figure.add_vline(x=step, line=line, row=row, col=1)
    figure.update_xaxes(gridcolor=GRID, title_text="updates", row=len(result.seeds))
    figure.update_xaxes(gridcolor=GRID)
    figure.update_yaxes(
        gridcolor=GRID, title_text="share of the change", range=[-0.3, 1.25], dtick=0.5
    )
    lead, use = result.lead(), result.lead(over="use")
    p = result.provenance
    state(
        figure,
        result,
        "What emerges first, encoding or performance?",
        f"encoding (solid, ●) {lead_in_words(lead)} updates relative to the error's fall "
        f"(dashed, ×), and {lead_in_words(use)} relative to the use of the basis (error below "
        f"ridge's, vertical lines); means over {lead.n} seeds with t intervals; "
        f"{p['n_per_basis']} held-out sequences per basis",
    )
    frame(figure, below=10, legend=True)
    return figure


def _traces(run: Emergence, when: pd.DataFrame, first: bool) -> list[go.Scatter]:
    layer = run.best_layer()
    right = run.data["credit"].isel(layer=layer).mean("sequence").transpose("step", "basis").values
    last = run.data["squared_error"].isel(n_seen=-1).mean("sequence")
    error = last.transpose("step", "basis").values
    traces = []
    for k, (what, values, short, dash, symbol) in product(
        range(right.shape[1]),
        (
            ("encoding", right, "TD", "solid", "circle"),
            ("performance", error, "error", "dash", "x"),
        ),
    ):
        colour, curve, task = basis_colour(k), values[:, k], run.names[k]
        name = f"{task}, {short}"
        traces.append(
            go.Scatter(
                x=run.steps,
                y=(curve - curve[0]) / (curve[-1] - curve[0] or np.nan),
                customdata=curve,
                mode="lines",
                line={"color": colour, "width": 2, "dash": dash},
                name=name,
                legendgroup=name,
                showlegend=first,
                hovertemplate="%{x} updates: %{customdata:.3f}" + f"<extra>{name}</extra>",
            )
        )
        traces.append(
            go.Scatter(
                x=[when.loc[k, what]],
                y=[0.5],
                mode="markers",
                marker={
                    "color": colour,
                    "size": 11,
                    "symbol": symbol,
                    "line": {"color": PAPER, "width": 1},
                },
                showlegend=False,
                legendgroup=name,
                hovertemplate=f"{what} of {task}: onset at %{{x:.0f}} updates<extra></extra>",
            )
        )
    return traces
