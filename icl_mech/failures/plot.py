"""The figure of `task_vector_failures`: the share explained, and the errors."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go

from icl_mech.plotting.marks import whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import COLOURS, GRID, INK, PAPER, QUIET, state, subject

if TYPE_CHECKING:
    from icl_mech.failures import TaskVectorFailures
    from icl_mech.stats import Estimate

_ROW = 40
#: Four groups of answers and their colours; hovering names the kinds.
_GROUPS = {
    "right": COLOURS["right"],
    "wrong as predicted": COLOURS["wrong"],
    "wrong in another way that has a name": "#9DB7CF",
    "wrong, fits no name": "#E3E3E3",
}
#: The kinds of errors that a predicted outcome implies.
_PREDICTED = {
    "label prior": ("label_prior", "shown_answer"),
    "about half": ("copied_input", "wrong_direction"),
}
_KINDS = {
    "shown_answer": "another demonstration's answer",
    "another_element": "another element of the list",
    "shown_input": "a demonstration's input",
    "near_miss": "begins like the answer",
    "task_answer": "another answer of the task",
    "task_input": "another input of the task",
    "other_task": "another task's answer",
    "unlisted_word": "a word in no list, written like answers",
    "other": "none of the named errors",
}
_REPAIRS = {
    "layers": ("attention, layers 0 to l", "diamond-open", COLOURS["heads"]),
    "arrows": ("states at every arrow", "triangle-up-open", COLOURS["states"]),
    "labels": ("states at every label", "square-open", COLOURS["within"]),
    "demonstrations": ("states at all tokens shown", "star", COLOURS["query"]),
}


def failure_figure(result: TaskVectorFailures) -> go.Figure:
    """Left: the share that one vector, and several, explain. Middle and right: answers, by kind."""
    tasks = _ordered(result)
    titles = ["explained by one vector", "answers with θ", "answers, few-shot"]
    figure = rows_of_panels(
        [_ROW * len(tasks) + 30],
        0,
        titles,
        cols=3,
        shared_yaxes=True,
        column_widths=[0.42, 0.29, 0.29],
        horizontal_spacing=0.065,
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
    """The tasks, most explained first; those whose prompt does not work, last."""

    def key(task: str) -> float:
        share = _explained(result, task, "theta")
        return -np.inf if share is None else share.value

    return sorted(result.tasks, key=key, reverse=True)


def _label(result: TaskVectorFailures, task: str) -> str:
    predicted = str(result.of(task)["predicted"].item())
    return f"{escape(task)}<br><span style='font-size:11px'>{escape(predicted)}</span>"


def _ends(shown: list[Estimate | None]) -> list[list[float]]:
    """Values and interval ends, clipped to the axis; 0 without an estimate."""
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
        error_x=whiskers(*_ends(shown), color=INK),
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
        cliponaxis=False,
        customdata=[_hover(result, task, repair, e) for task, e in zip(tasks, shown, strict=True)],
        hovertemplate=f"%{{customdata}}<extra>{name}</extra>",
    )


def _explained(result: TaskVectorFailures, task: str, condition: str) -> Estimate | None:
    """None if it is undefined: the few-shot prompt is not clearly above the floor."""
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
            font={"size": 12, "color": QUIET},
            row=1,
            col=1,
        )


def _composition(
    result: TaskVectorFailures, tasks: list[str], names: list[str], condition: str
) -> list[go.Bar]:
    """Stacked bars per task: right, or wrong in one of three ways."""
    n = result.data.sizes["prompt"]
    found = [_grouped(result, task, condition) for task in tasks]
    return [
        go.Bar(
            y=names,
            x=[sum(kinds[group].values()) / n for kinds in found],
            orientation="h",
            name=group,
            legendgroup=group,
            marker={"color": colour, "line": {"width": 0.5, "color": PAPER}},
            text=["" if group == "right" else _first(kinds[group]) for kinds in found],
            textposition="inside",
            insidetextanchor="middle",
            textfont={"size": 11, "color": PAPER if group.endswith("predicted") else INK},
            customdata=[_counts(kinds[group], n) for kinds in found],
            hovertemplate=f"{group}<br>%{{customdata}}<extra></extra>",
        )
        for group, colour in _GROUPS.items()
    ]


def _grouped(result: TaskVectorFailures, task: str, condition: str) -> dict[str, dict[str, int]]:
    """The number of prompts with each kind of answer, by group."""
    right, predicted, named, unnamed = _GROUPS
    errors = result.errors(task, condition)
    expected = _PREDICTED.get(str(result.of(task)["predicted"].item()), ())
    groups: dict[str, dict[str, int]] = {group: {} for group in _GROUPS}
    groups[right] = {"right": result.data.sizes["prompt"] - sum(errors.values())}
    for kind, count in errors.items():
        group = predicted if kind in expected else unnamed if kind == "other" else named
        groups[group][_KINDS.get(kind, kind.replace("_", " "))] = count
    return groups


def _first(kinds: dict[str, int]) -> str:
    """The most frequent kind of a group."""
    return max(kinds, key=lambda kind: kinds[kind], default="")


def _counts(kinds: dict[str, int], n: int) -> str:
    return "<br>".join(f"{kind}: {count} of {n} prompts" for kind, count in kinds.items())


def _style(figure: go.Figure, result: TaskVectorFailures, names: list[str]) -> None:
    p = result.provenance
    state(
        figure,
        result,
        f"What can one task vector not do? {subject(result.tasks)}, {escape(p['model'])}",
        "explained = (accuracy - floor) / (few-shot - floor), floor: zero-shot or label prior; "
        f"{result.data.sizes['prompt']} test prompts, layers chosen on "
        f"{result.data.sizes['dev_prompt']} dev prompts, seed {p['seed']}; bars: 95 % intervals; "
        "small: predicted",
    )
    figure.update_layout(barmode="stack", bargap=0.3, uniformtext={"minsize": 10, "mode": "hide"})
    figure.update_xaxes(range=[0, 1], tickformat=".0%", gridcolor=GRID, zeroline=False)
    figure.update_xaxes(title_text="explained, 0 to 100 %", row=1, col=1)
    for col in (2, 3):
        figure.update_xaxes(title_text="share of prompts", dtick=0.5, row=1, col=col)
    figure.update_yaxes(categoryorder="array", categoryarray=names[::-1], automargin=True)
    frame(figure, legend=True, l=170)
