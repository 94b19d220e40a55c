"""Marks that several figures share: lines with bands of intervals, and whiskers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from icl_mech.stats import Estimate


def band(
    x: Sequence[int] | Sequence[float], estimates: Sequence[Estimate], colour: str, group: str
) -> go.Scatter:
    """The band of the intervals around a curve.

    Args:
        x: positions of the estimates.
        estimates: of the curve.
        colour: in the form `#0072B2`.
        group: the legend group of the curve.
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return go.Scatter(
        x=[*x, *x[::-1]],
        y=[*(e.high for e in estimates), *(e.low for e in estimates[::-1])],
        mode="lines",
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.15)",
        line={"width": 0},
        hoverinfo="skip",
        legendgroup=group,
        showlegend=False,
    )


def curve(
    figure: go.Figure,
    x: Sequence[int] | Sequence[float],
    found: Sequence[Estimate],
    name: str,
    colour: str,
    place: tuple[int, int],
    shown: bool = True,
    dash: str = "solid",
    bands: bool = True,
) -> None:
    """A line with its band; with `bands=False` the intervals are shown on hover only."""
    row, col = place
    if bands:
        figure.add_trace(band(x, found, colour, name), row=row, col=col)
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


def whiskers(value: ArrayLike, low: ArrayLike, high: ArrayLike, **options: Any) -> dict[str, Any]:
    """Error bars, as plotly's `error_x` and `error_y` take them.

    Args:
        value: positions of the marks.
        low, high: ends of their intervals; an end on the wrong side of its mark is moved to it.
        options: further options of plotly, or values that replace the usual ones.
    """
    at = np.asarray(value, dtype=float)
    return {
        "type": "data",
        "symmetric": False,
        "array": (np.asarray(high, dtype=float) - at).clip(min=0),
        "arrayminus": (at - np.asarray(low, dtype=float)).clip(min=0),
        "thickness": 1.2,
        "width": 4,
        **options,
    }


def interval_whiskers(estimates: Sequence[Estimate], **options: Any) -> dict[str, Any]:
    """`whiskers` for the intervals of estimates."""
    ends = ([getattr(e, name) for e in estimates] for name in ("value", "low", "high"))
    return whiskers(*ends, **options)
