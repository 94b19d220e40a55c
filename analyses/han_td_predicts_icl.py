# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Does a prompt whose task can be read get answered?
#
# Han, Song, Gore and Agrawal (*Emergence and Effectiveness of Task Vectors in In-Context Learning:
# An Encoder-Decoder Perspective*, arXiv 2412.12276, section 4) measure **task decodability** (TD):
# represent a few-shot prompt by the residual stream at its last token, pool the prompts of several
# tasks, and let the 10 nearest neighbours of each prompt vote for its task. They plot it against
# the accuracy of the same prompts, a point for every task and number of demonstrations, and report
# the R² of one straight line.
#
# Two things are done differently here:
#
# - **Shots drive both axes.** More demonstrations make the task easier to read *and* the answer
#   easier to give, whatever TD has to do with it. So beside the R² of one line stands the R²
#   *within a task* (more shots, more TD: better answers?) and *within a number of shots* (the
#   tasks that are easier to read: better answered?).
# - **The layer is chosen on other queries** than TD is reported on. All tasks of a family ask the
#   same queries after the same inputs, and every R² has an interval, from resampling queries.

# %%
import builtins
from dataclasses import dataclass
from html import escape
from math import ceil
from pathlib import Path
from typing import Literal

import pandas as pd
import plotly.graph_objects as go
import tyro
from plotly.colors import sample_colorscale
from plotly.subplots import make_subplots

import icl_mech
from icl_mech.decodability import TaskDecodability, td_predicts_accuracy
from icl_mech.decodability.accuracy import td_and_accuracy
from icl_mech.plotting import FONT, GRID, check_target, export
from icl_mech.plotting.marks import whiskers
from icl_mech.reference import han2024

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/han_td_predicts_icl.py --help`); in a
# notebook, change the defaults. The paper has 100 points per task; that takes five times as long.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")
FAMILIES = ("pos", "bitwise", "verbs", "english_words", "countries")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Task decodability against accuracy, over tasks and numbers of demonstrations."""

    families: tuple[Literal[FAMILIES], ...] = FAMILIES
    """A panel each."""
    n_prompts: int = 20
    """Prompts per task."""
    n_shots: tuple[int, ...] = (1, 4, 10)
    """Demonstrations per prompt."""
    k: int = 10
    """How many neighbours vote."""
    seed: int = 0
    """Of every random draw."""
    out: Path = FIGURES / "han_td_predicts_icl.html"
    """The figure; the data go beside it, a .nc per family."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## TD and accuracy
#
# Some minutes on two CPU cores. Accuracy is exact match: greedy decoding would give an accepted
# answer, token by token.

# %%
model = icl_mech.load_model()
runs: dict[str, TaskDecodability] = {}
for family in options.families:
    runs[family] = icl_mech.task_decodability(
        model,
        family,
        options.n_prompts,
        options.n_shots,
        options.seed,
        k=options.k,
        probe=False,
        controls=False,
    )
    runs[family].save(options.out.with_name(f"{options.out.stem}-{family}.nc"))
    print(runs[family])

# %% [markdown]
# ## R², ours and theirs
#
# *All families* is one line through everything: tasks of different families differ in much else.

# %%
fits = {family: td_predicts_accuracy(run) for family, run in runs.items()}
if len(runs) > 1:
    fits["all families"] = td_predicts_accuracy(list(runs.values()))
published = han2024()
print(f"{published.source}\n{published.n_rows} points each, no intervals:")
print(pd.DataFrame(published.r_squared).T.to_string(), "\n")


def cell(row: pd.Series) -> str:
    """R² with its interval."""
    return f"{row['r2']:.2f} [{row['r2_low']:.2f}, {row['r2_high']:.2f}]"


print(pd.DataFrame({family: fit.apply(cell, axis=1) for family, fit in fits.items()}).T.to_string())

# %% [markdown]
# ## The figure


# %%
def td_accuracy_figure(runs: dict[str, TaskDecodability]) -> go.Figure:
    """A panel per family: TD against accuracy, a point per task and number of shots."""
    columns = min(3, len(runs))
    rows = ceil(len(runs) / columns)
    titles = [
        f"<b>{escape(family)}</b><br>R² {fits[family]['r2']['overall']:.2f}; within task "
        f"{fits[family]['r2']['within task']:.2f}, within shots "
        f"{fits[family]['r2']['within shots']:.2f}"
        for family in runs
    ]
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_xaxes="all",
        shared_yaxes="all",
        subplot_titles=titles,
        horizontal_spacing=0.05,
        vertical_spacing=0.32 / rows,
    )
    for i, run in enumerate(runs.values()):
        frame = td_and_accuracy(run)
        for j, shots in enumerate(run.shots):
            depth = 0.4 + 0.6 * j / max(1, len(run.shots) - 1)
            (colour,) = sample_colorscale("Purples", [depth])
            points = frame[frame["shots"] == shots]
            trace = _points(points, f"{shots} shot{'s' if shots > 1 else ''}", colour, i == 0)
            figure.add_trace(trace, row=i // columns + 1, col=i % columns + 1)
        figure.add_vline(
            run.chance, line={"color": "#999999", "dash": "dot"}, row=i // columns + 1,
            col=i % columns + 1,
        )  # fmt: skip
    figure.update_annotations(font_size=13)
    figure.update_xaxes(range=[-0.05, 1.05], gridcolor=GRID, zeroline=False)
    figure.update_yaxes(range=[-0.05, 1.05], gridcolor=GRID, zeroline=False)
    for column in range(1, columns + 1):
        last = rows if (rows - 1) * columns + column <= len(runs) else rows - 1
        figure.update_xaxes(
            title_text="task decodability", showticklabels=True, row=last, col=column
        )
    figure.update_yaxes(title_text="accuracy (exact match)", col=1)
    p = next(iter(runs.values())).provenance
    figure.update_layout(
        template="plotly_white",
        font=FONT,
        title={
            "text": f"Does decodability predict accuracy? {escape(p['model'])}",
            "subtitle": {
                "text": f"{p['n_prompts']} prompts per task, {p['k']} neighbours, seed "
                f"{p['seed']}; layer chosen on other queries; bars: 95 % intervals; dotted: chance",
                "font": {"size": 13, "color": "#666666"},
            },
            "x": 0.01,
            "xanchor": "left",
            "y": 0.98,
            "yanchor": "top",
        },
        height=170 + 330 * rows,
        margin={"l": 70, "r": 30, "t": 135, "b": 70},
        hovermode="closest",
    )
    return figure


def _points(points: pd.DataFrame, name: str, colour: str, named: bool) -> go.Scatter:
    """All tasks with one number of shots, with their intervals."""

    def bars(side: str) -> dict[str, object]:
        ends = (points[f"{side}{end}"] for end in ("", "_low", "_high"))
        return whiskers(*ends, width=0, thickness=1, color=colour)

    return go.Scatter(
        x=points["td"].tolist(),
        y=points["accuracy"].tolist(),
        error_x=bars("td"),
        error_y=bars("accuracy"),
        mode="markers",
        marker={"color": colour, "size": 10, "line": {"color": "white", "width": 1}},
        name=name,
        legendgroup=name,
        showlegend=named,
        customdata=[escape(task) for task in points["task"]],
        hovertemplate=(
            f"<b>%{{customdata}}</b>, {name}<br>TD %{{x:.2f}}, accuracy %{{y:.2f}}<extra></extra>"
        ),
    )


figure = td_accuracy_figure(runs)
print(f"figure: {export(figure, options.out).resolve()}")
if in_notebook:
    figure.show()

# %% [markdown]
# ## What the numbers say
#
# Defaults: 20 prompts per task, seed 0, Gemma 3 270M.
#
# - *Overall* there is a relation, as published: R² .40 for `pos` and .37 for `bitwise`, where the
#   paper has .42 to .84 and .32 to .78 on models of 2 to 70 billion parameters.
# - *Within a number of shots* it is all but gone in four families (.01 to .24, intervals from
#   zero). With four demonstrations every task of theirs has a TD of .90 or more, and yet accuracy
#   runs from .15 to .85: what stops the model there is not that it cannot tell the task.
# - *`bitwise` is the exception* (.37 [.16, .50] within shots): XOR and XNOR are the tasks that
#   are neither told apart nor answered.
#
# ## What not to conclude
#
# - *Not that encoding does not matter.* A TD of 1 leaves nothing to explain; where tasks are hard
#   to tell apart, as in `bitwise`, TD says something.
# - *Not that a decoded task is understood.* On `verbs`, prompts with shuffled labels are decoded
#   about as well (`task_decodability(model, "verbs")`): the kind of the answers is enough.
# - *Not more precision than there is.* 12 to 18 points each, of 20 queries; resampling adds noise
#   to both axes and so lowers R², which is why intervals sit low.
# - *Not that all families are one.* Their line within shots (.37) is mostly the difference between
#   `bitwise` and the others.
