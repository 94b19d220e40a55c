"""The figures of a task map: layers named by read-outs, and the curves behind them."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from icl_mech.plotting.marks import band, whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import BAND, COLOURS, GRID, state, subject

if TYPE_CHECKING:
    from icl_mech.localize import TaskMap

NAMES = {
    "encoding": "encoding: task decodability",
    "transfer": "transfer: accuracy with θ injected",
    "lens": "lens: probability of the answer",
    "heads": "heads: share of AIE so far",
    "masking": "masking: accuracy, demonstrations seen until here",
}
#: Titles of the axes.
LAYER = "layer l: the stream after block l, counted from 0<br>(heads: what block l adds)"
DEPTH = "relative depth of the stream after block l (1: after the last block)"
_SYMBOLS = {"formation": "circle", "decoding": "diamond-open"}
#: Pixels of a row and of a shared row; with more tasks than the third number, all read-outs of a
#: task share a row.
_ROW, _SHARED_ROW, _MOST = 26, 46, 6


def task_map_figure(maps: list[TaskMap]) -> go.Figure:
    """The layers that read-outs name: a row per task and read-out, a column per model.

    With many tasks, all read-outs of a task share a row. The x axis shows layers for one model,
    and relative depth for several.
    """
    many = len(maps) > 1
    tasks = [t for t in maps[0].tasks if all(t in m.tasks for m in maps)]
    figure = make_subplots(
        rows=1,
        cols=len(maps),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        subplot_titles=[escape(str(m.provenance["model"])) for m in maps] if many else None,
    )
    rows = _Rows.of(maps[0], tasks)
    _bands(figure, rows, len(maps))
    for column, task_map in enumerate(maps, 1):
        for readout in task_map.readouts:
            for what in _SYMBOLS:
                trace = _dots(task_map, rows, readout, what, many, column == 1)
                if trace is not None:
                    figure.add_trace(trace, row=1, col=column)
        if not many:
            figure.update_xaxes(range=[-0.6, len(task_map.layers) - 0.4], dtick=1)
    figure.update_yaxes(
        tickvals=list(rows.labels),
        ticktext=list(rows.labels.values()),
        showgrid=not rows.shared,
        gridcolor=GRID,
        zeroline=False,
        range=[rows.n - 0.4, -0.6],
    )
    figure.update_xaxes(gridcolor=GRID, title_text=DEPTH if many else LAYER)
    if many:
        figure.update_xaxes(range=[0, 1.03])
    _state(figure, maps, "Where is the task formed, and where is it decoded?", _finding(maps))
    figure.update_layout(height=rows.height)
    frame(
        figure,
        below=15,
        legend=True,
        l=max(60 + 8 * max(map(len, tasks)), 0 if rows.shared else 200),
    )
    return figure


def task_curves_figure(task_map: TaskMap) -> go.Figure:
    """Every read-out's curve, a panel per task; the layers where theta works are shaded."""
    tasks = task_map.tasks
    height, gap = 250, 62
    figure = rows_of_panels([height] * len(tasks), gap, [escape(task) for task in tasks])
    for row, task in enumerate(tasks, 1):
        for readout in task_map.readouts:
            curve = task_map.curve(task, readout)
            if readout != "heads":
                figure.add_trace(
                    band(task_map.layers, curve, COLOURS[readout], readout), row=row, col=1
                )
            figure.add_trace(
                go.Scatter(
                    x=task_map.layers,
                    y=[e.value for e in curve],
                    mode="lines",
                    name=NAMES[readout],
                    legendgroup=readout,
                    showlegend=row == 1,
                    line={
                        "color": COLOURS[readout],
                        "width": 2,
                        "dash": "dot" if readout == "heads" else "solid",
                    },
                    customdata=[[e.low, e.high, e.n] for e in curve],
                    hovertemplate=(
                        "layer %{x}: %{y:.2f} [%{customdata[0]:.2f}, %{customdata[1]:.2f}], "
                        f"n = %{{customdata[2]}}<extra>{NAMES[readout]}</extra>"
                    ),
                ),
                row=row,
                col=1,
            )
        _mark(figure, task_map, task, row)
    figure.update_yaxes(range=[-0.03, 1.08], gridcolor=GRID, title_text="share")
    figure.update_xaxes(gridcolor=GRID, dtick=1 if len(task_map.layers) <= 24 else None)
    figure.update_xaxes(title_text=LAYER, row=len(tasks), col=1)
    _state(figure, [task_map], "The curves behind the map:", "")
    frame(figure, below=60, legend=True)
    return figure


def _mark(figure: go.Figure, task_map: TaskMap, task: str, row: int) -> None:
    """Shade the layers from formation to decoding by transfer: there an injected vector works."""
    start = task_map.formation(task, "transfer").estimate.value
    end = task_map.decoding(task, "transfer").estimate.value
    if np.isfinite(start) and np.isfinite(end):
        figure.add_vrect(
            x0=start - 0.5,
            x1=end - 0.5,
            fillcolor=COLOURS["transfer"],
            opacity=0.08,
            line_width=0,
            row=row,
            col=1,
        )


def _bands(figure: go.Figure, rows: _Rows, n_columns: int) -> None:
    """A band behind the rows of every second task."""
    for i in range(1, len(rows.tasks), 2):
        top, bottom = rows.ends(i)
        for column in range(1, n_columns + 1):
            figure.add_hrect(
                y0=top,
                y1=bottom,
                fillcolor=BAND,
                line_width=0,
                layer="below",
                row=1,
                col=column,
                exclude_empty_subplots=False,
            )


@dataclass(frozen=True)
class _Rows:
    """The rows of tasks and their read-outs, from the top.

    Attributes:
        tasks: in order.
        lanes: (formation or decoding, read-out), in order.
        shared: one row per task, its lanes close together.
    """

    tasks: list[str]
    lanes: list[tuple[str, str]]
    shared: bool

    @staticmethod
    def of(task_map: TaskMap, tasks: list[str]) -> _Rows:
        from icl_mech.localize import DECODING, FORMATION

        formation = [("formation", r) for r in FORMATION if r in task_map.readouts]
        lanes = formation + [("decoding", r) for r in DECODING]
        return _Rows(tasks, lanes, len(tasks) > _MOST)

    @property
    def each(self) -> int:
        """Rows of a task: one, or one with its name and one for every lane."""
        return 1 if self.shared else 1 + len(self.lanes)

    @property
    def n(self) -> int:
        return len(self.tasks) * self.each

    def ends(self, i: int) -> tuple[float, float]:
        """Where the rows of a task begin and end."""
        return i * self.each - 0.5, (i + 1) * self.each - 0.5

    @property
    def height(self) -> int:
        return self.n * (_SHARED_ROW if self.shared else _ROW)

    @property
    def labels(self) -> dict[float, str]:
        """Labels of the y axis by height; escaped."""
        if self.shared:
            return {float(i): escape(task) for i, task in enumerate(self.tasks)}
        names = {
            float(i * self.each): f"<b>{escape(task)}</b>" for i, task in enumerate(self.tasks)
        }
        lanes = {
            self.at(task, lane): f"{lane[0]} by {lane[1]}"
            for task in self.tasks
            for lane in self.lanes
        }
        return dict(sorted({**names, **lanes}.items()))

    def at(self, task: str, lane: tuple[str, str]) -> float:
        """The height of one read-out of a task."""
        i, j = self.tasks.index(task), self.lanes.index(lane)
        if not self.shared:
            return float(i * self.each + 1 + j)
        return i + 0.8 * ((j + 0.5) / len(self.lanes) - 0.5)


def _dots(
    task_map: TaskMap, rows: _Rows, readout: str, what: str, relative: bool, first: bool
) -> go.Scatter | None:
    """The layers that one read-out names, with their intervals; None if the lane is not shown."""
    lane = (what, readout)
    if lane not in rows.lanes:
        return None
    named = task_map.formation if what == "formation" else task_map.decoding
    points = [named(task, readout) for task in rows.tasks]

    def x(layer: float) -> float:
        return task_map.depth(layer) if relative else layer

    estimates = [located.estimate for located in points]
    ends = [[x(getattr(e, end)) for e in estimates] for end in ("value", "low", "high")]
    name = f"{what} by {readout}"
    return go.Scatter(
        x=ends[0],
        y=[rows.at(task, lane) for task in rows.tasks],
        error_x=whiskers(*ends),
        mode="markers",
        marker={
            "size": 9 if rows.shared else 11,
            "symbol": _SYMBOLS[what],
            "color": COLOURS[readout],
        },
        name=name,
        legendgroup=name,
        showlegend=first,
        customdata=[
            [str(located), located.found, escape(task)]
            for task, located in zip(rows.tasks, points, strict=True)
        ],
        hovertemplate=(
            "<b>%{customdata[2]}</b><br>layer %{customdata[0]}<br>"
            "there in %{customdata[1]:.0%} of resamples"
            f"<extra>{name}</extra>"
        ),
    )


def _finding(maps: list[TaskMap]) -> str:
    """The finding of a single model; empty for several."""
    return maps[0].finding() if len(maps) == 1 else ""


def _state(figure: go.Figure, maps: list[TaskMap], question: str, finding: str) -> None:
    p = maps[0].provenance
    models = ", ".join(escape(str(m.provenance["model"])) for m in maps)
    state(
        figure,
        maps[0],
        f"{question} {subject(maps[0].tasks)}, {models}",
        f"{p['n_prompts']} prompts per task ({p['n_points']} for decodability), {p['n_shots']} "
        f"shots, seed {p['seed']}; risen: {p['rule']['fraction']:.0%} of the way; bars and bands: "
        "95 % intervals",
        finding,
    )
