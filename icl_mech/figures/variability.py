"""Figures of the variability of task vectors: plane, histograms, layers, shots, models."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative

from icl_mech.figures.names import short
from icl_mech.figures.panels import frame, rows_of_panels
from icl_mech.figures.style import COLOURS, GRID, title

if TYPE_CHECKING:
    from icl_mech.stats import Estimate, Estimates
    from icl_mech.variability import VectorVariability

_HEIGHT, _GAP, _BINS = 330, 115, 60
WITHIN, BETWEEN = COLOURS["theta"], COLOURS["other_task"]
SHUFFLED, SEPARATION = COLOURS["shuffled"], COLOURS["encoding"]
#: Told apart by colour up to 11 tasks; beyond that by hover.
_FEW, _MANY = qualitative.Safe, qualitative.Dark24


def variability_figure(
    result: VectorVariability, layer: int, shots: int, method: str = "pca"
) -> go.Figure:
    """Vectors in the plane and histograms of distances at a layer; below, every layer; last, shots.

    The last row is there where several numbers of shots were measured.
    """
    several = len(result.shots) > 1
    titles = [
        f"vectors after block {layer}",
        f"distances after block {layer}",
        "distance by layer",
        "separation and accuracy by layer",
        *([f"distance by shots, block {layer}"] if several else []),
        *([f"separation and accuracy by shots, block {layer}"] if several else []),
    ]
    figure = rows_of_panels(
        [_HEIGHT + 60, _HEIGHT, *([_HEIGHT] if several else [])],
        _GAP,
        titles,
        2,
        horizontal_spacing=0.1,
    )
    _plane(figure, result, layer, shots, method)
    _histograms(figure, result, layer, shots)
    _by_layer(figure, result, layer, shots)
    if several:
        _by_shots(figure, result, layer)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    p = result.provenance
    title(
        figure,
        f"How much does the task vector vary? {len(result.tasks)} tasks, {escape(p['model'])}",
        f"{result.data.sizes['vector']} vectors per task, each from other demonstrations, "
        f"{shots} shots, seed {p['seed']}; bands and bars: 95 % intervals over vectors",
    )
    figure.update_layout(legend={"x": 1.02, "y": 1, "yanchor": "top"}, barmode="overlay")
    frame(figure)
    return figure


def _plane(
    figure: go.Figure, result: VectorVariability, layer: int, shots: int, method: str
) -> None:
    points = result.projection(method, layer, shots)
    palette = _FEW if len(result.tasks) <= len(_FEW) else _MANY
    for i, (task, name) in enumerate(zip(result.tasks, short(result.tasks), strict=True)):
        own = points[points["task"] == task]
        figure.add_trace(
            go.Scatter(
                x=own["x"],
                y=own["y"],
                mode="markers",
                marker={"color": palette[i % len(palette)], "size": 8, "opacity": 0.8},
                name=name,
                legendgroup=f"task {task}",
                customdata=own["vector"],
                hovertemplate=f"<b>{name}</b>, vector %{{customdata}}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    axes = points.attrs["axes"]
    figure.update_xaxes(title_text=f"first {axes}" if method == "pca" else axes, row=1, col=1)
    figure.update_yaxes(title_text="second" if method == "pca" else axes, row=1, col=1)
    figure.update_xaxes(title_font={"size": 12}, row=1, col=1)


def _histograms(figure: go.Figure, result: VectorVariability, layer: int, shots: int) -> None:
    table = result.square(layer, shots)
    kinds = {
        "within a task": (table[result.pairs()], WITHIN),
        "between tasks": (table[result.pairs(None, "other")], BETWEEN),
    }
    top = max(float(np.max(values)) for values, _ in kinds.values()) or 1.0
    for name, (values, colour) in kinds.items():
        figure.add_trace(
            go.Histogram(
                x=values,
                xbins={"start": 0, "end": top * 1.001, "size": top * 1.001 / _BINS},
                histnorm="probability",
                marker_color=colour,
                opacity=0.65,
                name=name,
                legendgroup=name,
                showlegend=False,
                hovertemplate=f"{name}, %{{x}}: %{{y:.1%}} of {len(values)} pairs<extra></extra>",
            ),
            row=1,
            col=2,
        )
    figure.update_xaxes(title_text="cosine distance", row=1, col=2)
    figure.update_yaxes(title_text="share of pairs", tickformat=".0%", row=1, col=2)


def _by_layer(figure: go.Figure, result: VectorVariability, layer: int, shots: int) -> None:
    layers = result.layers
    curves = {
        "within a task": (result.distances(shots=shots), WITHIN, "solid"),
        "between tasks": (result.distances(None, "other", shots), BETWEEN, "solid"),
        "θ to θ from shuffled labels": (result.controls("shuffled", shots=shots), SHUFFLED, "dash"),
    }
    for name, (estimates, colour, dash) in curves.items():
        _curve(figure, layers, _each(estimates), name, colour, (2, 1), dash=dash)
    working = {
        "silhouette": (_each(result.separation(shots=shots)), SEPARATION, "solid"),
        "accuracy with θ": (result.accuracy(shots=shots), COLOURS["regular"], "solid"),
        "accuracy, shuffled labels": (result.accuracy(None, "shuffled", shots), SHUFFLED, "dot"),
    }
    for name, (found, colour, dash) in working.items():
        _curve(figure, layers, found, name, colour, (2, 2), dash=dash)
    for col in (1, 2):
        figure.add_vline(
            x=layer,
            line={"color": COLOURS["baseline"], "dash": "dot", "width": 1.5},
            row=2,
            col=col,
        )
        figure.update_xaxes(
            title_text="layer l (after block l)",
            dtick=1 if len(layers) <= 12 else 2 if len(layers) <= 24 else None,
            row=2,
            col=col,
        )
    figure.update_yaxes(title_text="mean cosine distance", rangemode="tozero", row=2, col=1)
    figure.update_yaxes(title_text="silhouette (−1 to 1), accuracy", row=2, col=2)


def _by_shots(figure: go.Figure, result: VectorVariability, layer: int) -> None:
    rows = result.by_shots(layer)
    panels: dict[int, dict[str, tuple[str, str]]] = {
        1: {
            "within": ("within a task", WITHIN),
            "between": ("between tasks", BETWEEN),
            "shuffled_distance": ("θ to θ from shuffled labels", SHUFFLED),
        },
        2: {
            "silhouette": ("silhouette", SEPARATION),
            "accuracy": ("accuracy with θ", COLOURS["regular"]),
            "shuffled_accuracy": ("accuracy, shuffled labels", SHUFFLED),
        },
    }
    for col, names in panels.items():
        for column, (name, colour) in names.items():
            ends = [rows[f"{column}_high"] - rows[column], rows[column] - rows[f"{column}_low"]]
            figure.add_trace(
                go.Scatter(
                    x=list(rows.index),
                    y=rows[column],
                    error_y={
                        "type": "data",
                        "symmetric": False,
                        "array": ends[0],
                        "arrayminus": ends[1],
                        "thickness": 1.2,
                        "width": 4,
                    },
                    mode="lines+markers",
                    line={"color": colour, "width": 2},
                    marker={"size": 8},
                    name=name,
                    legendgroup=name,
                    showlegend=False,
                    hovertemplate=f"{name}, %{{x}} shots: %{{y:.3f}}<extra></extra>",
                ),
                row=3,
                col=col,
            )
        ticks = list(rows.index)
        figure.update_xaxes(title_text="shots", tickvals=ticks, type="log", row=3, col=col)
    figure.update_yaxes(title_text="mean cosine distance", rangemode="tozero", row=3, col=1)
    figure.update_yaxes(title_text="silhouette (−1 to 1), accuracy", row=3, col=2)


def _each(estimates: Estimates) -> list[Estimate]:
    return [estimates.at(i) for i in range(len(estimates.value))]


def _curve(
    figure: go.Figure,
    x: Sequence[float],
    found: Sequence[Estimate],
    name: str,
    colour: str,
    place: tuple[int, int],
    shown: bool = True,
    dash: str = "solid",
) -> None:
    """A line with its band."""
    row, col = place
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    figure.add_trace(
        go.Scatter(
            x=[*x, *x[::-1]],
            y=[*(e.high for e in found), *(e.low for e in reversed(found))],
            mode="lines",
            fill="toself",
            fillcolor=f"rgba({red},{green},{blue},0.15)",
            line={"width": 0},
            hoverinfo="skip",
            legendgroup=name,
            showlegend=False,
        ),
        row=row,
        col=col,
    )
    figure.add_trace(
        go.Scatter(
            x=list(x),
            y=[e.value for e in found],
            mode="lines+markers",
            line={"color": colour, "width": 2.5, "dash": dash},
            marker={"size": 5},
            name=name,
            legendgroup=name,
            showlegend=shown,
            customdata=[[e.low, e.high] for e in found],
            hovertemplate=(
                f"{name}, %{{x:.3~f}}: %{{y:.3f}} "
                "[%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>"
            ),
        ),
        row=row,
        col=col,
    )


#: One colour per model, in order.
MODELS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255")


def variability_models_figure(results: Sequence[VectorVariability]) -> go.Figure:
    """Several models against relative depth: distance within tasks, separation, accuracy."""
    from icl_mech.stats import Estimate
    from icl_mech.variability import compare_variability

    table = compare_variability(results)
    panels = {
        "within": "mean cosine distance within a task",
        "silhouette": "silhouette (−1 to 1)",
        "accuracy": "zero-shot accuracy with θ",
    }
    figure = rows_of_panels(
        [_HEIGHT + 40], 0, list(panels.values()), len(panels), horizontal_spacing=0.06
    )
    for i, (model, rows) in enumerate(table.groupby("model", sort=False)):
        for col, column in enumerate(panels, 1):
            ends = rows[[column, f"{column}_low", f"{column}_high"]].to_numpy().tolist()
            found = [Estimate(value, low, high, 0) for value, low, high in ends]
            _curve(
                figure,
                rows["depth"].tolist(),
                found,
                escape(str(model)),
                MODELS[i % len(MODELS)],
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
