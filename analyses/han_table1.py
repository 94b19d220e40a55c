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
# # Does it help more to finetune where the task is encoded?
#
# Han, Song, Gore and Agrawal (*Emergence and Effectiveness of Task Vectors in In-Context Learning:
# An Encoder-Decoder Perspective*, arXiv 2412.12276, table 1) compare four models on 4-shot prompts:
# the pretrained one; one with LoRA on its *first* blocks; one with LoRA on its *last* blocks; and
# the pretrained one whose prompts *name the task*. If early blocks encode the task and late ones
# decode it, tuning early ones should raise task decodability (TD) and accuracy, and tuning late
# ones accuracy alone.
#
# Done differently here:
#
# - **Both arms train equally many weights for equally many updates**: adapters on a third of the
#   blocks each. Several seeds, each with its own held-out inputs: never a query of training, never
#   a demonstration. TD and accuracy are measured on prompts made of held-out pairs only.
# - **TD at every layer.** The paper measures it upstream of the last blocks, where tuning these
#   cannot change anything. Here it is also measured downstream, at a layer chosen on other queries.
# - **The instruction alone.** Where the prompt names the task, its words give it away. So TD of
#   the instruction without any demonstration stands beside it.

# %%
import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import tyro

import icl_mech
from icl_mech.decodability import TaskDecodability
from icl_mech.finetune.plan import FinetuneSettings, chosen_blocks, plan
from icl_mech.plotting import check_target, export
from icl_mech.plotting.marks import interval_whiskers
from icl_mech.plotting.panels import frame, rows_of_panels
from icl_mech.plotting.style import AFTER_BLOCK, COLOURS, GRID, title
from icl_mech.reference import ARMS, han2024
from icl_mech.stats import Estimate, few_mean

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/han_table1.py --help`); in a notebook, change
# the defaults. The measurements come with the repository; `--train` makes them again, a finetuning
# of about ten minutes on one core each.

# %%
HERE = Path("../" if Path.cwd().name == "analyses" else ".")
DATA, FIGURES = HERE / "analyses" / "data", HERE / "figures"
#: The arrays of a `TaskDecodability` that are kept.
KEPT = ("credit", "half_td", "exact", "query_id")
ALONE = ("instruction_credit", "instruction_exact")
NAMES = {
    "pretrained": "pretrained",
    "first": "first third tuned",
    "last": "last third tuned",
    "prompt": "prompt names the task",
}
LOOKS = dict(zip(ARMS, ("baseline", "theta", "random", "function"), strict=True))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Finetuning the first blocks, the last blocks, and naming the task: TD and accuracy."""

    families: tuple[Literal["pos", "bitwise"], ...] = ("pos", "bitwise")
    """Each is finetuned by itself."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of adapters, training prompts and held-out inputs."""
    n_prompts: int = 60
    """Prompts per task on which TD and accuracy are measured."""
    n_steps: int = 100
    """Updates."""
    learning_rate: float = 1e-3
    """Of AdamW."""
    data: Path = DATA
    """Where measurements are kept, as han_table1-<family>-<arm>-seed<seed>.nc."""
    train: tyro.conf.FlagCreatePairsOff[bool] = False
    """Train and measure, instead of reading what is kept."""
    checkpoints: Path = FIGURES
    """--train: for the runs' folders; a killed run goes on where it stopped."""
    out: Path = FIGURES / "han_table1.html"
    """The figure."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## Finetune, and measure on held-out pairs


# %%
def settings(blocks: str, seed: int) -> FinetuneSettings:
    """Of one run."""
    return FinetuneSettings(
        blocks=blocks,
        seed=seed,
        n_steps=options.n_steps,
        learning_rate=options.learning_rate,
        n_prompts=10,
        n_checkpoints=6,
    )


def tuned(family: str, arm: str, seed: int) -> Path:
    """The adapter after the last update; trained now where it is not there."""
    folder = options.checkpoints / f"han_table1-{family}-{arm}-seed{seed}"
    wanted = settings(arm, seed)
    icl_mech.finetune(
        "gemma-3-270m",
        family,
        wanted.n_prompts,
        wanted.n_shots,
        seed,
        folder=folder,
        blocks=arm,
        n_steps=wanted.n_steps,
        learning_rate=wanted.learning_rate,
        n_checkpoints=wanted.n_checkpoints,
    )
    return icl_mech.list_adapters(folder)[-1][1]


def measured(family: str, arm: str, seed: int) -> TaskDecodability:
    """TD and accuracy of an arm, measured now if asked for."""
    path = options.data / f"han_table1-{family}-{arm}-seed{seed}.nc"
    if options.train:
        adapter = tuned(family, arm, seed) if arm in ("first", "last") else None
        found = icl_mech.task_decodability(
            icl_mech.load_model(adapter=adapter),
            plan(family, settings("first", seed)).held_out,
            options.n_prompts,
            4,
            seed,
            probe=False,
            controls=False,
            instruction="true" if arm == "prompt" else "none",
        )
        kept = [name for name in (*KEPT, *ALONE) if name in found.data]
        TaskDecodability(found.data[kept], found.provenance).save(path, digits=3)
    result = icl_mech.load_result(path)
    assert isinstance(result, TaskDecodability)
    return result


runs = {
    (family, arm): [measured(family, arm, seed) for seed in options.seeds]
    for family in options.families
    for arm in ARMS
}

# %% [markdown]
# ## The table, ours and theirs
#
# Means over the six tasks; intervals are Student's over seeds. *TD* is at a layer chosen on other
# queries of the same model; *TD below the last third* is the mean over the blocks that tuning the
# last third cannot change, where the paper measures. The paper's spreads are standard deviations
# over tasks.


# %%
def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean over seeds, within 0 and 1; no interval where all seeds give the same."""
    e = few_mean(np.array(values))
    if len(set(values)) == 1:
        return Estimate(e.value, np.nan, np.nan, e.n)
    return Estimate(e.value, max(e.low, 0.0), min(e.high, 1.0), e.n)


def numbers(family: str, arm: str) -> dict[str, Estimate]:
    """The columns of a row of the table."""
    ours = runs[family, arm]
    return {
        "TD": over_seeds([r.held_out().value for r in ours]),
        "TD below the last third": over_seeds([upstream(r) for r in ours]),
        "accuracy": over_seeds([r.accuracy().value for r in ours]),
    }


def upstream(run: TaskDecodability) -> float:
    """Mean TD of the blocks below the last third."""
    start = chosen_blocks("last", len(run.layers))[0]
    return float(np.mean([e.value for e in run.td()[:start]]))


def table(family: str) -> pd.DataFrame:
    """A row per arm, with the published one."""
    rows = {}
    for arm in ARMS:
        theirs = han2024().arm(family, arm)
        row = {name: str(e) for name, e in numbers(family, arm).items()}
        row["layers"] = ", ".join(
            sorted({str(n) for r in runs[family, arm] for n in r.held_out_layers()}, key=int)
        )
        row["TD (published)"] = "{:.2f} ± {:.2f}".format(*theirs.td)
        row["accuracy (published)"] = "{:.2f} ± {:.2f}".format(*theirs.accuracy)
        rows[NAMES[arm]] = row
    return pd.DataFrame.from_dict(rows, orient="index")


def difference(family: str, one: str, other: str) -> dict[str, str]:
    """How much larger TD and accuracy are in one arm than in the other, paired by seed."""

    values: dict[str, Callable[[TaskDecodability], float]] = {
        "TD": lambda run: run.held_out().value,
        "TD below the last third": upstream,
        "accuracy": lambda run: run.accuracy().value,
    }
    pairs = list(zip(runs[family, one], runs[family, other], strict=True))
    found = {n: few_mean(np.array([of(a) - of(b) for a, b in pairs])) for n, of in values.items()}
    return {n: f"{e.value:+.2f} [{e.low:+.2f}, {e.high:+.2f}]" for n, e in found.items()}


for family in options.families:
    print(f"\n{family}\n{table(family).to_string()}\n")
    for one, other in (("first", "last"), ("first", "pretrained"), ("last", "pretrained")):
        print(f"{NAMES[one]} minus {NAMES[other]}: {difference(family, one, other)}")
    alone = runs[family, "prompt"]
    td = over_seeds([r.held_out(control="instruction").value for r in alone])
    most = over_seeds([r.peak(control="instruction").value for r in alone])
    right = over_seeds([r.instruction_accuracy().value for r in alone])
    print(
        f"the instruction alone, without demonstrations: TD {td} at the same layers, {most} at the "
        f"best one; accuracy {right}"
    )
    early = {arm: over_seeds([r.td()[1].value for r in runs[family, arm]]) for arm in ARMS}
    print(f"TD after block 1: {', '.join(f'{NAMES[a]} {e}' for a, e in early.items())}")

# %% [markdown]
# ## Upstream of the tuned blocks nothing changes
#
# Below the first block with an adapter, every vote is the same as in the pretrained model, to the
# last digit.

# %%
for family in options.families:
    for last, plain in zip(runs[family, "last"], runs[family, "pretrained"], strict=True):
        start = chosen_blocks("last", len(plain.layers))[0]
        below = [run.data["credit"].sel(layer=slice(0, start - 1)) for run in (last, plain)]
        assert below[0].equals(below[1]), "tuning the last blocks changed an earlier one"
    print(f"{family}: TD below block {start} is unchanged by tuning the blocks from there on")

# %% [markdown]
# ## The figure


# %%
def table_figure() -> go.Figure:
    """A row per family: TD and accuracy of every arm, ours and published, and TD by layer."""
    figure = rows_of_panels(
        [330] * len(options.families),
        110,
        [t for f in options.families for t in (f"{f}: TD", "accuracy", "TD by layer")],
        cols=3,
        column_widths=[0.2, 0.2, 0.6],
        horizontal_spacing=0.07,
    )
    for row, family in enumerate(options.families, 1):
        for col, name in enumerate(("TD", "accuracy"), 1):
            for trace in _marks(family, name, first=row == col == 1):
                figure.add_trace(trace, row=row, col=col)
            figure.update_yaxes(range=[-0.03, 1.05], gridcolor=GRID, row=row, col=col)
        for arm in ARMS:
            figure.add_trace(_layers(family, arm), row=row, col=3)
        figure.update_yaxes(range=[-0.03, 1.05], gridcolor=GRID, row=row, col=3)
        figure.update_xaxes(title_text=AFTER_BLOCK, dtick=2, gridcolor=GRID, row=row, col=3)
    p = runs[options.families[0], "pretrained"][0].provenance
    title(
        figure,
        f"Finetuning early or late blocks, or naming the task? {escape(p['model'])}",
        f"4-shot prompts of held-out pairs, {p['n_prompts']} per task; {len(options.seeds)} seeds, "
        "bars: 95 % intervals over them; hollow: Llama-3.1-8B (published, spread over tasks)",
    )
    frame(figure, below=20, legend=True)
    return figure


def _marks(family: str, name: str, first: bool) -> list[go.Scatter]:
    """Ours with intervals, and the published value beside it."""
    ours = [numbers(family, arm)[name] for arm in ARMS]
    theirs = [han2024().arm(family, arm) for arm in ARMS]
    published = [t.td if name == "TD" else t.accuracy for t in theirs]
    colours = [COLOURS[LOOKS[arm]] for arm in ARMS]
    return [
        go.Scatter(
            x=list(ARMS),
            y=[e.value for e in ours],
            error_y=interval_whiskers(ours, color="#888888"),
            mode="markers",
            marker={"size": 11, "color": colours},
            name="ours",
            showlegend=False,
            hovertemplate="%{x}: %{y:.2f}<extra>ours</extra>",
        ),
        go.Scatter(
            x=list(ARMS),
            y=[value for value, _ in published],
            mode="markers",
            marker={"size": 11, "symbol": "diamond-open", "color": colours, "line": {"width": 2}},
            name="published",
            showlegend=False,
            customdata=[spread for _, spread in published],
            hovertemplate="%{x}: %{y:.2f} ± %{customdata:.2f}<extra>published</extra>",
        ),
    ]


def _layers(family: str, arm: str) -> go.Scatter:
    """TD after every block, the mean over seeds."""
    found = np.array([[e.value for e in run.td()] for run in runs[family, arm]])
    return go.Scatter(
        x=runs[family, arm][0].layers,
        y=found.mean(axis=0),
        mode="lines+markers",
        line={"color": COLOURS[LOOKS[arm]], "width": 2.5},
        marker={"size": 5},
        name=NAMES[arm],
        legendgroup=arm,
        showlegend=family == options.families[0],
        hovertemplate=f"{NAMES[arm]}, after block %{{x}}: %{{y:.2f}}<extra></extra>",
    )


figure = table_figure()
print(f"figure: {export(figure, options.out).resolve()}")
if in_notebook:
    figure.show()

# %% [markdown]
# ## What the numbers show
#
# (Family `pos`, seeds 0 to 2, 100 updates of 8 prompts, 60 prompts per task of held-out pairs.)
#
# - *Early is better than late*, as published: accuracy .92 against .78 (difference +.15 [+.10,
#   +.20]; pretrained .34). The paper has .69 against .34.
# - *Encoding explains it, but not by its best layer.* TD at the best layer is 1.00 before anything
#   is tuned, and cannot rise. What moves is where: with the first third tuned the task is decoded
#   after block 5 already (1.00, before .90), and the mean TD of the blocks below the last third
#   rises by +.09 [+.04, +.15]. Tuning the last third leaves it as it was, to the digit, and lowers
#   TD downstream: after the last block from .84 to .77.
# - *Naming the task* raises accuracy little (.41 [.33, .49]), and TD early: after block 1 from .22
#   to .56. There it is in the words: after the instruction alone, without a demonstration, TD is
#   .89 [.84, .94] at its best layer, and no answer is right.
#
# ## What not to conclude
#
# - *Not that late blocks do not learn.* They more than double accuracy without any better encoding.
# - *Not that this holds for all tasks.* With the same budget `bitwise` is not learned by either arm
#   on this model; there is nothing to compare there yet.
