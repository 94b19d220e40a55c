"""Figures of the variability of task vectors: plane, histograms, layers, shots, models."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.colors import qualitative

from icl_mech.plotting.marks import curve, whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, short, state

if TYPE_CHECKING:
    from icl_mech.stats import Estimate, Estimates
    from icl_mech.variability import VectorVariability

_HEIGHT, _GAP, _BINS = 330, 115, 60
WITHIN, BETWEEN = COLOURS["within"], COLOURS["between"]
SHUFFLED, SEPARATION = COLOURS["shuffled"], COLOURS["encoding"]
DISTANCE = {"raw": "cosine distance", "centred": "centred cosine distance"}
#: The palette for up to 11 tasks; for more tasks, colours are hard to tell apart: hover helps.
_FEW, _MANY = qualitative.Safe, qualitative.Dark24


def variability_figure(
    result: VectorVariability,
    layer: int,
    shots: int,
    method: str = "pca",
    form: str = "raw",
    task: str | None = None,
) -> go.Figure:
    """Vectors in the plane and histograms of distances at a layer; then curves over all layers.

    If several numbers of shots were measured, a last row compares them. With `task`, distances are
    from its vectors, and separation and accuracy are theirs.
    """
    several = len(result.shots) > 1
    titles = [
        f"vectors after block {layer}",
        f"distances after block {layer}",
        "distance by layer",
        "separation and accuracy by layer",
    ]
    heights = [_HEIGHT + 60, _HEIGHT]
    if several:
        named = ("distance", "separation and accuracy")
        titles += [f"{name} by shots, block {layer}" for name in named]
        heights.append(_HEIGHT)
    figure = rows_of_panels(heights, _GAP, titles, 2, horizontal_spacing=0.1)
    _plane(figure, result, layer, shots, method, task)
    _histograms(figure, result, layer, shots, form, task)
    _by_layer(figure, result, layer, shots, form, task)
    if several:
        _by_shots(figure, result, layer, form, task)
    figure.update_xaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    p, what = result.provenance, f"{len(result.tasks)} tasks"
    what = what if task is None else f"{escape(task)} among {what}"
    state(
        figure,
        result,
        f"How much does the task vector vary? {what}, {escape(p['model'])}",
        f"{result.data.sizes['vector']} vectors per task, each from other demonstrations, "
        f"{shots} shots, seed {p['seed']}; bands and bars: 95 % intervals over vectors",
        result.finding(layer, shots, form, task),
    )
    figure.update_layout(barmode="overlay")
    frame(figure, legend=True)
    return figure


def _plane(
    figure: go.Figure,
    result: VectorVariability,
    layer: int,
    shots: int,
    method: str,
    task: str | None,
) -> None:
    points = result.projection(method, layer, shots)
    palette = _FEW if len(result.tasks) <= len(_FEW) else _MANY
    for i, (each, name) in enumerate(zip(result.tasks, short(result.tasks), strict=True)):
        own = points[points["task"] == each]
        colour = palette[i % len(palette)] if task in (None, each) else COLOURS["prior"]
        figure.add_trace(
            go.Scatter(
                x=own["x"],
                y=own["y"],
                mode="markers",
                marker={
                    "color": colour,
                    "size": 8,
                    "opacity": 0.8 if task in (None, each) else 0.4,
                },
                name=name,
                legendgroup=f"task {each}",
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


def _histograms(
    figure: go.Figure,
    result: VectorVariability,
    layer: int,
    shots: int,
    form: str,
    task: str | None,
) -> None:
    table = result.square(layer, shots, form)
    kinds = {
        "within a task": (table[result.pairs(task)], WITHIN),
        "between tasks": (table[result.pairs(task, "other")], BETWEEN),
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
    figure.update_xaxes(title_text=DISTANCE[form], row=1, col=2)
    figure.update_yaxes(title_text="share of pairs", tickformat=".0%", row=1, col=2)


def _by_layer(
    figure: go.Figure,
    result: VectorVariability,
    layer: int,
    shots: int,
    form: str,
    task: str | None,
) -> None:
    layers = result.layers
    curves = {
        "within a task": (result.distances(task, shots=shots, form=form), WITHIN, "solid"),
        "between tasks": (result.distances(task, "other", shots, form=form), BETWEEN, "solid"),
    }
    if shots > 1:
        control = result.controls("shuffled", task, shots, form)
        curves["θ to θ from shuffled labels"] = (control, SHUFFLED, "dash")
    for name, (estimates, colour, dash) in curves.items():
        curve(figure, layers, _each(estimates), name, colour, (2, 1), dash=dash)
    working = {
        "silhouette": (_each(result.separation(task, shots, form=form)), SEPARATION, "solid"),
        "accuracy with θ": (result.accuracy(task, shots=shots), COLOURS["theta"], "solid"),
        "accuracy, shuffled labels": (result.accuracy(task, "shuffled", shots), SHUFFLED, "dot"),
    }
    for name, (found, colour, dash) in working.items():
        curve(figure, layers, found, name, colour, (2, 2), dash=dash)
    for col in (1, 2):
        figure.add_vline(
            x=layer,
            line={"color": COLOURS["baseline"], "dash": "dot", "width": 1.5},
            row=2,
            col=col,
        )
        figure.update_xaxes(
            title_text=AFTER_BLOCK,
            range=[layers[0] - 0.5, layers[-1] + 0.5],
            dtick=1 if len(layers) <= 12 else 2 if len(layers) <= 24 else None,
            row=2,
            col=col,
        )
    figure.update_yaxes(title_text=f"mean {DISTANCE[form]}", rangemode="tozero", row=2, col=1)
    figure.update_yaxes(title_text="silhouette (−1 to 1), accuracy", row=2, col=2)


def _by_shots(
    figure: go.Figure, result: VectorVariability, layer: int, form: str, task: str | None
) -> None:
    rows = result.by_shots(layer, task)
    ticks = list(rows.index)
    of = "" if form == "raw" else "centred_"
    traces = [
        (1, f"{of}within", "within a task", WITHIN),
        (1, f"{of}between", "between tasks", BETWEEN),
        (1, f"{of}shuffled_distance", "θ to θ from shuffled labels", SHUFFLED),
        (2, f"{of}silhouette", "silhouette", SEPARATION),
        (2, "accuracy", "accuracy with θ", COLOURS["theta"]),
        (2, "shuffled_accuracy", "accuracy, shuffled labels", SHUFFLED),
    ]
    for col, column, name, colour in traces:
        figure.add_trace(
            go.Scatter(
                x=ticks,
                y=rows[column],
                error_y=whiskers(*(rows[f"{column}{end}"] for end in ("", "_low", "_high"))),
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
    figure.update_xaxes(title_text="shots", tickvals=ticks, type="log", row=3)
    figure.update_yaxes(title_text=f"mean {DISTANCE[form]}", rangemode="tozero", row=3, col=1)
    figure.update_yaxes(title_text="silhouette (−1 to 1), accuracy", row=3, col=2)


def _each(estimates: Estimates) -> list[Estimate]:
    return [estimates.at(i) for i in range(len(estimates.value))]
