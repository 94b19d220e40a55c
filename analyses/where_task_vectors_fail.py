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
# # Where do task vectors fail?
#
# A task vector is read at the last token of a few-shot prompt before the query is known (a dummy
# stands in for it), and it is one vector (Hendel et al. 2023, *In-Context Learning Creates Task
# Vectors*, arXiv 2310.15916). It can name a fixed mapping that the weights know. It should not be
# able to hold a table of pairs that only this prompt shows; and theory says that it acts like a
# single demonstration, too little for a mapping and its inverse in one prompt (Dong et al. 2025,
# *Understanding Task Vectors in In-Context Learning*, arXiv 2506.09048).
#
# This analysis asks both: thirteen tasks whose prediction is written down with the task, ordinary
# tasks beside them, which error the vector makes where it fails, and how much comes back when
# several vectors of the same prompt are written at once.

# %%
import builtins
from dataclasses import dataclass
from pathlib import Path

import tyro

import icl_mech
from icl_mech.failures import REPAIRS
from icl_mech.plotting import check_target, export
from icl_mech.tasks import list_failures

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/where_task_vectors_fail.py --help`); in a
# notebook, change the defaults.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one task vector cannot do, which errors it makes, and what several vectors repair."""

    task: tuple[str, ...] = (*list_failures(), "country_capital", "antonyms")
    """Failure tasks, and ordinary ones for contrast."""
    n_prompts: int = 25
    """Test prompts per task; layers are chosen on half as many others."""
    repairs: tuple[str, ...] = tuple(REPAIRS)
    """Several vectors instead of one: which."""
    seed: int = 0
    """Of every random draw."""
    out: Path = FIGURES / "where_task_vectors_fail.html"
    """The figure; the data go beside it as .nc."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## The measurement
#
# Most of the time goes to the repairs: their edits re-run the whole prompt. With `--repairs
# demonstrations` it is a third.

# %%
model = icl_mech.load_model()
result = icl_mech.task_vector_failures(
    model, options.task, options.n_prompts, seed=options.seed, repairs=options.repairs
)
result.save(options.out.with_suffix(".nc"))
figure = export(result.plot(), options.out)
print(f"\n{figure.resolve()}")
if in_notebook:
    result.plot().show()

# %% [markdown]
# ## In numbers
#
# *Explained* is (vector - floor) / (few-shot - floor), where the floor is what needs no vector: the
# zero-shot prompt or the label prior. *Recovered* is the share of what the vector loses that a
# repair brings back.

# %%
print(result.table().to_string())
for caveat in result.caveats():
    print(f"note: {caveat}")

# %%
print("\nrecovered, and explained with another prompt's states:")
for task in result.tasks:
    for repair in result.repairs:
        control = result.explained(task, f"{repair}_other_prompt").value
        print(f"{task}, {repair}: {result.recovered(task, repair)}; {control:.2f}")

# %%
named = [result.named(task, c) for task in result.tasks for c in ("theta", "few_shot")]
named = [share for share in named if share == share]
if named:
    print(f"\nerrors with a name, least of all tasks: {min(named):.0%}")

# %% [markdown]
# ## What the numbers show
#
# (Defaults: 25 prompts per task, seed 0, Gemma 3 270M.)
#
# - *A vector does not look up.* With the pairs shown twice the model answers .76 of the lookups
#   from its prompt; θ .20 [.09, .39], no more than the most frequent answer (.25). What it gives
#   instead is another demonstration's answer (60 % of its errors) or an input of the task: it knows
#   what kind of word is asked for. `lookup_letter` and `copy_first` are the same.
# - *Many vectors do.* The states of all tokens of the demonstrations, written after block 8, bring
#   lookup back to .60: .71 [.43, 1.11] of what the vector loses; those of another prompt bring
#   nothing. The arrows' states, the labels' states, or attention at all earlier layers do not.
# - *A mapping and its inverse:* where theory expects about half, this model's vector does nothing:
#   .00 to .04, and nearly all of its errors repeat the query. The prompt itself gets .36 to .60.
# - *Fresh labels* are half held (.64, the prompt .84, guessing .50), with an interval from nothing
#   to .83 of it; in `reverse_list` the vector is as good as the prompt (.40 and .36).
# - *`constant` works* (1.00 [.87, 1.00]), as it should; with shuffled labels it does as well.
# - *Not to be asked of this model:* `lookup_once`, `copy_last`, `skewed_labels` and `count_list`,
#   where the prompt is not clearly above the zero-shot prompt or the label prior.
# - At least 96 % of wrong answers have a name, in every task, with θ and few-shot; of tokens picked
#   blindly, 4 to 32 % would have one.
#
# ## What not to conclude
#
# - *Not that a repair found a compact code.* States written at all tokens of the demonstrations are
#   as many vectors as the prompt has tokens; early in the network they are little more than the
#   tokens themselves. Look at the layer that was chosen.
# - *Not more precision than there is.* Twenty-five prompts per task: intervals of about ±.2.
# - *Not that every wrong answer is understood.* It is named by its first token alone, and the first
#   name that fits counts.
