"""The figure of what one task vector cannot do: share explained, and which errors are made."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.figures.panels import frame, rows_of_panels
from icl_mech.figures.style import COLOURS, GRID, title
from icl_mech.figures.whiskers import whiskers

if TYPE_CHECKING:
    from icl_mech.failures import TaskVectorFailures
    from icl_mech.stats import Estimate

_ROW = 36
#: Kinds of errors, from those about the query over those about answers to those about nothing.
_KINDS = {
    "": ("right", "#009E73"),
    "copied_input": ("copied input", "#D55E00"),
    "wrong_direction": ("wrong direction", "#882255"),
    "label_prior": ("label prior", "#999999"),
    "shown_answer": ("another demonstration's answer", "#E69F00"),
    "another_element": ("another element of the list", "#F0E442"),
    "shown_input": ("a demonstration's input", "#CC79A7"),
    "near_miss": ("begins like the answer", "#44AA99"),
    "task_answer": ("another answer of the task", "#56B4E9"),
    "task_input": ("another input of the task", "#0072B2"),
    "other_task": ("another task's answer", "#332288"),
    "not_a_word": ("not a word", "#555555"),
    "unlisted_word": ("a word in no list, written like answers", "#DDCC77"),
    "other": ("none of these", "#DDDDDD"),
}
_REPAIRS = {
    "layers": ("attention, layers 0 to l", "diamond-open", "#E69F00"),
    "arrows": ("states at every arrow", "triangle-up-open", "#56B4E9"),
    "labels": ("states at every label", "square-open", "#CC79A7"),
    "demonstrations": ("states at all tokens shown", "star", "#D55E00"),
}


def failure_figure(result: TaskVectorFailures) -> go.Figure:
    """Left: how much one vector, and several, explain. Middle and right: answers, by kind."""
    tasks = _ordered(result)
    titles = ["share of in-context accuracy explained", "with θ: what is answered", "few-shot"]
    figure = rows_of_panels(
        [_ROW * len(tasks) + 30],
        0,
        titles,
        cols=3,
        shared_yaxes=True,
        column_widths=[0.42, 0.29, 0.29],
        horizontal_spacing=0.045,
    )
    names = [_label(result, task) for task in tasks]
    figure.add_trace(_bars(result, tasks, names), row=1, col=1)
    for repair in result.repairs:
        figure.add_trace(_marks(result, tasks, names, repair), row=1, col=1)
    _note_missing(figure, result, tasks, names)
    seen: set[str] = set()
    for column, condition in ((2, "theta"), (3, "few_shot")):
        for trace in _composition(result, tasks, names, condition):
            trace.showlegend = trace.name not in seen
            seen.add(trace.name)
            figure.add_trace(trace, row=1, col=column)
    _style(figure, result, names)
    return figure


def _ordered(result: TaskVectorFailures) -> list[str]:
    """Most explained first; where the prompt itself does not work, last."""

    def key(task: str) -> float:
        share = _explained(result, task, "theta")
        return -np.inf if share is None else share.value

    return sorted(result.tasks, key=key, reverse=True)


def _label(result: TaskVectorFailures, task: str) -> str:
    predicted = str(result.of(task)["predicted"].item())
    return f"{escape(task)}<br><span style='font-size:11px;color:#777'>{escape(predicted)}</span>"


def _ends(shown: list[Estimate | None]) -> list[list[float]]:
    """Values and ends, cut to the axis; without an estimate no bar."""
    return [
        [0.0 if e is None else _clip(getattr(e, end)) for e in shown]
        for end in ("value", "low", "high")
    ]


def _clip(value: float) -> float:
    return float(np.clip(value, 0, 1))


def _bars(result: TaskVectorFailures, tasks: list[str], names: list[str]) -> go.Bar:
    shown = [_explained(result, task, "theta") for task in tasks]
    return go.Bar(
        y=names,
        x=[None if e is None else _clip(e.value) for e in shown],
        orientation="h",
        name="θ, one vector",
        marker={"color": COLOURS["theta"], "opacity": 0.75},
        legend="legend",
        error_x=whiskers(*_ends(shown), color="#222222"),
        customdata=[_hover(result, task, "theta", e) for task, e in zip(tasks, shown, strict=True)],
        hovertemplate="%{customdata}<extra>θ</extra>",
    )


def _marks(
    result: TaskVectorFailures, tasks: list[str], names: list[str], repair: str
) -> go.Scatter:
    name, symbol, colour = _REPAIRS[repair]
    shown = [_explained(result, task, repair) for task in tasks]
    return go.Scatter(
        y=names,
        x=[None if e is None else _clip(e.value) for e in shown],
        mode="markers",
        name=name,
        marker={
            "symbol": symbol,
            "size": 12,
            "color": colour,
            "line": {"width": 1.5, "color": colour},
        },
        legend="legend",
        cliponaxis=False,
        customdata=[_hover(result, task, repair, e) for task, e in zip(tasks, shown, strict=True)],
        hovertemplate=f"%{{customdata}}<extra>{name}</extra>",
    )


def _explained(result: TaskVectorFailures, task: str, condition: str) -> Estimate | None:
    """None where it is not defined: the prompt is not clearly above its floor."""
    share = result.explained(task, condition)
    return None if np.isnan(share.value) else share


def _hover(result: TaskVectorFailures, task: str, condition: str, e: Estimate | None) -> str:
    accuracy = {name: result.accuracy(task, name) for name in ("few_shot", condition)}
    return (
        f"<b>{escape(task)}</b><br>explained: {e or 'not defined'}<br>accuracy: "
        f"{accuracy[condition]}, few-shot {accuracy['few_shot']}<br>"
        f"label prior {result.prior(task)}; after block {result.layer(task, condition)}"
    )


def _note_missing(
    figure: go.Figure, result: TaskVectorFailures, tasks: list[str], names: list[str]
) -> None:
    for task, name in zip(tasks, names, strict=True):
        if _explained(result, task, "theta") is not None:
            continue
        few, floor = result.accuracy(task, "few_shot").value, result.floor(task).mean()
        figure.add_annotation(
            x=0.01,
            y=name,
            text=f"the prompt ({few:.2f}) is not clearly above {floor:.2f}, its floor",
            showarrow=False,
            xanchor="left",
            font={"size": 12, "color": "#777777"},
            row=1,
            col=1,
        )


def _composition(
    result: TaskVectorFailures, tasks: list[str], names: list[str], condition: str
) -> list[go.Bar]:
    """A stack of what was answered, per task."""
    n = result.data.sizes["prompt"]
    counts = []
    for task in tasks:
        errors = result.errors(task, condition)
        counts.append({"": n - sum(errors.values()), **errors})
    kinds = [kind for kind in _KINDS if any(c.get(kind) for c in counts)]
    return [
        go.Bar(
            y=names,
            x=[c.get(kind, 0) / n for c in counts],
            orientation="h",
            name=_KINDS[kind][0],
            legendgroup=kind or "right",
            legend="legend2",
            marker={"color": _KINDS[kind][1], "line": {"width": 0.5, "color": "white"}},
            customdata=[c.get(kind, 0) for c in counts],
            hovertemplate=(
                f"{_KINDS[kind][0]}: %{{customdata}} of {n} prompts (%{{x:.0%}})<extra></extra>"
            ),
        )
        for kind in kinds
    ]


def _style(figure: go.Figure, result: TaskVectorFailures, names: list[str]) -> None:
    p = result.provenance
    title(
        figure,
        f"What can one task vector not do? {escape(p['model'])}",
        "explained = (accuracy - floor) / (few-shot - floor), floor: zero-shot or label prior; "
        f"{result.data.sizes['prompt']} test prompts, layers chosen on "
        f"{result.data.sizes['dev_prompt']} dev prompts, seed {p['seed']}; bars: 95 % intervals; "
        "grey: predicted",
    )
    figure.update_layout(barmode="stack", bargap=0.3)
    figure.update_xaxes(range=[0, 1], tickformat=".0%", gridcolor=GRID, zeroline=False)
    figure.update_xaxes(title_text="explained (clipped to 0-100 %)", row=1, col=1)
    figure.update_xaxes(title_text="share of prompts", row=1, col=2)
    figure.update_xaxes(title_text="share of prompts", row=1, col=3)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], automargin=True)
    frame(figure, below=150, l=170)
    below = {"yref": "container", "y": 0.01, "yanchor": "bottom", "font": {"size": 12}}
    below |= {"xanchor": "left", "traceorder": "normal"}
    figure.update_layout(
        legend={**below, "x": -0.1},
        legend2={**below, "orientation": "h", "x": 0.22, "entrywidth": 215},
    )
