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
# # Which heads carry the task, and are they the same for every task?
#
# Todd et al. (2023), *Function Vectors in Large Language Models* (arXiv 2310.15213), find a few
# attention heads whose mean output, put into a prompt that does not show the task, brings the
# answer back. Here the same is asked of the packaged model, and three questions more:
#
# - In how many tasks do the same heads come back?
# - Are they induction heads?
# - Does the task *need* them, and does a vector from heads that were chosen on other tasks work?

# %%
import builtins
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import tyro

import icl_mech
from icl_mech.heads import function_vectors, head_ablation, head_attribution
from icl_mech.plotting import check_target, export

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/todd_heads.py --help`); in a notebook, change
# the defaults.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")
BuiltIn = Literal[*icl_mech.list_tasks()]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which attention heads carry the task, in how many tasks they return, and what they do."""

    task: tuple[BuiltIn, ...] = (
        "country_capital",
        "antonyms",
        "present_gerund",
        "en_es",
        "plural_singular",
        "to_upper",
    )
    """Tasks on which heads are ranked."""
    held_out: tuple[BuiltIn, ...] = ("present_past", "en_fr", "location_continent")
    """Tasks on which the heads chosen on the others are tested."""
    n_prompts: int = 20
    """Test prompts per task."""
    n_shots: int = 10
    """Demonstrations per prompt."""
    n_heads: int = 2
    """Heads in the set that all tasks share."""
    seed: int = 0
    """Of every random draw."""
    out: Path = FIGURES / "todd_heads.html"
    """The figures: todd_heads-map.html, -ablation.html and -vectors.html; data beside them."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)
model = icl_mech.load_model()


def show(result: icl_mech.Result, name: str) -> None:
    """Save a result and its figure, and say where."""
    out = options.out.with_stem(f"{options.out.stem}-{name}")
    result.save(out.with_suffix(".nc"))
    print(f"\n{result}\nfigure: {export(result.plot(), out).resolve()}")
    if in_notebook:
        result.plot().show()


# %% [markdown]
# ## All heads, three ways
#
# Exact AIE, its estimate by one gradient, and what each head writes straight to the logits.

# %%
heads = head_attribution(
    model, options.task, options.n_prompts, options.n_shots, options.seed, n_clean=25
)
show(heads, "map")

# %% [markdown]
# ## In how many tasks does a head come back?
#
# Heads among the five largest by AIE whose interval lies above 0, and what else is known of them:
# the role that the last token looks at most (over all tasks), and the induction score.

# %%
returning = Counter(
    (layer, head)
    for task in heads.tasks
    for layer, head, effect in heads.top(task, 5)
    if effect.low > 0
)
mean = heads.data.mean(("task", "prompt"))
rows = {}
for (layer, head), n in returning.most_common(8):
    here = mean.sel(layer=layer, head=head)
    role = str(here["role"].values[int(here["attention"].values.argmax())])
    rows[f"{layer}.{head}"] = {
        "tasks": f"{n} of {len(heads.tasks)}",
        "mean AIE": f"{float(here['aie']):+.3f}",
        "looks at": f"{role} ({float(here['attention'].max()):.0%})",
        "induction": f"{float(here['induction']):.2f}",
        "direct (logits)": f"{float(here['direct']):+.2f}",
    }
print(pd.DataFrame.from_dict(rows, orient="index").to_string())
agreement = {task: heads.agreement(task) for task in heads.tasks}
print("\nattribution patching against exact AIE, rank correlation over heads:")
for task, estimate in agreement.items():
    print(f"  {task}: {estimate}")

# %% [markdown]
# ## Does the task need them?
#
# The top heads of each task are switched off together at the last token: their output becomes its
# mean over prompts of other tasks. Beside it, as many random heads.

# %%
ablation = head_ablation(
    model,
    options.task[:2],
    options.n_prompts,
    options.n_shots,
    options.seed,
    counts=(1, 3, 10),
    n_dev=25,
)
show(ablation, "ablation")

# %% [markdown]
# ## A vector from heads that other tasks chose
#
# The heads with the largest mean AIE over the tasks above; their mean output on the *held-out*
# task's own dev prompts, added to prompts that do not show the task.

# %%
universal = heads.universal(options.n_heads)
print("heads by mean AIE:", ", ".join(f"{layer}.{head}" for layer, head in universal))
vectors = function_vectors(
    model, options.held_out, options.n_prompts, options.n_shots, options.seed, heads=universal
)
show(vectors, "vectors")
