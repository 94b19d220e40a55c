"""The figure of task decodability: TD by layer, and which task is decoded as which."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import pandas as pd
import plotly.graph_objects as go

from icl_mech.plotting.marks import band
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, short, state, tints

if TYPE_CHECKING:
    from icl_mech.decodability import TaskDecodability
    from icl_mech.stats import Estimate

#: Colour scale of the maps.
SCALE = [[0, "#FFFFFF"], [1, COLOURS["encoding"]]]
CURVES, GAP = 380, 130


def decodability_figure(
    result: TaskDecodability,
    shots: int | None = None,
    layer: int | None = None,
    task: str | None = None,
) -> go.Figure:
    """TD by layer for every number of shots, with controls; below, two maps of task by task.

    Args:
        result: to be drawn.
        shots: for the controls, the probe and the maps; the largest number by default.
        layer: for the maps; the best one by default.
        task: whose points are counted in the curves, and whose rows the maps have; all by default.
    """
    shots = max(result.shots) if shots is None else shots
    layer = result.best_layer(shots) if layer is None else layer
    side = max(190, 34 * len(result.tasks)) if task is None else 90
    figure = rows_of_panels(
        [CURVES, side],
        GAP,
        [
            "",
            f"decoded as … (layer {layer}, {shots} shots)",
            f"pairs (layer {layer}, {shots} shots)",
        ],
        cols=2,
        specs=[[{"colspan": 2}, None], [{}, {}]],
        horizontal_spacing=0.28,
    )

    def rows(table: pd.DataFrame) -> pd.DataFrame:
        return table if task is None else table.loc[[task]]

    for trace in _curves(result, shots, task):
        figure.add_trace(trace, row=1, col=1)
    _map(figure, rows(result.confusion(shots, layer)), 1, "share of the task's points", 0.0)
    # If tasks have inputs of their own, chance differs between pairs and lies below 0.5.
    pair = "TD of the pair" + " (chance 0.5)" * result.provenance["shared_inputs"]
    _map(figure, rows(result.pairwise(shots, layer)), 2, pair, 0.5)
    _style(figure, result, shots, task)
    frame(figure, below=40, legend=True)
    return figure


def _curves(result: TaskDecodability, shots: int, task: str | None) -> list[go.Scatter]:
    """The curves of the upper panel."""
    layers, traces, chance = result.layers, [], result.chance_of(task)
    numbers = sorted(result.shots)
    for n, colour in zip(numbers, tints(COLOURS["encoding"], len(numbers)), strict=True):
        name, td = f"TD, {n} shot{'s' if n > 1 else ''}", result.td(n, task)
        traces.append(band(layers, td, colour, name))
        traces.append(_line(layers, td, name, colour, 3.0, markers=True))
    if "probe_task" in result.data:
        name = f"linear probe, {shots} shots"
        traces.append(_line(layers, result.probe(shots, task), name, COLOURS["probe"], 1.8, "dash"))
    if "input_credit" in result.data:
        if shots > 1:
            name = f"shuffled labels, {shots} shots"
            shuffled = result.td(shots, task, control="shuffled")
            traces.append(_line(layers, shuffled, name, COLOURS["shuffled"], 1.8))
        alone = result.td(task=task, control="input")
        # Wide and pale, because within a family it coincides with the line of chance.
        traces.append(_line(layers, alone, "query alone", COLOURS["alone"], 6.0))
    if "instruction_credit" in result.data:
        told = result.td(task=task, control="instruction")
        traces.append(_line(layers, told, "instruction alone", COLOURS["other_task"], 1.8, "dash"))
    traces.append(
        go.Scatter(
            x=layers,
            y=[chance] * len(layers),
            mode="lines",
            line={"color": COLOURS["baseline"], "width": 1.5, "dash": "dot"},
            name=f"chance: {chance:.2f}",
            hoverinfo="skip",
        )
    )
    return traces


def _line(
    layers: list[int],
    estimates: list[Estimate],
    name: str,
    colour: str,
    width: float,
    dash: str = "solid",
    markers: bool = False,
) -> go.Scatter:
    return go.Scatter(
        x=layers,
        y=[e.value for e in estimates],
        mode="lines+markers" if markers else "lines",
        line={"color": colour, "width": width, "dash": dash},
        marker={"size": 7},
        name=name,
        legendgroup=name,
        customdata=[[e.low, e.high, e.n_clusters] for e in estimates],
        hovertemplate=(
            f"<b>{name}</b><br>after block %{{x}}: %{{y:.2f}} "
            "[%{customdata[0]:.2f}, %{customdata[1]:.2f}]<br>"
            "%{customdata[2]} different queries<extra></extra>"
        ),
    )


def _map(figure: go.Figure, table: pd.DataFrame, column: int, what: str, low: float) -> None:
    """A heat map of task by task with its numbers written in."""
    tasks = [str(name) for name in table.columns]
    across, down = short(tasks), short([str(name) for name in table.index], tasks)
    values = table.to_numpy()
    figure.add_trace(
        go.Heatmap(
            z=values,
            x=across,
            y=down,
            zmin=low,
            zmax=1,
            colorscale=SCALE,
            xgap=1,
            ygap=1,
            text=[["" if v != v else f"{v:.2f}" for v in row] for row in values],
            texttemplate="%{text}",
            textfont={"size": 12},
            hovertemplate=f"<b>%{{y}}</b>, %{{x}}<br>{what}: %{{z:.2f}}<extra></extra>",
            showscale=False,
            name="",
        ),
        row=2,
        col=column,
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, row=2, col=column)
    figure.update_xaxes(showgrid=False, row=2, col=column)


def _style(figure: go.Figure, result: TaskDecodability, shots: int, task: str | None) -> None:
    p = result.provenance
    heads = {task.rpartition("/")[0] for task in result.tasks}
    what = heads.pop() if len(heads) == 1 and "" not in heads else f"{len(result.tasks)} tasks"
    what = what if task is None else f"{task} among {len(result.tasks)} tasks"
    state(
        figure,
        result,
        f"Where can the task be read? {escape(what)}, {escape(p['model'])}",
        f"task decodability: {p['k']} nearest neighbours ({p['metric']}) vote, "
        f"{result.data.sizes['point']} prompts for each of {len(result.tasks)} tasks, "
        f"seed {p['seed']}; band: 95 % bootstrap interval over queries",
        result.finding(shots, task),
    )
    look = {"gridcolor": GRID, "zeroline": False, "row": 1, "col": 1}
    figure.update_xaxes(
        title_text=f"{AFTER_BLOCK}; read at {escape(str(p['role']))}",
        range=[min(result.layers) - 0.5, max(result.layers) + 0.5],
        dtick=1 if len(result.layers) <= 24 else None,
        **look,
    )
    figure.update_yaxes(title_text="share decoded right", range=[-0.03, 1.05], **look)
