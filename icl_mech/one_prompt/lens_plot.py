"""The figure of a prompt's logit lens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from icl_mech.one_prompt import columns
from icl_mech.one_prompt.tokens import markup
from icl_mech.plotting.panels import frame
from icl_mech.plotting.style import MENU, state

if TYPE_CHECKING:
    from icl_mech.one_prompt.lens import PromptLens

#: Pixels of a row.
ROW = 20
Scale = list[list[Any]]
#: Colour scales from white to a tint pale enough for dark text: for probabilities, entropy, and
#: targets (a tint of `COLOURS["answer"]`).
BLUE: Scale = [[0, "#FFFFFF"], [1, "#6BAED6"]]
GREY: Scale = [[0, "#FFFFFF"], [1, "#A9A9A9"]]
GREEN: Scale = [[0, "#FFFFFF"], [1, "#5CC3A2"]]
RANKS: Scale = [[0, "#5CC3A2"], [1, "#FFFFFF"]]


@dataclass(frozen=True)
class Shade:
    """A quantity that the colour of cells can show.

    Attributes:
        name: its name in the menu.
        bar: the title of the colour bar.
        values: the quantity, `[layer, token]`.
        scale: the colour scale.
        ends: the numbers at the ends of the scale.
        ticks: ticks of the colour bar, if they are not plotly's own.
    """

    name: str
    bar: str
    values: np.ndarray
    scale: Scale
    ends: tuple[float, float]
    ticks: dict[str, Any] = field(default_factory=lambda: {"tickvals": None, "ticktext": None})

    def axis(self) -> dict[str, Any]:
        """Its colour axis."""
        return {
            "colorscale": self.scale,
            "cmin": self.ends[0],
            "cmax": self.ends[1],
            "colorbar": columns.colour_bar(self.bar, **self.ticks),
        }

    def button(self, lines: Sequence[Sequence[int]]) -> dict[str, Any]:
        """The entry of the menu that shows this quantity in all lines."""
        z = [self.values[:, list(line)].tolist() for line in lines]
        return {
            "label": self.name,
            "method": "update",
            "args": [{"z": z}, {"coloraxis": self.axis()}, list(range(len(lines)))],
        }


def shades(lens: PromptLens) -> list[Shade]:
    """The quantities that the colour can show, the default first."""
    data = lens.data
    top = np.exp(data["top_logprob"].isel(k=0).values)
    entropy = data["entropy"].values
    most = max(1.0, float(entropy.max()))
    found = [
        Shade("colour: probability of the top token", "probability", top, BLUE, (0.0, 1.0)),
        Shade("colour: entropy", "entropy<br>(nats)", entropy, GREY, (0.0, most)),
    ]
    if lens.provenance["target"] is None:
        return found
    name = markup(lens.provenance["target"], 20)
    p = np.exp(data["target_logprob"].values)
    rank = np.log10(data["target_rank"].values + 1.0)
    worst = max(1.0, float(rank.max()))
    decades = list(range(int(worst) + 1))
    ticks = {"tickvals": decades, "ticktext": ["top", *(f"{10**d:,}th" for d in decades[1:])]}
    return [
        *found,
        Shade(f"colour: rank of {name}", "rank of<br>target", rank, RANKS, (0.0, worst), ticks),
        Shade(f"colour: probability of {name}", "p(target)", p, GREEN, (0.0, 1.0)),
    ]


def lens_figure(lens: PromptLens, tokens: Sequence[int] | None) -> go.Figure:
    """Layers upwards, tokens across, wrapped over as many lines as needed."""
    shown = columns.chosen(len(lens.texts), tokens)
    lines = [[shown[i] for i in line] for line in columns.lines(len(shown))]
    width = len(lines[0])
    length = columns.fits(width)
    every = shades(lens)
    figure = columns.panels(len(lines), len(lens.layers), ROW)
    for row, line in enumerate(lines, 1):
        cells = columns.token_cells(
            every[0].values[:, line],
            columns.words(lens, line, length),
            columns.hovers(lens, line),
            "coloraxis",
        )
        figure.add_trace(cells, row=row, col=1)
        labels = columns.labels_of(lens.texts, line, length)
        columns.dress(figure, row, lens.layers, labels, width)
    figure.update_layout(coloraxis=every[0].axis())
    state(
        figure,
        lens,
        f"What would each layer say after each token? {escape(lens.provenance['model'])}",
        _subtitle(lens, shown),
    )
    frame(figure)
    add_menu(figure, [shade.button(lines) for shade in every])
    return figure


def add_menu(
    figure: go.Figure, buttons: list[dict[str, Any]], above: int = columns.ABOVE, more: int = 0
) -> None:
    """A menu under the subtitle.

    Args:
        figure: framed.
        buttons: entries of the menu.
        above: pixels between the menu and the first line, for labels.
        more: how many of these pixels the figure already has.
    """
    room = above + columns.MENU - more
    figure.layout.margin.t += room
    figure.layout.height += room
    figure.update_layout(
        updatemenus=[
            {
                "buttons": buttons,
                "x": 0,
                "xanchor": "left",
                "y": 1,
                "yanchor": "bottom",
                "pad": {"b": above + 4},
                **MENU,
            }
        ]
    )


def _subtitle(lens: PromptLens, shown: Sequence[int]) -> str:
    p = lens.provenance
    parts = ["logit lens: the most probable next token"]
    if p["vector"] is not None:
        parts.append(f"with {markup(p['vector'], 120, spaces=False)} at the last token")
    if p["target_of"] is not None:
        target, whole = markup(p["target"]), markup(p["target_of"])
        parts.append(f"target {target}, the first token of {whole}")
    several = lens.data.sizes["k"]
    parts.append(f"hover: the {several} best and their probabilities")
    return f"{'; '.join(parts)}{columns.left_out(len(lens.texts), shown)}"
