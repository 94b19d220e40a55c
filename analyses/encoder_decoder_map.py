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
# # Where is the task encoded, and where is it decoded?
#
# Hendel et al. (2023, arXiv 2310.15916) find the layers at which a task vector can be moved from
# one prompt to another; Han et al. (2024, arXiv 2412.12276) the layers at which the residual
# stream tells tasks apart; Todd et al. (2023, arXiv 2310.15213) the heads that write the task; the
# logit lens shows when the answer can be read. Do these four name the same layers?
#
# Tasks come in families that share their inputs, so that their words alone do not tell them
# apart.

# %%
import builtins
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd
import tyro

import icl_mech
from icl_mech.localize import TaskMap, localize
from icl_mech.plotting import check_target
from icl_mech.tasks import load_family

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/encoder_decoder_map.py --help`); in a
# notebook, change the defaults.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Formation and decoding layers of tasks by five read-outs, family by family."""

    family: tuple[Literal["verbs", "english_words", "countries", "letters"], ...] = (
        "countries",
        "verbs",
    )
    """Families of tasks that share their inputs, a report each."""
    n_prompts: int = 20
    """Prompts per task for transfer, lens and heads."""
    n_points: int = 50
    """Prompts per task for decodability."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    model: str = "gemma-3-270m"
    """The packaged model, a hub name, a folder, or a .gguf file."""
    seed: int = 0
    """Of every random draw."""
    out: Path = FIGURES / "encoder_decoder_map.html"
    """The reports, one per family: encoder_decoder_map-countries.html and so on; data beside."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## The maps

# %%
model = icl_mech.load_model(options.model)
maps: dict[str, TaskMap] = {}
for name in options.family:
    found = localize(
        model,
        load_family(name),
        options.n_prompts,
        options.n_shots,
        options.seed,
        n_points=options.n_points,
    )
    page = options.out.with_stem(f"{options.out.stem}-{name}")
    found.save(page.with_suffix(".nc"))
    print(f"\n{found}\nreport: {found.report(page).resolve()}")
    maps[name] = found
    if in_notebook:
        found.plot().show()

# %% [markdown]
# ## Do the read-outs agree?
#
# Layers of the second read-out minus the first, for every task, with 95 % intervals over resampled
# queries, and the share of resamples in which they are at most one layer apart.

# %%
agreement = pd.concat(
    {task: found.agreement(task) for found in maps.values() for task in found.tasks},
    names=["task"],
)
print(agreement.round(2).to_string())
print("\nshare of tasks in which the two are at most one layer apart:")
close = (agreement["layers"].abs() <= 1).where(agreement["layers"].notna())
print(close.groupby(level=["what", "first", "second"], sort=False).mean().round(2).to_string())
