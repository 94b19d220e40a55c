"""The figure of several models' task vectors against relative depth."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.marks import curve
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import GRID, SERIES, title
from icl_mech.stats import Estimate
from icl_mech.variability.plot import DISTANCE

if TYPE_CHECKING:
    from icl_mech.variability import VectorVariability

_HEIGHT = 370


def variability_models_figure(results: Sequence[VectorVariability], form: str = "raw") -> go.Figure:
    """Several models against relative depth: distance within tasks, separation, accuracy."""
    from icl_mech.variability import compare_variability

    table = compare_variability(results, form)
    panels = {
        "within": f"mean {DISTANCE[form]} within a task",
        "silhouette": "silhouette (−1 to 1)",
        "accuracy": "zero-shot accuracy with θ",
    }
    figure = rows_of_panels(
        [_HEIGHT], 0, list(panels.values()), len(panels), horizontal_spacing=0.06
    )
    for i, (model, rows) in enumerate(table.groupby("model", sort=False)):
        for col, column in enumerate(panels, 1):
            ends = rows[[column, f"{column}_low", f"{column}_high"]].to_numpy().tolist()
            found = [Estimate(value, low, high, 0) for value, low, high in ends]
            curve(
                figure,
                rows["depth"].tolist(),
                found,
                escape(str(model)),
                SERIES[i % len(SERIES)],
                (1, col),
                shown=col == 1,
            )
    figure.update_xaxes(
        title_text="relative depth (1: after the last block)",
        range=[0, 1.03],
        gridcolor=GRID,
        zeroline=False,
    )
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    p = results[0].provenance
    title(
        figure,
        f"How much does the task vector vary, by model? {len(results[0].tasks)} tasks",
        f"{results[0].data.sizes['vector']} vectors per task, {max(results[0].shots)} shots, "
        f"seed {p['seed']}; bands: 95 % intervals over vectors",
    )
    frame(figure, below=50, legend=True)
    return figure
