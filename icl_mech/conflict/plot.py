"""Figures of conflicting tasks: bars per pair with intervals, or a map of task by task."""

from __future__ import annotations

from html import escape
from math import ceil
from textwrap import wrap
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from icl_mech.plotting.marks import interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, INK, PAPER, state

if TYPE_CHECKING:
    from icl_mech.conflict import ConflictingTasks

#: The task that an answer follows: its name and colour.
FOLLOWS = {
    "prompt": ("the prompt's task (A)", COLOURS["regular"]),
    "injected": ("the injected task (B)", COLOURS["theta"]),
}
#: Labels of the conditions under the bars.
CONDITIONS = {
    "regular": "no vector",
    "injected": "θ of B",
    "own": "θ of A",
    "random": "random",
    "zero_shot": "θ of B,<br>zero-shot",
}
#: Colour scale of the map, from the colour of the prompt's task to that of the injected one.
_WINS = [[0, FOLLOWS["prompt"][1]], [0.5, "#FFFFFF"], [1, FOLLOWS["injected"][1]]]
_HEIGHT, _GAP, _COLS = 250, 105, 2
_UNDEFINED = "#DDDDDD"


def conflict_bars_figure(result: ConflictingTasks, task: str | None = None) -> go.Figure:
    """One panel per pair: which task is answered without a vector, with B's, and with controls.

    Diamonds are the shares that the paper reports (LLaMA-13B).

    Args:
        result: to be drawn.
        task: only pairs with this task.
    """
    pairs = result.pairs_with(task)
    cols = min(_COLS, len(pairs))
    rows = ceil(len(pairs) / cols)
    figure = rows_of_panels(
        [_HEIGHT] * rows,
        _GAP,
        [_panel_title(result, pair) for pair in pairs],
        cols,
        horizontal_spacing=0.07,
    )
    for i, pair in enumerate(pairs):
        place = {"row": i // cols + 1, "col": i % cols + 1}
        for trace in (_bars, _published):
            for follows in FOLLOWS:
                figure.add_trace(trace(result, pair, follows, i == 0), **place)
    figure.update_yaxes(range=[0, 1.08], gridcolor=GRID, zeroline=False, dtick=0.25)
    figure.update_yaxes(title_text="share of answers", col=1)
    figure.update_xaxes(showgrid=False, tickangle=0)
    p = result.provenance
    state(
        figure,
        result,
        f"The prompt shows task A, θ of task B is injected: which is answered? "
        f"{escape(p['model'])}",
        f"{result.data.sizes['prompt']} prompts per pair, {p['n_shots']} shots, seed {p['seed']}; "
        "layer chosen on dev prompts of B; bars: 95 % intervals over queries; "
        "rest to 1: neither",
        result.finding(task),
    )
    figure.update_layout(barmode="group", bargap=0.25, scattermode="group", scattergap=0.25)
    frame(figure, below=50, legend=True)
    return figure


def conflict_matrix_figure(result: ConflictingTasks) -> go.Figure:
    """A map: the prompt's task in rows, the injected task in columns; grey: no conflict."""
    tasks = result.tasks
    names = [escape(task) for task in tasks]
    table = result.matrix()
    figure = rows_of_panels([max(220, 34 * len(tasks))], 0, None)
    figure.add_trace(_blank(result, names))
    figure.add_trace(
        go.Heatmap(
            z=table.to_numpy(),
            x=names,
            y=names,
            zmin=-1,
            zmax=1,
            colorscale=_WINS,
            xgap=2,
            ygap=2,
            text=[["" if v != v else f"{v:+.2f}" for v in row] for row in table.to_numpy()],
            texttemplate="%{text}",
            textfont={"size": 11},
            customdata=[[_about(result, a, b) for b in tasks] for a in tasks],
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            colorbar={
                "title": {"text": "injected −<br>prompt's"},
                "thickness": 14,
                "tickvals": [-1, -0.5, 0, 0.5, 1],
            },
            name="",
        )
    )
    figure.update_yaxes(autorange="reversed", title_text="the prompt's task (A)", showgrid=False)
    figure.update_xaxes(title_text="the injected task (B)", showgrid=False, tickangle=-40)
    p = result.provenance
    state(
        figure,
        result,
        f"Does the answer follow the injected task or the prompt's? {escape(p['model'])}",
        "share of answers that follow θ of B minus share that follow the prompt's A; "
        f"{result.data.sizes['prompt']} prompts per pair, {p['n_shots']} shots, seed {p['seed']}; "
        "grey: undefined (hover)",
    )
    longest = max(map(len, tasks))
    frame(figure, below=6 * longest, l=60 + 8 * longest)
    return figure


def _panel_title(result: ConflictingTasks, pair: str) -> str:
    a, b = (escape(name) for name in result.tasks_of(pair))
    return f"A: <b>{a}</b>   B: <b>{b}</b>, block {result.layer(pair)}"


def _bars(result: ConflictingTasks, pair: str, follows: str, shown: bool) -> go.Bar:
    name, colour = FOLLOWS[follows]
    found = [result.share(pair, follows, condition) for condition in CONDITIONS]
    return go.Bar(
        x=list(CONDITIONS.values()),
        y=[e.value for e in found],
        error_y=interval_whiskers(found, color=INK),
        marker_color=colour,
        name=f"follows {name}",
        offsetgroup=follows,
        legendgroup=follows,
        showlegend=shown,
        customdata=[[e.low, e.high, e.n_clusters] for e in found],
        hovertemplate=(
            f"%{{x}}: %{{y:.2f}} [%{{customdata[0]:.2f}}, %{{customdata[1]:.2f}}] follow {name}"
            "<br>%{customdata[2]} different queries<extra></extra>"
        ),
    )


def _published(result: ConflictingTasks, pair: str, follows: str, shown: bool) -> go.Scatter:
    """The published shares as diamonds; none if the paper lacks the pair."""
    known = result.published(pair)
    index = list(FOLLOWS).index(follows)
    values: list[float | None] = [None, None]
    if known is not None:
        values = [known.regular[index], known.injected[index]]
    name = f"LLaMA-13B, published: {'A' if follows == 'prompt' else 'B'}"
    return go.Scatter(
        x=[CONDITIONS["regular"], CONDITIONS["injected"]],
        y=values,
        mode="markers",
        cliponaxis=False,
        marker={
            "symbol": "diamond",
            "size": 11,
            "color": FOLLOWS[follows][1],
            "line": {"width": 2, "color": PAPER},
        },
        name=name,
        offsetgroup=follows,
        legendgroup=f"published {follows}",
        showlegend=shown,
        hovertemplate=f"{name}, %{{x}}: %{{y:.2f}}<extra></extra>",
    )


def _blank(result: ConflictingTasks, names: list[str]) -> go.Heatmap:
    """Grey cells under the map; hovering shows why the pair was not measured."""
    undefined = result.provenance["undefined"].values()
    reasons = {(u["prompt_task"], u["injected_task"]): u["reason"] for u in undefined}
    tasks = result.tasks
    return go.Heatmap(
        z=[[1 if (a, b) in reasons else None for b in tasks] for a in tasks],
        x=names,
        y=names,
        colorscale=[[0, _UNDEFINED], [1, _UNDEFINED]],
        showscale=False,
        xgap=2,
        ygap=2,
        customdata=[
            ["<br>".join(map(escape, wrap(reasons.get((a, b), "")))) for b in tasks] for a in tasks
        ],
        hovertemplate="<b>%{y} ← %{x}</b><br>%{customdata}<extra></extra>",
        hoverongaps=False,
        name="",
    )


def _about(result: ConflictingTasks, a: str, b: str) -> str:
    """The text that a cell shows on hover."""
    pair = f"{a}:{b}"
    if pair not in result.pairs:
        return ""
    lines = [
        f"<b>{escape(a)} ← {escape(b)}</b>, block {result.layer(pair)}",
        f"injected − prompt's: {result.difference(pair)}",
        f"follows {escape(b)}: {result.share(pair, 'injected')}",
        f"follows {escape(a)}: {result.share(pair, 'prompt')}",
        f"without vector, follows {escape(a)}: {result.share(pair, 'prompt', 'regular')}",
        f"own θ, follows {escape(a)}: {result.share(pair, 'prompt', 'own')}",
        f"{result.provenance['pairs'][pair]['n_queries']} different queries",
    ]
    return "<br>".join(lines)
