"""What all figures share: colours, fonts, margins, titles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape, unescape

import plotly.graph_objects as go

#: One colour per meaning, the same in every figure (Okabe and Ito's colour-blind safe set).
COLOURS = {
    "theta": "#0072B2",
    "regular": "#009E73",
    "baseline": "#555555",
    "prior": "#999999",
    "shuffled": "#E69F00",
    "other_task": "#CC79A7",
    "random": "#D55E00",
    "function": "#7B3294",
    "encoding": "#882255",
    "transfer": "#0072B2",
    "lens": "#117733",
    "heads": "#999933",
    "answer": "#009E73",
    "query": "#E69F00",
}
FONT = {"family": "Helvetica, Arial, DejaVu Sans, sans-serif", "size": 14, "color": "#222222"}
GRID = "#E8E8E8"
MARGIN = {"l": 70, "r": 30, "t": 95, "b": 70}
#: The narrowest page that everything must fit into, in pixels.
NARROWEST = 800
#: What plotly's tool bar takes at the top right, in pixels: titles stand below it.
_TOOL_BAR = 34
#: Axes of layers. One convention everywhere: blocks count from 0, and layer l is the residual
#: stream after block l (`blocks.l.hook_resid_post`); what is before a block says so.
AFTER_BLOCK = "layer l: output of block l, from 0"
IN_BLOCK = "block l, from 0"
_TAG = re.compile(r"<[^>]*>")


def wrapped(text: str, width: float, size: int) -> str:
    """Text in as many lines as it takes.

    Args:
        text: escaped; tags take no room, and a `<br>` stays where it is.
        width: of a line, in pixels.
        size: of the font, in pixels; a character is about half as wide.
    """
    fits = max(1, int(width / (0.53 * size)))
    lines = []
    for line in text.split("<br>"):
        taken = 0
        words: list[str] = []
        # A tag has spaces of its own, which are none of the text's.
        for word in re.findall(r"(?:<[^>]*>|[^\s<]|<(?![^>]*>))+", line):
            length = len(unescape(_TAG.sub("", word)))
            if words and taken + 1 + length > fits:
                lines.append(" ".join(words))
                taken, words = 0, []
            taken += length + bool(words)
            words.append(word)
        lines.append(" ".join(words))
    return "<br>".join(lines)


def n_lines(text: str) -> int:
    """How many lines a text has in a figure."""
    return text.count("<br>") + 1


def title(figure: go.Figure, text: str, subtitle: str) -> None:
    """Set the look that all figures share. Both texts must be escaped already.

    They are broken into lines that fit the narrowest page, and the top margin holds them all below
    plotly's tool bar.
    """
    room = float(NARROWEST - 40)
    text, subtitle = wrapped(text, room, 20), wrapped(subtitle, room, 13)
    top = _TOOL_BAR + 26 * n_lines(text) + 17 * n_lines(subtitle) + 30
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        title={
            "text": text,
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": "#666666"}},
            "x": 0.01,
            "xanchor": "left",
            # Pixels from the top, however tall the figure is.
            "y": 1,
            "yanchor": "top",
            "pad": {"t": _TOOL_BAR},
        },
        margin={**MARGIN, "t": top},
        hovermode="closest",
    )


def subject(names: Sequence[str]) -> str:
    """The one task, escaped, or how many there are."""
    return escape(names[0]) if len(names) == 1 else f"{len(names)} tasks"


def short(names: Sequence[str], tasks: Sequence[str] | None = None) -> list[str]:
    """Names without the family that all tasks share ("verbs/past" -> "past"), escaped.

    Args:
        names: of tasks, and of others, which stay as they are.
        tasks: who decide whether there is one family; `names` by default.
    """
    families = {name.rpartition("/")[0] for name in tasks or names}
    if len(families) > 1 or "" in families:
        return [escape(name) for name in names]
    (family,) = families
    return [escape(name.removeprefix(f"{family}/")) for name in names]
