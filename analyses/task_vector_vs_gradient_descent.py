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
# # Task vector or gradient descent?
#
# Two stories about in-context learning: the context is summed up in a vector that names the task,
# or the forward pass runs a learning algorithm on the examples, such as gradient descent on a
# linear model. In a mixture of sparse linear regressions (Han et al. 2024, arXiv 2412.12276) both
# can be measured on one model: which basis (the task) and which weights W the residual stream
# holds, layer by layer, and which algorithm the predictions follow. The two stories need not
# exclude one another: gradient descent is compared both on all coordinates and within each basis,
# weighted by the posterior of the bases.
#
# The measurements of the preset `small` come with the repository; `python
# analyses/han_emergence.py --train` makes them again.

# %%
import builtins
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import tyro

import icl_mech
from icl_mech.errors import InputError
from icl_mech.plotting import check_target, export
from icl_mech.results import load_result
from icl_mech.synthetic import Emergence

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/task_vector_vs_gradient_descent.py --help`);
# in a notebook, change the defaults.

# %%
#: The folder of the measurements, wherever this is started: a notebook has no file of its own.
STARTED = [Path(__file__)] if "__file__" in globals() else [Path.cwd() / "notebook"]
NEAR = [*STARTED[0].parents, Path(icl_mech.__file__).parents[1]]
KEPT = (folder / "analyses" / "data" for folder in NEAR)
DATA = next((folder for folder in KEPT if folder.is_dir()), Path("analyses/data"))
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Which algorithm do a trained model's predictions follow, and what can be read where?"""

    run: Path = DATA / "small-seed0.nc"
    """Measurements of a training run: what `icl_mech.measure_emergence(...).save` wrote."""
    out: Path = FIGURES / "task_vector_vs_gradient_descent.html"
    """The figure."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)
run = load_result(options.run)
if not isinstance(run, Emergence):
    raise InputError(f"{options.run}: a {type(run).__name__}; expected an Emergence")

# %% [markdown]
# ## Which algorithm
#
# Mean squared distance of the model's predictions to those of every algorithm, over all numbers of
# examples, on held-out sequences. Beside it, how well each algorithm itself predicts after the last
# example; the model's own error stands in the first row.

# %%
distances = run.distances()
rows = {"the model itself": {"distance": "0", "error after the last example": run.error().at(-1)}}
for i, name in enumerate(run.references):
    rows[name.replace("_", " ")] = {
        "distance": distances.at(-1, i),
        "error after the last example": run.reference_error(name).at(-1),
    }
print(pd.DataFrame.from_dict(rows, orient="index").astype(str).to_string())
print(f"nearest: {run.nearest_reference()}")

# %% [markdown]
# ## What can be read where
#
# At the y token of the last demonstration, after every block: the basis by nearest neighbours (TD)
# and by a linear probe, and R² of W by a linear probe, all cross-validated or leaving the point
# out.

# %%
td, basis, weights = run.td_by_layer(), run.basis_accuracy(), run.weight_r2()
layers = range(run.data.sizes["layer"])
print(
    pd.DataFrame(
        {
            "TD": [str(td.at(-1, layer)) for layer in layers],
            "basis, linear probe": [str(basis.at(layer)) for layer in layers],
            "R² of W": [str(weights.at(layer)) for layer in layers],
        },
        index=pd.Index(layers, name="block"),
    ).to_string()
)
print(
    f"the probe of W ({run.n_probe} sequences per basis) tells a true R² of "
    f"{run.weight_limit:.2f} from 0, and no smaller one"
)

# %% [markdown]
# ## What the numbers show
#
# (Preset `small`, seed 0.)
#
# - *Regression within an inferred basis.* Predictions are .07 [.06, .08] from the Bayes mixture's,
#   .05 [.05, .06] from 32 steps of gradient descent within each basis, weighted by the posterior
#   of the bases; .27 from ridge regression that knows the basis, .53 from ridge regression and
#   from 32 steps of gradient descent on all coordinates. Early in training they are nearest to
#   few steps of gradient descent.
# - *The basis.* At the last y token the basis can be told .95 of the time after block 4. Of W a
#   linear probe reads nothing at any layer (R² -.02), but with these 100 sequences per basis it
#   would show a true R² of .3 and none below: less than that may well be there.
# - Least squares has a few very large errors where there are about as many examples as coordinates:
#   its distances mean little.
#
# ## What not to conclude
#
# - *Not that W is nowhere.* A linear probe at one token is one way to look, and this one has few
#   sequences; newly measured runs have 1,000 per basis (`n_probe`), which show a true R² of .05.
# - *Not that it is gradient descent, or that it is not.* Enough steps within the right basis come
#   as near as the exact solution: which of the two is nearer says how well W is fitted, not how.

# %% [markdown]
# ## The figure

# %%
figure = run.plot_algorithms()
print(f"figure: {export(figure, options.out).resolve()}")
if in_notebook:
    figure.show()
