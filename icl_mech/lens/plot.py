"""Figures of a logit lens: what every layer would answer."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.plotting.marks import band
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, INK, MARGIN, state, subject, title

if TYPE_CHECKING:
    from icl_mech.lens import LogitLens
    from icl_mech.stats import Estimate

_HEIGHT, _GAP = 300, 80
_NAMES = {
    "answer": ("right answer", "answer", "solid"),
    "query": ("the query itself", "query", "solid"),
    "other": ("another task's answer", "other_task", "dash"),
    "prior": ("most frequent answer", "prior", "dot"),
}
_VALUES = {"probability": "mean probability", "log_rank": "rank (geometric mean)"}
#: Height in pixels of a row of a token table.
_ROW = 26


def lens_figure(result: LogitLens, role: str) -> go.Figure:
    """One row per task: mean probability on the left, mean rank on the right."""
    tasks, layers = result.tasks, result.layers
    titles = [f"{escape(t)}: {name}" for t in tasks for name in _VALUES.values()]
    figure = rows_of_panels([_HEIGHT] * len(tasks), _GAP, titles, 2, horizontal_spacing=0.09)
    for row, task in enumerate(tasks, 1):
        for column, value in enumerate(_VALUES, 1):
            for target in _NAMES:
                curve = result.curve(task, target, role, value)
                if curve[0].n:
                    _draw(figure, layers, curve, target, value, row, column)
        first = result.first_layer(task, "answer", role)
        if np.isfinite(first.value):
            figure.add_vline(
                x=first.value,
                line={"color": COLOURS["answer"], "dash": "dot", "width": 1.5},
                row=row,
                col=2,
            )
    _legend_once(figure)
    worst = float(np.log10(result.data["rank"].max() + 1.0))
    decades = list(range(int(np.ceil(worst)) + 1))
    figure.update_yaxes(gridcolor=GRID, zeroline=False)
    figure.update_yaxes(range=[-0.03, 1.05], title_text="probability", col=1)
    figure.update_yaxes(
        range=[worst + 0.1, -0.15],
        tickvals=decades,
        ticktext=["top", *(f"{10**d:,}th" for d in decades[1:])],
        col=2,
    )
    step = 1 if len(layers) <= 12 else 2 if len(layers) <= 30 else 4
    figure.update_xaxes(gridcolor=GRID, zeroline=False, dtick=step, tick0=-1)
    figure.update_xaxes(title_text=f"{AFTER_BLOCK}<br>(-1: the embedding)", row=len(tasks))
    p = result.provenance
    lens = "" if p["translator"] is None else f"; translator {escape(p['translator'])}"
    state(
        figure,
        result,
        f"What would each layer answer? {subject(tasks)}, {escape(p['model'])}",
        f"logit lens at {escape(role)}; {result.data.sizes['prompt']} prompts, {p['n_shots']} "
        f"shots, seed {p['seed']}{lens}; bands: 95 % bootstrap intervals; dotted line: median "
        "layer after which the answer is first on top",
        result.finding(role),
    )
    frame(figure, below=60, legend=True)
    return figure


def _draw(
    figure: go.Figure,
    layers: list[int],
    curve: list[Estimate],
    target: str,
    value: str,
    row: int,
    column: int,
) -> None:
    name, colour, dash = _NAMES[target]
    if curve[0].n > 1:
        figure.add_trace(band(layers, curve, COLOURS[colour], name), row=row, col=column)
    if value == "probability":
        text = [f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]" for e in curve]
    else:
        text = [
            f"rank {10**e.value - 1:,.1f} [{10**e.low - 1:,.1f}, {10**e.high - 1:,.1f}]"
            for e in curve
        ]
    figure.add_trace(
        go.Scatter(
            x=layers,
            y=[e.value for e in curve],
            mode="lines+markers",
            name=name,
            legendgroup=name,
            line={"color": COLOURS[colour], "width": 3 if target == "answer" else 2, "dash": dash},
            marker={"size": 5},
            customdata=[[t, e.n] for t, e in zip(text, curve, strict=True)],
            hovertemplate=(
                f"<b>{name}</b><br>after block %{{x}}: %{{customdata[0]}}<br>"
                "n = %{customdata[1]} prompts<extra></extra>"
            ),
        ),
        row=row,
        col=column,
    )


def _legend_once(figure: go.Figure) -> None:
    """Show every curve once in the legend, even if several panels have it."""
    seen: set[str] = set()
    for trace in figure.data:
        if trace.name:
            trace.showlegend = trace.name not in seen
            seen.add(trace.name)


def prompt_figure(result: LogitLens, task: str, i: int) -> go.Figure:
    """Top tokens of one prompt: layers downwards, roles (or places, for one role) across."""
    names = ["top_text", "top_logprob", "query", "answer"]
    here = result.data[names].sel(task=task).isel(prompt=i)
    if len(result.roles) > 1:
        here = here.isel(k=0).transpose("layer", "role")
        columns = [escape(role) for role in result.roles]
    else:
        here = here.isel(role=0).transpose("layer", "k")
        columns = ["most probable", *(f"number {k + 1}" for k in range(1, here.sizes["k"]))]
    figure = token_map(
        here["top_text"].values.tolist(),
        np.exp(here["top_logprob"].values),
        [str(layer) for layer in result.layers],
        columns,
        AFTER_BLOCK,
    )
    p = result.provenance
    title(
        figure,
        f"One prompt, layer by layer: {escape(task)}, {escape(p['model'])}",
        f"query {escape(str(here['query'].item()))}, right answer "
        f"{escape(str(here['answer'].item()))}; tokens in quotes, colour: their probability",
    )
    # Room for the names of the columns between subtitle and table.
    figure.layout.margin.t += 20
    figure.layout.height += figure.layout.margin.t - MARGIN["t"]
    return figure


def token_map(
    tokens: list[list[str]],
    shade: np.ndarray,
    rows: list[str],
    columns: list[str],
    what: str,
) -> go.Figure:
    """A table of tokens on a colour from 0 to 1, first row at the bottom.

    `columns` must be escaped already; tokens must not.
    """
    figure = go.Figure(
        go.Heatmap(
            z=shade,
            x=list(range(len(columns))),
            y=list(range(len(rows))),
            text=[[shortened(token, 18) for token in row] for row in tokens],
            texttemplate="%{text}",
            textfont={"size": 13, "color": INK},
            customdata=[
                [[quoted(token), row, column] for token, column in zip(line, columns, strict=True)]
                for line, row in zip(tokens, rows, strict=True)
            ],
            hovertemplate=(
                f"<b>%{{customdata[0]}}</b><br>{what} %{{customdata[1]}}, %{{customdata[2]}}<br>"
                "probability %{z:.3f}<extra></extra>"
            ),
            zmin=0,
            zmax=1,
            colorscale=[[0, "#FFFFFF"], [1, "#6BAED6"]],
            colorbar={"title": {"text": "probability"}, "thickness": 12, "tickfont": {"size": 11}},
            xgap=1,
            ygap=1,
            name="",
        )
    )
    figure.update_xaxes(
        side="top", tickvals=list(range(len(columns))), ticktext=columns, showgrid=False
    )
    figure.update_yaxes(
        tickvals=list(range(len(rows))), ticktext=rows, showgrid=False, title_text=what
    )
    figure.update_layout(height=_ROW * len(rows) + MARGIN["t"] + MARGIN["b"])
    return figure


def quoted(token: str) -> str:
    """A token for plotly: its markup escaped, in quotes that show its spaces."""
    return f"'{escape(token, quote=False)}'"  # plotly does not know &quot;


def shortened(token: str, length: int) -> str:
    """A token as `quoted` gives it, cut to `length` characters."""
    return quoted(token if len(token) <= length else token[: length - 1] + "…")
