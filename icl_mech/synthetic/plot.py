"""The figure of a training run: error and decodability, checkpoint by checkpoint."""

from __future__ import annotations

from html import escape
from math import log10
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, SERIES, shades, state

if TYPE_CHECKING:
    from icl_mech.stats import Estimates
    from icl_mech.synthetic import Emergence

_HEIGHT, _GAP = 300, 90
_TICKS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)
_REFERENCES = {"bayes_mixture": "Bayes mixture", "ridge": "ridge, all coordinates"}
TOKENS = {"last_y": "the y token of the last demonstration", "query": "the query"}


def basis_colour(basis: int) -> str:
    """The colour of a basis, the same in every figure."""
    return SERIES[basis % len(SERIES)]


def emergence_figure(result: Emergence) -> go.Figure:
    """Top panel: error of each basis. Bottom panel: decodability at each layer."""
    data, p = result.data, result.provenance
    n_layers = data.sizes["layer"]
    figure = rows_of_panels(
        [_HEIGHT, _HEIGHT],
        _GAP,
        [
            "Mean squared error of the query's prediction",
            f"Task decodability (TD) at {TOKENS[p['token']]}",
        ],
    )
    # A logarithmic axis has no 0, so checkpoints are drawn at 1 + their updates.
    x = [1 + step for step in result.steps]
    errors = result.basis_errors()
    for k in range(data.sizes["basis"]):
        figure.add_trace(line(x, errors, k, result.names[k], basis_colour(k)), row=1, col=1)
    for name, label in _REFERENCES.items():
        level = result.reference_error(name).at(-1).value
        figure.add_hline(
            y=level,
            line={"color": COLOURS["baseline"], "dash": "dash", "width": 1.5},
            row=1,
            col=1,
        )
        # An annotation of a logarithmic axis is placed by the exponent.
        figure.add_annotation(
            text=f"{label}: {level:.3f}",
            x=0,
            xref="x domain",
            xanchor="left",
            y=log10(level),
            yanchor="bottom",
            showarrow=False,
            row=1,
            col=1,
        )
    decoded = result.td_by_layer()
    for layer, shade in enumerate(shades(n_layers)):
        figure.add_trace(line(x, decoded, layer, f"after block {layer}", shade), row=2, col=1)
    chance = 1 / data.sizes["basis"]
    figure.add_hline(
        y=chance,
        line={"color": COLOURS["baseline"], "dash": "dot", "width": 1.5},
        annotation={"text": f"chance: {chance:.2f}", "yshift": -2},
        annotation_position="bottom left",
        row=2,
        col=1,
    )
    figure.update_yaxes(gridcolor=GRID)
    figure.update_yaxes(title_text="MSE (log scale)", type="log", tickvals=_TICKS, row=1, col=1)
    figure.update_yaxes(title_text="TD", range=[-0.03, 1.08], row=2, col=1)
    figure.update_xaxes(gridcolor=GRID, type="log", dtick=1)
    figure.update_xaxes(title_text="1 + updates (log scale)", row=2, col=1)
    mixture, kind = p["settings"]["mixture"], result.kind
    tasks = f"{len(result.names)} {'families' if kind == 'family' else 'bases'}"
    state(
        figure,
        result,
        f"What training taught {escape(p['model'])}",
        f"D = {mixture['dim']}, {tasks}, {mixture['n_examples']} examples; "
        f"{p['n_per_basis']} held-out sequences per {kind}; hover for 95 % intervals",
    )
    frame(figure, legend=True)
    return figure


def line(x: list[int], estimates: Estimates, column: int, name: str, colour: str) -> go.Scatter:
    value, low, high = (end[:, column] for end in (estimates.value, estimates.low, estimates.high))
    return go.Scatter(
        x=x,
        y=value,
        customdata=list(zip([i - 1 for i in x], low, high, strict=True)),
        mode="lines+markers",
        name=name,
        line={"color": colour, "width": 2},
        marker={"size": 5},
        hovertemplate=(
            "after %{customdata[0]} updates: %{y:.3f} "
            f"[%{{customdata[1]:.3f}}, %{{customdata[2]:.3f}}]<extra>{name}</extra>"
        ),
    )
