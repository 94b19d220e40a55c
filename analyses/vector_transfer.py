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
# # Does a vector work under another template, and at another token?
#
# Theta of the same demonstrations is formed under several ways to write a pair (an arrow, `Q:` and
# `A:`, a sentence, Spanish words round the pair, a line that names the task before it), and written
# into zero-shot prompts of each. Vectors of one task under two templates are said to be nearly
# orthogonal, and what can be decoded need not steer (arXiv 2602.22424, 2604.02608): the same
# vectors are also compared by cosine, and by the nearest neighbours that they have among the
# vectors of all tasks formed under the other template.
#
# Under the first template vectors are also formed at other tokens than the last, and written over
# the query.

# %%
import builtins
from dataclasses import dataclass
from pathlib import Path

import tyro

import icl_mech
from icl_mech.plotting import check_target, export

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/vector_transfer.py --help`); in a notebook,
# change the defaults.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Vectors formed under one template or at one token, written under another."""

    task: tuple[str, ...] = ("countries/capital", "countries/continent", "countries/language")
    """Tasks that share their inputs, or a family."""
    formats: tuple[str, ...] = ("arrow", "qa", "sentence", "spanish", "arrow+instruction")
    """Ways to write a pair."""
    n_prompts: int = 16
    """Test prompts per task, each with a vector of its own demonstrations."""
    n_shots: int = 5
    """Demonstrations per vector."""
    k: int = 5
    """Nearest neighbours that vote for a vector's task."""
    seed: int = 0
    """Of every random draw."""
    out: Path = FIGURES / "vector_transfer.html"
    """The figure; the data go beside it as .nc."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## The measurement

# %%
model = icl_mech.load_model()
result = icl_mech.vector_transfer(
    model,
    options.task,
    options.n_prompts,
    options.n_shots,
    options.seed,
    formats=options.formats,
    k=options.k,
)
result.save(options.out.with_suffix(".nc"))
print(result)

# %%
figure = result.plot()
print(f"figure: {export(figure, options.out, result.caveats()).resolve()}")
if in_notebook:
    figure.show()

# %% [markdown]
# ## Steerable, decodable, alike
#
# Over all tasks together, for a vector under its own format and under others.

# %%
for words, across in (("its own format", False), ("other formats", True)):
    print(
        f"under {words}: right {result.pooled_accuracy(across)}, decoded "
        f"{result.pooled_decoded(across)}"
    )
print(f"own minus others: {result.pooled_lost()}")
cells = result.full_summary().reset_index()
across = cells[cells["formed"] != cells["written"]]
print("\nmean cosine of two formats' vectors (of the same task), and without the mean over tasks:")
print(across.groupby("task")[["cosine", "centred_cosine"]].mean().round(2).to_string())

# %% [markdown]
# ## By token

# %%
print(result.tokens_frame().round(2).to_string())
