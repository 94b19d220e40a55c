"""The figure of two prompts' lenses and their difference."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.one_prompt import columns
from icl_mech.one_prompt.lens_plot import BLUE
from icl_mech.one_prompt.tokens import markup
from icl_mech.plotting.panels import frame
from icl_mech.plotting.style import state

if TYPE_CHECKING:
    from icl_mech.one_prompt.compare import ComparedPrompts
    from icl_mech.one_prompt.lens import PromptLens

#: Colours of less and more probable; pale enough for dark text.
CHANGE = [[0, "#6BAED6"], [0.5, "#FFFFFF"], [1, "#F4A582"]]
#: Pixels of a row; and differences (nats) at which the colour ends, at least and at most.
ROW, NEAR, FAR = 17, 1.0, 10.0


def compare_figure(both: ComparedPrompts) -> go.Figure:
    """For every line of tokens, three maps: a, b, and the difference b - a."""
    shown = columns.chosen(both.data.sizes["column"], None)
    lines = [[shown[i] for i in line] for line in columns.lines(len(shown))]
    width = len(lines[0])
    length = columns.fits(width)
    figure = columns.panels(3 * len(lines), len(both.layers), ROW)
    for i, line in enumerate(lines):
        for j, (name, lens) in enumerate((("a", both.a), ("b", both.b))):
            tokens = both.data[f"token_{name}"].values[line].tolist()
            z = np.exp(lens.data["top_logprob"].values[:, tokens, 0])
            text, hover = columns.words(lens, tokens, length), columns.hovers(lens, tokens)
            cells = columns.token_cells(z, text, hover, "coloraxis", 10)
            row = 3 * i + j + 1
            figure.add_trace(cells, row=row, col=1)
            labels = columns.labels_of(lens.texts, tokens, length)
            columns.dress(figure, row, both.layers, labels, width, _axis_name(f"<b>{name}</b>"))
        _difference(figure, both, line, width, 3 * i + 3)
    _style(figure, both, len(shown))
    return figure


def _axis_name(name: str) -> str:
    return f"{name}: after block l<br>(-1: the embedding)"


def _difference(
    figure: go.Figure, both: ComparedPrompts, line: list[int], width: int, row: int
) -> None:
    """The map of the difference b - a."""
    z = both.data["difference"].values[:, line]
    text = [[_number(value) for value in values] for values in z.tolist()]
    figure.add_trace(
        columns.token_cells(z, text, _hovers(both, line), "coloraxis2", 10), row=row, col=1
    )
    length = columns.fits(width)
    labels = [_label(both, i, length) for i in line]
    columns.dress(figure, row, both.layers, labels, width, _axis_name("<b>b - a</b>"))


def _number(value: float) -> str:
    """A change with its sign, or 0 if it rounds to 0.

    >>> _number(-0.04), _number(1.26)
    ('0', '+1.3')
    """
    text = f"{value:+.1f}"
    return "0" if float(text) == 0 else text


def _label(both: ComparedPrompts, i: int, length: int) -> str:
    """The label of a column: its target, or, if one was given, its token in a above that in b."""
    if both.provenance["target"] is None:
        return f"p of<br>{markup(str(both.data['target'].values[i]), length)}"
    pairs = ((both.a, "token_a"), (both.b, "token_b"))
    return "<br>".join(
        markup(lens.texts[int(both.data[name].values[i])], length) for lens, name in pairs
    )


def _hovers(both: ComparedPrompts, line: list[int]) -> list[list[str]]:
    data = both.data
    names = [
        f"{markup(both.a.texts[data['token_a'].values[i]])} in a, "
        f"{markup(both.b.texts[data['token_b'].values[i]])} in b"
        for i in line
    ]

    def cell(row: int, layer: int, i: int, name: str) -> str:
        p_a, p_b = (np.exp(data[f"logprob_{x}"].values[row, i]) for x in ("a", "b"))
        target = markup(str(data["target"].values[i]))
        return (
            f"after <b>{name}</b>; after block {layer}<br>"
            f"p({target}) = {p_a:.2g} in a, {p_b:.2g} in b<br>"
            f"difference of log p: {data['difference'].values[row, i]:+.2f} nats"
        )

    return [
        [cell(row, layer, i, name) for i, name in zip(line, names, strict=True)]
        for row, layer in enumerate(both.layers)
    ]


def _style(figure: go.Figure, both: ComparedPrompts, n_shown: int) -> None:
    largest = float(np.abs(both.data["difference"].values).max())
    limit = min(FAR, max(NEAR, largest))
    under = {"y": 1 - 260 / figure.layout.height}
    figure.update_layout(
        coloraxis={
            "colorscale": BLUE,
            "cmin": 0,
            "cmax": 1,
            "colorbar": columns.colour_bar("p(top<br>token)"),
        },
        coloraxis2={
            "colorscale": CHANGE,
            "cmin": -limit,
            "cmax": limit,
            "colorbar": columns.colour_bar("change of<br>log p<br>(nats)", **under),
        },
    )
    state(
        figure,
        both,
        f"What does b change? {escape(both.provenance['model'])}",
        _subtitle(both, n_shown),
    )
    frame(figure)
    figure.layout.margin.t += columns.ABOVE
    figure.layout.height += columns.ABOVE


def _subtitle(both: ComparedPrompts, n_shown: int) -> str:
    n = both.data.sizes["column"]
    aligned = both.provenance["aligned"]
    how = (
        f"prompts of {n} tokens, compared token by token"
        if aligned == "token by token"
        else f"prompts of {len(both.a.texts)} and {len(both.b.texts)} tokens, aligned at their "
        f"last token; the last {n} are compared"
    )
    target = both.provenance["target"]
    of = "what a's last layer says after the token" if target is None else markup(target)
    lines = [f"{how}{columns.left_out(n, range(n_shown))}"]
    lines += [_written(name, lens) for name, lens in (("a", both.a), ("b", both.b))]
    lines.append(f"logit lenses; b - a: log probability (nats) of {of}")
    return "; ".join(filter(None, lines))


def _written(name: str, lens: PromptLens) -> str:
    vector = lens.provenance["vector"]
    return (
        ""
        if vector is None
        else f"{name} with {markup(vector, 120, spaces=False)} at its last token"
    )
