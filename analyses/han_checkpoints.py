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
# # Formation and decoding, checkpoint by checkpoint
#
# Han, Song, Gore and Agrawal (*Emergence and Effectiveness of Task Vectors in In-Context Learning:
# An Encoder-Decoder Perspective*, arXiv 2412.12276, figures 5 and 6) follow a language model over
# its pretraining: task decodability (TD) and accuracy rise together. Here the same is measured at
# every checkpoint of a *finetuning*, with adapters on the first or on the last third of the blocks:
# TD after every block, accuracy, what θ does after every block, and the layers at which the task is
# formed and decoded. Prompts are made of pairs that training never sees.
#
# With a series of pretraining checkpoints at hand:
#
# ```sh
# icl-mech checkpoints --model org/name --revisions step1000 step4000 step16000 --tasks pos
# ```

# %%
import builtins
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import tyro

import icl_mech
from icl_mech.checkpoints import Checkpoints
from icl_mech.finetune.plan import FinetuneSettings, plan
from icl_mech.plotting import check_target, export

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/han_checkpoints.py --help`); in a notebook,
# change the defaults. The measurements come with the repository. `--measure` makes them again from
# the adapters that `han_table1.py --train` leaves in `figures/`.

# %%
HERE = Path("../" if Path.cwd().name == "analyses" else ".")
DATA, FIGURES = HERE / "analyses" / "data", HERE / "figures"
ARMS = {"first": "first third of the blocks tuned", "last": "last third tuned"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Checkpoints of finetuning: decodability, accuracy, transfer, and the map's layers."""

    family: str = "pos"
    """Of tasks."""
    seed: int = 0
    """Of the finetuning, and of the prompts."""
    n_prompts: int = 12
    """Prompts per task for accuracy and transfer."""
    n_points: int = 40
    """Prompts per task for decodability."""
    data: Path = DATA
    """Where measurements are kept, as han_checkpoints-<family>-<arm>.nc."""
    measure: tyro.conf.FlagCreatePairsOff[bool] = False
    """Measure, instead of reading what is kept."""
    checkpoints: Path = FIGURES
    """--measure: where the adapters are, in han_table1-<family>-<arm>-seed<seed>."""
    out: Path = FIGURES / "han_checkpoints.html"
    """The figures, one for each arm: han_checkpoints-first.html and so on."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## Measure


# %%
def measured(arm: str) -> Checkpoints:
    """Every checkpoint of an arm, measured now if asked for."""
    path = options.data / f"han_checkpoints-{options.family}-{arm}.nc"
    if options.measure:
        folder = options.checkpoints / f"han_table1-{options.family}-{arm}-seed{options.seed}"
        models = {
            step: partial(icl_mech.load_model, adapter=adapter)
            for step, adapter in icl_mech.list_adapters(folder)
        }
        held_out = plan(options.family, FinetuneSettings(seed=options.seed)).held_out
        found = icl_mech.over_checkpoints(
            models, held_out, options.n_prompts, 4, options.seed, n_points=options.n_points
        )
        found.save(path, digits=3)
    result = icl_mech.load_result(path)
    assert isinstance(result, Checkpoints)
    return result


runs = {arm: measured(arm) for arm in ARMS}
for arm, run in runs.items():
    print(f"\n{ARMS[arm]}\n{run}")
    print(run.onsets().round(2).to_string())

# %% [markdown]
# ## TD after every block, before and after
#
# Upstream of the tuned blocks nothing can change.

# %%
for arm, run in runs.items():
    for step in (run.steps[0], run.steps[-1]):
        curve = " ".join(f"{e.value:.2f}" for e in run.td_by_layer(step))
        print(f"{ARMS[arm]}, after {step} updates: {curve}")

# %% [markdown]
# ## Figures

# %%
for arm, run in runs.items():
    figure = run.plot()
    path = options.out.with_stem(f"{options.out.stem}-{arm}")
    print(f"figure: {export(figure, path).resolve()}")
    if in_notebook:
        figure.show()

# %% [markdown]
# ## What the numbers show
#
# (Family `pos`, seed 0, 12 prompts per task, 40 for TD.)
#
# - *The task is encoded earlier in the model, not better.* With the first third tuned, TD after
#   block 5 goes from .85 to 1.00, after block 8 from .77 to .99; θ, which works from block 9 on in
#   the pretrained model, works from block 5 on for some tasks. It is decoded after block 12 at
#   every checkpoint.
# - *θ gets better with the model*: its best accuracy rises from .29 to .69, where few-shot accuracy
#   rises from .29 to .96.
# - *Late tuning wears the code down where it is no longer needed*: TD after the last block falls
#   from .85 to .65, and upstream of block 12 nothing changes.
