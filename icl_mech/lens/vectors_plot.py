"""The figure of a vector lens: the top tokens of task vectors, coloured by what they are."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.lens.plot import quoted
from icl_mech.plotting.panels import frame
from icl_mech.plotting.style import AFTER_BLOCK, INK, MARGIN, RULE, state

if TYPE_CHECKING:
    from icl_mech.lens import VectorLens

_ROW = 30
_SHOWN = 10
#: Characters in a line of a cell on the narrowest page; a token has up to two lines.
_LINE = 9
#: Colours light enough for dark text, in the hues of theta, answer and query.
_KINDS = {
    "": ("other tokens", "#F7F7F7"),
    "naming": ("name the task", "#8DC1E8"),
    "answers": ("begin an answer", "#93D9C2"),
    "inputs": ("begin an input", "#F6CF7E"),
}
_AVERAGES = {
    "log_probability": "log probabilities averaged over vectors",
    "vector": "the mean vector",
}
_VECTORS = {"theta": "θ", "function": "the function vector", "held": "the held vector"}


def vector_figure(result: VectorLens, task: str | None, layer: int | None) -> go.Figure:
    """Tokens across; layers of one task, or (no task) all tasks at one layer, downwards."""
    if task is None:
        rows = [(t, layer) for t in result.tasks]
        labels, what = [escape(t) for t in result.tasks], f"after block {layer}"
    else:
        layers = result.layers if layer is None else [layer]
        rows = [(task, x) for x in reversed(layers)]
        labels, what = [str(x) for _, x in rows], escape(task)
    found = [result.data.sel(task=t, layer=x) for t, x in rows]
    n = min(_SHOWN, result.data.sizes["k"])
    figure = go.Figure(_cells(found, labels, n))
    for name, colour in _KINDS.values():
        figure.add_trace(
            go.Scatter(
                x=[None],
                y=[None],
                mode="markers",
                marker={
                    "symbol": "square",
                    "size": 14,
                    "color": colour,
                    "line": {"color": RULE, "width": 1},
                },
                name=name,
            )
        )
    figure.update_xaxes(
        side="top",
        tickvals=list(range(n)),
        ticktext=[str(k) for k in range(1, n + 1)],
        showgrid=False,
        zeroline=False,
    )
    if any(x == -1 for _, x in rows):  # function vectors have no layers
        labels = [escape(t) for t, _ in rows]
        what = "function vectors" if task is None else what
    figure.update_yaxes(
        tickvals=list(range(len(labels))),
        ticktext=labels,
        title_text=_of_rows(len(rows)) if task is not None and rows[0][1] != -1 else None,
        autorange="reversed",
        showgrid=False,
        zeroline=False,
    )
    p = result.provenance
    state(
        figure,
        result,
        f"What does {_VECTORS[p['vector']]} say? {what}, {escape(p['model'])}",
        "top tokens, most probable first, after final norm and unembedding, "
        f"{_read(result)}"
        f"{'; only words are shown' if p['only_words'] else ''}",
    )
    longest = max(map(len, labels))
    figure.update_layout(height=_ROW * len(labels))
    figure.layout.margin.t += 25  # the axis on top
    frame(figure, legend=True, l=max(MARGIN["l"], 25 + 8 * longest))
    return figure


def _read(result: VectorLens) -> str:
    """The part of the subtitle that says which vectors were read."""
    p = result.provenance
    if p["vector"] == "held":
        return f"of the vector {escape(p['held']['name'], quote=False)}"
    return (
        f"{_AVERAGES[p['average']]} ({result.data.sizes['prompt']} vectors, {p['n_shots']} shots, "
        f"seed {p['seed']})"
    )


def _of_rows(n: int) -> str:
    """The title of the axis of layers; shortened if the rows are too low for the full title."""
    return AFTER_BLOCK if n * _ROW > 9 * len(AFTER_BLOCK) else "after block"


def _cells(found: list, labels: list[str], n: int) -> go.Heatmap:
    """A row of tokens for each entry, on the colours of `_KINDS`."""
    kinds = list(_KINDS)
    steps = []
    for i, (_, colour) in enumerate(_KINDS.values()):
        steps += [[i / len(kinds), colour], [(i + 1) / len(kinds), colour]]
    tokens = [[str(t) for t in at["top_text"].values[:n]] for at in found]
    shares = [at["top_logprob"].values[:n] for at in found]
    return go.Heatmap(
        z=[[kinds.index(str(k)) for k in at["top_kind"].values[:n]] for at in found],
        x=list(range(n)),
        y=list(range(len(found))),
        zmin=-0.5,
        zmax=len(kinds) - 0.5,
        colorscale=steps,
        showscale=False,
        xgap=1,
        ygap=1,
        text=[[_in_cell(t) for t in row] for row in tokens],
        texttemplate="%{text}",
        textfont={"size": 10, "color": INK},
        customdata=[
            [[quoted(t), label, float(s)] for t, s in zip(row, share, strict=True)]
            for row, share, label in zip(tokens, shares, labels, strict=True)
        ],
        hovertemplate=(
            "<b>%{customdata[0]}</b><br>%{customdata[1]}<br>"
            "mean log probability %{customdata[2]:.2f}<extra></extra>"
        ),
        name="",
    )


def _in_cell(token: str) -> str:
    """A token as `quoted` gives it, on two lines if it is long, and cut if it is even longer.

    >>> _in_cell(" Rome"), _in_cell(" Washington")
    ("' Rome'", "' Washi<br>ngton'")
    """
    if len(token) <= _LINE:
        return quoted(token)
    if len(token) > 2 * _LINE:
        token = token[: 2 * _LINE - 1] + "…"
    half = -(-len(token) // 2)
    return f"{quoted(token[:half])[:-1]}<br>{quoted(token[half:])[1:]}"
