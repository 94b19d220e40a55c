"""The figure of attention patterns.

CircuitsVis draws such maps too, but loads its scripts from the network on every display; plotly
works offline, both in a file and in a notebook.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from icl_mech.one_prompt import columns
from icl_mech.one_prompt.lens_plot import add_menu
from icl_mech.one_prompt.tokens import markup
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, state

if TYPE_CHECKING:
    from icl_mech.one_prompt.attention import PromptAttention

#: Pixels: the least height of the map, the height of a row, and the room for tokens across.
LEAST, ROW, ACROSS = 300, 15, 92
#: The most characters of a token, and the most tokens that are named on an axis.
LENGTH, NAMED = 9, 64


def attention_figure(seen: PromptAttention, tokens: Sequence[int] | None) -> go.Figure:
    """Queries downwards, keys across, one head at a time."""
    shown = columns.chosen(len(seen.texts), tokens)
    values = seen.data["attention"].values[:, shown][:, :, shown]
    n = len(shown)
    figure = rows_of_panels([max(LEAST, ROW * n)], 0, None)
    figure.add_trace(
        go.Heatmap(
            z=values[0],
            x=list(range(n)),
            y=list(range(n)),
            hovertext=_hovers(seen, shown),
            hovertemplate="%{hovertext}<br>attention %{z:.3f}<extra></extra>",
            hoverongaps=False,
            coloraxis="coloraxis",
            xgap=0.5,
            ygap=0.5,
            name="",
        )
    )
    figure.update_layout(coloraxis=_axis(values[0], shown))
    _dress(figure, seen, shown)
    state(
        figure,
        seen,
        f"Where does each token look? {escape(seen.provenance['model'])}",
        "attention of one head at a time, from each token (row) to those before it (column); "
        "colours end at the largest weight that is not on the first token, where heads that do "
        f"nothing rest{columns.left_out(len(seen.texts), shown)}",
    )
    frame(figure, l=100)
    add_menu(figure, [_button(seen, values, i, shown) for i in range(len(values))], ACROSS)
    return figure


def _axis(values: np.ndarray, shown: Sequence[int]) -> dict[str, Any]:
    """Colours of one head's map."""
    off = values[1:, 1:] if shown[0] == 0 and len(shown) > 1 else values
    largest = float(np.nanmax(off))
    return {
        "colorscale": [[0, "#FFFFFF"], [1, COLOURS["heads"]]],
        "cmin": 0,
        "cmax": largest if largest > 0 else 1,
        "colorbar": columns.colour_bar("attention<br>weight"),
    }


def _button(
    seen: PromptAttention, values: np.ndarray, i: int, shown: Sequence[int]
) -> dict[str, Any]:
    layer, number = seen.heads[i]
    z = [[None if np.isnan(v) else float(v) for v in row] for row in values[i]]
    return {
        "label": f"block {layer}, head {number}",
        "method": "update",
        "args": [{"z": [z]}, {"coloraxis": _axis(values[i], shown)}],
    }


def _hovers(seen: PromptAttention, shown: Sequence[int]) -> list[list[str]]:
    names = [f"{t} <b>{markup(seen.texts[t])}</b>" for t in shown]
    return [[f"from {query}<br>to {key}" for key in names] for query in names]


def _dress(figure: go.Figure, seen: PromptAttention, shown: Sequence[int]) -> None:
    """Label both axes with the tokens; with many tokens, only every second or third."""
    step = -(-len(shown) // NAMED)
    places = list(range(0, len(shown), step))
    names = [f"{shown[i]} {markup(seen.texts[shown[i]], LENGTH)}" for i in places]
    ticks = {
        "tickvals": places,
        "ticktext": names,
        "tickfont": {"size": 11 if len(places) <= 40 else 9},
        "showgrid": False,
        "zeroline": False,
    }
    small = {"size": 12}
    figure.update_xaxes(
        side="top",
        title={"text": "to this token", "font": small, "standoff": 4},
        tickangle=-90 if len(shown) > 8 else 0,
        range=[-0.5, len(shown) - 0.5],
        **ticks,
    )
    figure.update_yaxes(
        title={"text": "from this token", "font": small},
        range=[len(shown) - 0.5, -0.5],
        **ticks,
    )
