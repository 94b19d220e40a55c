"""What all figures share: colours, fonts, margins, titles."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape, unescape
from typing import TYPE_CHECKING

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

if TYPE_CHECKING:
    from icl_mech.shown import Shown

#: One colour per meaning, the same in every figure (after Okabe and Ito's colour-blind safe set).
COLOURS = {
    "theta": "#0072B2",
    "regular": "#009E73",
    "baseline": "#555555",
    "prior": "#999999",
    "shuffled": "#E69F00",
    "other_task": "#CC79A7",
    "random": "#D55E00",
    "function": "#7B3294",
    "function_unscaled": "#B07CC6",
    "encoding": "#882255",
    "probe": "#2E8B8B",
    "transfer": "#0072B2",
    "lens": "#117733",
    "heads": "#999933",
    "masking": "#C26A2E",
    "answer": "#009E73",
    "query": "#E69F00",
    "within": "#4B3FA0",
    "between": "#CC79A7",
    "right": "#009E73",
    "wrong": "#D55E00",
    "states": "#56B4E9",
    "alone": "#C4C4C4",
}
#: Colours, in order, of items without a colour of their own: models, families, bases.
SERIES = (
    "#0072B2", "#E69F00", "#117733", "#CC79A7", "#7B3294", "#D55E00", "#882255", "#999933",
)  # fmt: skip
#: The scale from which colours of ordered items are taken, see `shades`.
_ORDERED = ["#7E57C2", "#2A7FBF", "#1F9E89", "#7FA02A", "#C98F1A"]
#: Colours of the page, of text, of less prominent text, of separating lines, and of the grid.
PAPER, INK, QUIET, RULE, GRID = "#FFFFFF", "#222222", "#666666", "#888888", "#E8E8E8"
#: The background of every second group of rows.
BAND = "#F4F4F4"
#: A green that is dark enough for text, see `as_text`.
_GREEN = "#006B4E"
#: The colours that replace these on a dark page. All other colours are visible on both backgrounds.
#: No dark colour occurs twice, or in a light figure, so that a page can restore the light ones.
DARK = {
    PAPER: "#16191D",
    INK: "#E4E4E3",
    QUIET: "#A9A9A8",
    GRID: "#33373C",
    BAND: "#1E2227",
    "#0072B2": "#4BA3DB",
    "#555555": "#959594",
    "#7B3294": "#C08AD6",
    "#882255": "#D97FA9",
    "#117733": "#4FB36F",
    "#4B3FA0": "#9A90E8",
    _GREEN: "#35BF95",
    "#C4C4C4": "#50545A",
    # Colours of plotly's own template: text and error bars, and grids.
    "#2A3F5F": "#D9DADA",
    "#EBF0F8": "#34383D",
}
#: The look of menus, the same on light and dark pages, as plotly's own colour of entries is light.
MENU = {"bgcolor": PAPER, "font": {"color": INK, "size": 13}, "bordercolor": RULE}
FONT = {"family": "Helvetica, Arial, DejaVu Sans, sans-serif", "size": 14, "color": INK}
MARGIN = {"l": 70, "r": 30, "t": 95, "b": 70}
#: The narrowest page that everything must fit into, in pixels.
NARROWEST = 800
#: The height of plotly's tool bar at the top right, in pixels; titles stand below it.
_TOOL_BAR = 34
#: Titles of axes of layers. All figures use one convention: blocks are counted from 0, and layer l
#: is the residual stream after block l (`blocks.l.hook_resid_post`). Figures of activations before
#: a block say so.
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
        # Spaces inside a tag do not separate words.
        for word in re.findall(r"(?:<[^>]*>|[^\s<]|<(?![^>]*>))+", line):
            length = len(unescape(_TAG.sub("", word)))
            if words and taken + 1 + length > fits:
                lines.append(" ".join(words))
                taken, words = 0, []
            taken += length + bool(words)
            words.append(word)
        lines.append(" ".join(words))
    return "<br>".join(lines)


def as_text(colour: str) -> str:
    """The colour of text that goes with a colour of lines: dark enough on white.

    >>> as_text("#009E73"), as_text("#555555")
    ('#006B4E', '#555555')
    """
    return {COLOURS["regular"]: _GREEN}.get(colour, colour)


def shades(n: int) -> list[str]:
    """Colours of ordered items (layers, scales, checkpoints), visible on light and dark pages."""
    places = [i / (n - 1) for i in range(n)] if n > 1 else [0.5]
    return [_as_hex(colour) for colour in sample_colorscale(_ORDERED, places, colortype="tuple")]


def tints(colour: str, n: int) -> list[str]:
    """Colours of `n` ordered items: the last one has this colour, those before it are paler.

    >>> tints("#882255", 2)
    ['#C99CB2', '#882255']
    """
    pale = [1 - 0.55 * (1 - i / (n - 1)) for i in range(n - 1)]
    scale = [[0, "#FFFFFF"], [1, colour]]
    return [*(_as_hex(c) for c in sample_colorscale(scale, pale, colortype="tuple")), colour]


def _as_hex(colour: Sequence[float]) -> str:
    return "#" + "".join(f"{round(255 * part):02X}" for part in colour)


def n_lines(text: str) -> int:
    """How many lines a text has in a figure."""
    return text.count("<br>") + 1


def title(figure: go.Figure, text: str, subtitle: str) -> None:
    """Set the look that all figures share. Both texts must be escaped already.

    They are broken into lines that fit the narrowest page. The top margin has room for all lines
    below plotly's tool bar.
    """
    room = float(NARROWEST - 40)
    text, subtitle = wrapped(text, room, 20), wrapped(subtitle, room, 13)
    top = _TOOL_BAR + 26 * n_lines(text) + 17 * n_lines(subtitle) + 30
    figure.update_layout(
        template="plotly_white",
        # Explicit, so that a notebook with a dark theme does not shine through.
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font=FONT,
        title={
            "text": text,
            "font": {"color": INK},
            "subtitle": {"text": subtitle, "font": {"size": 13, "color": QUIET}},
            "x": 0.01,
            "xanchor": "left",
            # Pixels from the top, however tall the figure is.
            "y": 1,
            "yanchor": "top",
            # Plotly lifts the first line by half of each that follows.
            "pad": {"t": _TOOL_BAR + 13 * (n_lines(text) - 1)},
        },
        margin={**MARGIN, "t": top},
        hovermode="closest",
    )


def state(
    figure: go.Figure, shown: Shown, question: str, method: str, finding: str | None = None
) -> None:
    """Set the look: the finding as the title, the question and the method as the subtitle.

    If there is no finding in one sentence, the title is the question. If prompts or queries are
    few, the subtitle says what this does to the intervals, so that exported images contain it.

    Args:
        figure: to be titled.
        shown: the result that is drawn; gives the finding and the line about few prompts.
        question: what the figure shows, of which task and model; escaped.
        method: settings and intervals, in short; escaped.
        finding: plain text; by default `shown.finding()`.
    """
    found = shown.finding() if finding is None else finding
    few = shown.few()
    lines = [*([question] if found else []), method, *([f"<b>{_escaped(few)}</b>"] if few else [])]
    title(figure, _escaped(found) or question, "<br>".join(lines))


def _escaped(text: str) -> str:
    """Plain text, escaped for plotly, which shows &quot; as it is and formulas between dollars."""
    return escape(text, quote=False).replace("$", "&#36;")


def subject(names: Sequence[str]) -> str:
    """The one task, escaped, or how many there are."""
    return escape(names[0]) if len(names) == 1 else f"{len(names)} tasks"


def short(names: Sequence[str], tasks: Sequence[str] | None = None) -> list[str]:
    """Names without the family that all tasks share ("verbs/past" -> "past"), escaped.

    Args:
        names: of tasks; names of anything else stay as they are.
        tasks: the tasks that must all be of one family; `names` by default.
    """
    families = {name.rpartition("/")[0] for name in tasks or names}
    if len(families) > 1 or "" in families:
        return [escape(name) for name in names]
    (family,) = families
    return [escape(name.removeprefix(f"{family}/")) for name in names]
