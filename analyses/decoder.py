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
# # By which layer are the demonstrations read, and who decodes the vector?
#
# Two questions about the same prompts. *Context masking* (Sia, Mueller and Duh 2024) hides the
# demonstrations from some block on, without any vector. *Path patching* (Wang et al. 2022) writes
# theta (Hendel et al. 2023) into zero-shot prompts and asks of every later head and MLP what is
# lost without it, and what comes where it alone sees theta.
#
# Components are found on odd prompts, and set back together on even prompts, beside random sets of
# as many.

# %%
import builtins
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

import icl_mech
from icl_mech.plotting import check_target, export

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/decoder.py --help`); in a notebook, change the
# defaults.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """By which layer demonstrations are read, and which components decode theta."""

    task: tuple[str, ...] = (
        "country_capital",
        "antonyms",
        "es_en",
        "present_gerund",
        "to_upper",
        "next_letter",
    )
    """Tasks by name."""
    n_prompts: int = 24
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    seed: int = 0
    """Of every random draw."""
    out: Path = FIGURES / "decoder.html"
    """The figure of decoders; that of masking goes beside it, and the data of both."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)
counts = (options.n_prompts, options.n_shots, options.seed)
model = icl_mech.load_model()

# %% [markdown]
# ## Hiding the demonstrations

# %%
masking = icl_mech.context_masking(model, list(options.task), *counts)
masked = options.out.with_name(f"{options.out.stem}-masking.html")
masking.save(masked.with_suffix(".nc"))
print(masking)
figure = masking.plot()
print(f"figure: {export(figure, masked, masking.caveats()).resolve()}")
if in_notebook:
    figure.show()

# %% [markdown]
# ## Who decodes theta
#
# Tasks on which theta is not shown to help have nothing to decode, and are left out.

# %%
found = {}
for task in options.task:
    try:
        found[task] = icl_mech.find_decoder(model, task, *counts)
    except icl_mech.InputError as error:
        print(error)
for task, decoder in found.items():
    page = options.out.with_name(f"{options.out.stem}-{task}.html")
    decoder.save(page.with_suffix(".nc"))
    print(f"\n{decoder}")
    effects = ["necessity", "sufficiency", "direct", "share"]
    print(decoder.components(task).iloc[:8][effects].round(2))
    figure = decoder.plot()
    print(f"figure: {export(figure, page, decoder.caveats()).resolve()}")
    if in_notebook:
        figure.show()

# %% [markdown]
# ## All tasks
#
# What is gone without the components found, without as many at random, and what is left with them
# alone (shares of theta's effect, on even prompts). By gradients: the rank correlation of the
# first-order estimate with the exact effect, over components.

# %%
rows = {}
for task, decoder in found.items():
    of, size = decoder.components(task), decoder.n_chosen(task)
    rows[task] = {
        "θ after block": decoder.theta_layer(task),
        "found": ", ".join(decoder.chosen(task)),
        "gone": str(decoder.removed(task, size)),
        "gone at random": str(decoder.random_removed(task, size)),
        "left with these": str(decoder.kept(task, size)),
        "past all": str(decoder.bypass(task)),
        "rank correlation": round(
            float(of["necessity"].corr(of["necessity_first_order"], method="spearman")), 2
        ),
    }
table = pd.DataFrame.from_dict(rows, orient="index")
print(table.to_string())
table.to_csv(options.out.with_suffix(".csv"))
