"""Maps of layers (upwards) by tokens (across); a long prompt is wrapped over several lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from icl_mech.errors import InputError
from icl_mech.one_prompt.tokens import markup
from icl_mech.plotting.panels import rows_of_panels
from icl_mech.plotting.style import INK, MARGIN, NARROWEST

if TYPE_CHECKING:
    from icl_mech.one_prompt.lens import PromptLens

#: The most columns of a line; on the narrowest page a token of eight characters fits into each.
WIDEST = 10
#: The most tokens that are shown if none are chosen.
MOST = 96
#: Pixels: the gap between two lines, the room for tokens above a line, the least height of a line,
#: and the menu.
GAP, ABOVE, LEAST, MENU = 62, 40, 230, 46
#: Pixels of a character, and of the margins left and right of a line.
_CHARACTER, _BESIDE = 7.5, MARGIN["l"] + 90
LAYERS = "after block l (-1: the embedding)"


def chosen(n_tokens: int, tokens: Sequence[int] | None) -> list[int]:
    """Indices of the tokens to show: those that were asked for, or the last ones that fit.

    Raises:
        InputError: if there is none, or one is not in the prompt.
    """
    if tokens is None:
        return list(range(max(0, n_tokens - MOST), n_tokens))
    wrong = [t for t in tokens if not -n_tokens <= t < n_tokens]
    if wrong or not len(tokens):
        raise InputError(
            f"tokens {wrong[:3] or 'is empty'}; expected indices of the prompt's {n_tokens} tokens"
        )
    return sorted({t % n_tokens for t in tokens})


def left_out(n_tokens: int, shown: Sequence[int]) -> str:
    """The part of the subtitle about tokens that are not shown."""
    return "" if len(shown) == n_tokens else f"; {len(shown)} of {n_tokens} tokens are shown"


def lines(n: int) -> list[range]:
    """Divide `n` columns into lines of nearly equal length.

    >>> lines(14)
    [range(0, 7), range(7, 14)]
    """
    width = -(-n // -(-n // WIDEST))
    return [range(start, min(start + width, n)) for start in range(0, n, width)]


def fits(width: int) -> int:
    """Characters that fit into a column on the narrowest page, if a line has `width` columns.

    >>> fits(10), fits(1)
    (8, 24)
    """
    return int(min(24, max(3, (NARROWEST - _BESIDE) / width / _CHARACTER)))


def panels(n_rows: int, n_layers: int, row: int) -> go.Figure:
    """Empty maps below each other."""
    return rows_of_panels([max(LEAST, row * n_layers)] * n_rows, GAP, None)


def dress(
    figure: go.Figure,
    row: int,
    layers: Sequence[int],
    labels: Sequence[str],
    width: int,
    name: str = LAYERS,
) -> None:
    """The axes of one map: tokens above, layers on the left."""
    figure.update_xaxes(
        side="top",
        range=[-0.5, width - 0.5],
        tickvals=list(range(len(labels))),
        ticktext=list(labels),
        tickangle=0,
        tickfont={"size": 11},
        showgrid=False,
        zeroline=False,
        fixedrange=True,
        row=row,
    )
    step = 1 if len(layers) <= 40 else 2
    figure.update_yaxes(
        range=[-0.5, len(layers) - 0.5],
        tickvals=list(range(0, len(layers), step)),
        ticktext=[str(layer) for layer in layers[::step]],
        tickfont={"size": 10},
        title={"text": name, "font": {"size": 12}, "standoff": 4},
        showgrid=False,
        zeroline=False,
        fixedrange=True,
        row=row,
    )


def labels_of(texts: Sequence[str], tokens: Sequence[int], length: int) -> list[str]:
    """Tokens and their indices, as labels of columns."""
    return [f"{markup(texts[t], length)}<br>{t}" for t in tokens]


def words(lens: PromptLens, tokens: Sequence[int], length: int) -> list[list[str]]:
    """The most probable token of every cell, cut to what fits."""
    found = lens.data["top_text"].isel(k=0, token=list(tokens)).values
    return [[markup(str(text), length) for text in row] for row in found]


def hovers(lens: PromptLens, tokens: Sequence[int]) -> list[list[str]]:
    """The hover text of every cell: the best tokens, the entropy, and the target."""
    data, texts = lens.data, lens.texts
    target = markup(str(lens.provenance["target"]))
    best, logprob = data["top_text"].values, data["top_logprob"].values
    entropy = data["entropy"].values

    def cell(i: int, layer: int, t: int) -> str:
        said = [f"after token {t}, <b>{markup(texts[t])}</b>; after block {layer}"]
        for text, nats in zip(best[i, t], logprob[i, t], strict=True):
            said.append(f"{np.exp(nats):.4f}  {markup(str(text))}")
        said.append(f"entropy {entropy[i, t]:.2f} nats")
        if lens.provenance["target"] is not None:
            p = np.exp(float(data["target_logprob"].values[i, t]))
            rank = int(data["target_rank"].values[i, t])
            said.append(f"target {target}: {p:.2g}, rank {rank:,} (0: on top)")
        return "<br>".join(said)

    return [[cell(i, layer, t) for t in tokens] for i, layer in enumerate(lens.layers)]


def token_cells(
    z: Any, text: list[list[str]], hover: list[list[str]], axis: str, size: int = 11
) -> go.Heatmap:
    """Cells with a text in each, coloured on a shared axis."""
    return go.Heatmap(
        z=z,
        x=list(range(len(text[0]))),
        y=list(range(len(text))),
        text=text,
        texttemplate="%{text}",
        textfont={"size": size, "color": INK},
        hovertext=hover,
        hovertemplate="%{hovertext}<extra></extra>",
        coloraxis=axis,
        xgap=1,
        ygap=1,
        name="",
    )


def colour_bar(text: str, **more: Any) -> dict[str, Any]:
    """A colour bar beside the first line, as high as the lowest line."""
    return {
        "title": {"text": text, "font": {"size": 12}},
        "tickfont": {"size": 11},
        "thickness": 12,
        "lenmode": "pixels",
        "len": LEAST,
        "y": 1,
        "yanchor": "top",
        **more,
    }
