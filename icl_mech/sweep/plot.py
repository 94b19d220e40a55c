"""Figures of a sweep that compare models by relative depth, size or training step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from icl_mech.plotting.marks import curve, interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, SERIES, title
from icl_mech.reference import hendel2023
from icl_mech.stats import MIN_CLUSTERS, Estimate, means
from icl_mech.stats.onset import log_position
from icl_mech.sweep.gather import LAYERS, Scans

_ROW, _HEIGHT = 34, 360
#: With more models than this, bands are not drawn, because they would overlap.
_BANDS = 4
_DEPTH = "relative depth (1: after the last block)"
_SYMBOLS = {"formation": ("circle", "theta"), "decoding": ("diamond-open", "lens")}
#: The names of the curves over training, and their colours.
_OVER_STEPS = {
    "few-shot accuracy": "regular",
    "accuracy with θ": "theta",
    "task decodability": "encoding",
    "depth of formation": "transfer",
    "depth of decoding": "lens",
}


def depth_figure(scans: Mapping[str, Scans]) -> go.Figure:
    """Draw the accuracy with θ after every block, averaged over tasks, with a line per model."""
    figure = rows_of_panels([_HEIGHT], 0, None)
    for i, (model, of) in enumerate(scans.items()):
        found = of.curve()
        depth = [(layer + 1) / len(found) for layer in range(len(found))]
        colour = SERIES[i % len(SERIES)]
        curve(figure, depth, found, escape(model), colour, (1, 1), bands=len(scans) <= _BANDS)
    figure.update_xaxes(title_text=_DEPTH, range=[0, 1.03], gridcolor=GRID, zeroline=False)
    figure.update_yaxes(title_text="accuracy with θ", range=[-0.03, 1.03], gridcolor=GRID)
    n = max(len(of.theta) for of in scans.values())
    title(
        figure,
        "How deep does a task vector work?",
        f"zero-shot prompts with θ, mean over {n} tasks at most; {_bands(n, len(scans))}",
    )
    frame(figure, below=20, legend=True)
    return figure


def ratio_figure(scans: Mapping[str, Scans]) -> go.Figure:
    """Draw every model's ratio of hypothesis to regular accuracy, beside the published ratios."""
    published = {name: of.hypothesis / of.regular for name, of in hendel2023().means.items()}
    ours = {model: of.ratio() for model, of in scans.items()}
    names = [*ours, *published]
    figure = rows_of_panels([_ROW * len(names)], 0, None)
    found = list(ours.values())
    figure.add_trace(
        go.Scatter(
            x=[e.value for e in found],
            y=list(range(len(found))),
            mode="markers",
            name="measured",
            marker={"color": COLOURS["theta"], "size": 10},
            error_x=interval_whiskers(found, color=COLOURS["theta"]),
            customdata=[[str(e), e.n] for e in found],
            hovertemplate="%{customdata[0]}, %{customdata[1]} tasks<extra></extra>",
        )
    )
    figure.add_trace(
        go.Scatter(
            x=list(published.values()),
            y=list(range(len(ours), len(names))),
            mode="markers",
            name="published (Hendel et al. 2023), 18 tasks",
            marker={"color": COLOURS["baseline"], "size": 10, "symbol": "square-open"},
            hovertemplate="%{x:.2f}<extra></extra>",
        )
    )
    _rows(figure, names)
    figure.update_xaxes(title_text="hypothesis / regular accuracy", gridcolor=GRID, zeroline=False)
    title(
        figure,
        "How much of few-shot accuracy does a task vector keep?",
        "ratio of means over tasks, with 95 % intervals over tasks where there are four; published "
        "ones have none, and other words",
    )
    frame(figure, below=30, legend=True, l=_left(names))
    return figure


def layers_figure(
    maps: Mapping[str, Mapping[str, Sequence[float]]], sizes: Mapping[str, str]
) -> go.Figure:
    """Draw where tasks are formed and decoded: a row per model, small dots for single tasks.

    Large marks show means over tasks.

    Args:
        maps: by model, the relative depths of formation and decoding, one per task.
        sizes: the size of every model, as text.
    """
    names = list(maps)
    labels = [f"{name} ({sizes[name]})" for name in names]
    figure = rows_of_panels([_ROW * max(2, len(names))], 0, None)
    for (what, readout), offset in zip(LAYERS.items(), (-0.14, 0.14), strict=True):
        symbol, colour = _SYMBOLS[what]
        for row, name in zip(np.arange(len(names)) + offset, names, strict=True):
            depths = np.array(maps[name][what])
            if not len(depths):
                continue
            figure.add_trace(_dots(depths, row, symbol, colour))
            e = means(depths[:, None]).at(0)
            figure.add_trace(_mean(e, row, f"{what} ({readout})", symbol, colour))
    shown: set[str] = set()
    for trace in figure.data:  # one entry of the legend per name, for the first trace that has it
        trace.showlegend = bool(trace.name) and trace.name not in shown
        shown.add(trace.name or "")
    _rows(figure, labels)
    figure.update_xaxes(title_text=_DEPTH, range=[0, 1.03], gridcolor=GRID, zeroline=False)
    title(
        figure,
        "Where is a task formed, and where is it decoded?",
        "single tasks, small; mean over the tasks whose layer is named, large, with 95 % intervals "
        "over tasks; larger models above",
    )
    frame(figure, below=20, legend=True, l=_left(labels))
    return figure


def td_figure(rows: pd.DataFrame, r_squared: Mapping[str, Estimate]) -> go.Figure:
    """Draw accuracy against task decodability, with a dot per task and number of shots."""
    figure = rows_of_panels([_HEIGHT], 0, None)
    for i, (model, of) in enumerate(rows.groupby("model", sort=False)):
        e = r_squared[str(model)]
        known = f" (R² {e.value:.2f})" if e.value == e.value else ""
        figure.add_trace(
            go.Scatter(
                x=of["td"],
                y=of["accuracy"],
                mode="markers",
                name=f"{escape(str(model))}{known}",
                marker={"color": SERIES[i % len(SERIES)], "size": 9},
                customdata=[
                    [escape(str(t)), n] for t, n in zip(of["task"], of["shots"], strict=True)
                ],
                hovertemplate=(
                    "%{customdata[0]}, %{customdata[1]} shots<br>TD %{x:.2f}, accuracy %{y:.2f}"
                    "<extra></extra>"
                ),
            )
        )
    figure.update_xaxes(title_text="task decodability", range=[-0.03, 1.05], gridcolor=GRID)
    figure.update_yaxes(title_text="exact answers", range=[-0.03, 1.05], gridcolor=GRID)
    title(
        figure,
        "Does decodability go with accuracy?",
        "a dot per task and number of shots; TD at the layer chosen on other queries",
    )
    frame(figure, below=20, legend=True)
    return figure


def steps_figure(curves: Mapping[str, Mapping[int, Estimate]], what: str) -> go.Figure:
    """Draw the measurements of a training's checkpoints against their step.

    Args:
        curves: a value per step, by the name of the curve.
        what: the name that all checkpoints share, not escaped for HTML.
    """
    steps = sorted({step for of in curves.values() for step in of})
    figure = rows_of_panels([_HEIGHT], 0, None)
    for name, of in curves.items():
        at = sorted(of)
        x = log_position(at, steps).tolist()
        curve(figure, x, [of[s] for s in at], name, COLOURS[_OVER_STEPS[name]], (1, 1))
    figure.update_xaxes(
        tickvals=log_position(steps, steps).tolist(),
        ticktext=[f"{step:,}" for step in steps],
        title_text="step of training (logarithmic)",
        gridcolor=GRID,
    )
    figure.update_yaxes(title_text="share, or relative depth", range=[-0.03, 1.05], gridcolor=GRID)
    title(
        figure,
        f"What training teaches: {escape(what)}",
        "means over tasks; bands: 95 % intervals over tasks, where there are four",
    )
    frame(figure, below=20, legend=True)
    return figure


def _dots(depths: np.ndarray, row: float, symbol: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=depths,
        y=[row] * len(depths),
        mode="markers",
        marker={"color": COLOURS[colour], "symbol": symbol, "size": 5, "opacity": 0.45},
        hovertemplate="%{x:.2f}<extra>one task</extra>",
    )


def _mean(e: Estimate, row: float, name: str, symbol: str, colour: str) -> go.Scatter:
    return go.Scatter(
        x=[e.value],
        y=[row],
        mode="markers",
        name=name,
        legendgroup=name,
        marker={"color": COLOURS[colour], "symbol": symbol, "size": 13, "line": {"width": 2}},
        error_x=interval_whiskers([e], color=COLOURS[colour]),
        hovertemplate=f"{e}, {e.n} tasks<extra>{name}</extra>",
    )


def _rows(figure: go.Figure, names: Sequence[str]) -> None:
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[escape(name) for name in names],
        range=[len(names) - 0.4, -0.6],
        showgrid=False,
        zeroline=False,
    )


def _left(names: Sequence[str]) -> int:
    """The width of the left margin in pixels, for the names of rows."""
    return 40 + min(260, 8 * max(map(len, names)))


def _bands(n: int, n_models: int) -> str:
    if n < MIN_CLUSTERS:
        return f"fewer than {MIN_CLUSTERS} tasks give no interval"
    return f"{'bands' if n_models <= _BANDS else 'on hover'}: 95 % intervals over tasks"
