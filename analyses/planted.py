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
# # Do the read-outs find what was planted?
#
# In a real model nobody knows where the task vector is. So here models are made by hand
# (`icl_mech.planted`): small GPT-2s whose weights let known heads write the task at the final token
# after one block, and a known MLP read it in a later one. Some have decoys: a head that attends to
# the labels and is not read, a direction in which the task can be decoded and which nothing uses, a
# copy of the task that is read for a fifth of the inputs only. Others have decoys and noise, but no
# circuit: they do no task.
#
# Every read-out runs on every model: the layers that `localize` names, the heads with an effect
# (AIE), the heads that attend to labels, and the components that restore the answer. *Right* means
# exactly what was planted, to the layer and the head; in a model without a circuit, nothing.

# %%
import builtins
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import tyro
from tqdm.auto import tqdm

from icl_mech.planted import random_plant, read_outs
from icl_mech.plotting import COLOURS, check_target, export
from icl_mech.plotting.marks import interval_whiskers
from icl_mech.plotting.style import title
from icl_mech.results import write_whole
from icl_mech.stats import proportion

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/planted.py --help`); in a notebook, change the
# defaults.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every read-out finds in models whose answer is known."""

    n_plants: int = 50
    """Models of each kind, each with other layers, heads, mappings and noise."""
    seed: int = 0
    """Of the first model; the others follow."""
    out: Path = FIGURES / "planted.html"
    """The figure; what was found in every model goes beside it as .csv."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## Measure
#
# Some seconds a model.

# %%
KINDS = {
    "without decoys": {"decoys": False},
    "with decoys": {"decoys": True},
    "no circuit": {"decoys": True, "circuit": False},
}
rows = []
for seed in tqdm(range(options.seed, options.seed + options.n_plants), desc="models"):
    for kind, settings in KINDS.items():
        plant = random_plant(seed, **settings)
        for each in read_outs(plant):
            row = {
                "seed": seed,
                "kind": kind,
                "decoys": " ".join(plant.decoys),
                "noise": plant.noise,
            }
            row |= {"n_layers": plant.n_layers, "readout": each.readout, "right": each.right}
            rows.append(row | {"found": str(each.found), "planted": str(each.planted)})
found = pd.DataFrame(rows)
table = options.out.with_suffix(".csv")
write_whole(table, lambda to: found.to_csv(to, index=False))

# %%
readouts = list(dict.fromkeys(found.readout))
shares = {
    kind: [
        proportion(of.right.to_numpy())
        for _, of in found[found.kind == kind].groupby("readout", sort=False)
    ]
    for kind in KINDS
}
print(f"share of {options.n_plants} models in which exactly what was planted is named")
print(pd.DataFrame({k: [str(e) for e in v] for k, v in shares.items()}, readouts).to_string())

# %% [markdown]
# ## Which decoy misleads which read-out
#
# Share right where each decoy is there, whatever else is.

# %%
decoyed = found[found.kind == "with decoys"]
by_decoy = {
    decoy: [
        str(proportion(of.right.to_numpy()))
        for _, of in decoyed[decoyed.decoys.str.contains(decoy)].groupby("readout", sort=False)
    ]
    for decoy in ("unread_head", "unread_direction", "partial_copy")
    if decoyed.decoys.str.contains(decoy).any()
}
print(pd.DataFrame(by_decoy, readouts).to_string())

# %%
figure = go.Figure()
colours = (COLOURS["right"], COLOURS["shuffled"], COLOURS["baseline"])
for row, (kind, estimates) in enumerate(shares.items()):
    figure.add_scatter(
        x=[e.value for e in estimates],
        y=np.arange(len(readouts)) + 0.22 * (row - 1),
        error_x=interval_whiskers(estimates),
        mode="markers",
        name=kind,
        marker={"color": colours[row], "size": 9},
        customdata=[str(e) for e in estimates],
        hovertemplate="%{customdata}<extra>" + kind + "</extra>",
    )
always = [name for i, name in enumerate(readouts) if shares["with decoys"][i].low > 0.8]
title(
    figure,
    f"In spite of decoys, {len(always)} of {len(readouts)} read-outs name what was planted"
    if always
    else "What read-outs name in planted models",
    f"share of models in which exactly the planted layer, heads or components are named; "
    f"{options.n_plants} models of each kind, 95 % intervals (Wilson)",
)
figure.update_xaxes(range=[-0.03, 1.03], title="share of models", tickformat=".0%")
figure.update_yaxes(
    tickvals=list(range(len(readouts))), ticktext=readouts, autorange="reversed", automargin=True
)
figure.update_layout(height=160 + 62 * len(readouts), legend={"orientation": "h", "y": -0.14})
print(f"figure: {export(figure, options.out).resolve()}")
print(f"data: {table.resolve()}")
if in_notebook:
    figure.show()
