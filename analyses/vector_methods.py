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
# # Which way to get a task vector brings back the most?
#
# A dozen methods claim better vectors than theta (Hendel et al. 2023), each against its own
# baseline, on its own data, scored by first tokens, without intervals. Here they stand in one
# table: the same training pairs, the same dev prompts to choose a layer, a factor or heads on, and
# the same test prompts, of queries that neither has seen.
#
# Read from activations: theta (of one demonstration set, and the mean of several), the mean of the
# stream, theta of an instruction, function vectors (Todd et al. 2023), state vectors (Li et al.
# 2024), in-context vectors (Liu et al. 2023). Trained through the frozen model: a learned theta
# (arXiv 2509.24169), learned head weights (Saglam et al. 2025), I2CL (Li et al. 2024).
#
# Asked of each: first tokens and whole answers, with and without misleading demonstrations; how
# far the next-token distribution is from that of the few-shot prompt; what is left of it with
# controls in its place; and what it cost.

# %%
import builtins
from dataclasses import dataclass
from pathlib import Path

import tyro

import icl_mech
from icl_mech.plotting import check_target, export
from icl_mech.vector_methods import join_comparisons

# %% [markdown]
# ## Settings
#
# As a script this takes arguments (`python analyses/vector_methods.py --help`); in a notebook,
# change the defaults. Every finished task is kept in a folder beside the figure: after an
# interrupt, the same settings go on from there.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Every way to get a task vector, on the same prompts."""

    task: tuple[str, ...] = (
        "en_es",
        "antonyms",
        "present_past",
        "country_capital",
        "es_en",
        "person_language",
    )
    """Tasks by name, or all 18: --task all."""
    methods: tuple[str, ...] | None = None
    """Which methods; by default all."""
    n_prompts: int = 20
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt and per demonstration set."""
    n_steps: int = 30
    """Most gradient steps of methods that train."""
    batch_size: int = 8
    """Training prompts in a step."""
    n_sets: int = 8
    """Demonstration sets that a vector is read from."""
    seed: int = 0
    """Of every random draw."""
    out: Path = FIGURES / "vector_methods.html"
    """The figure; the data go beside it as .nc, finished tasks into a folder."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
tasks = icl_mech.list_tasks() if options.task == ("all",) else list(options.task)
check_target(options.out)

# %% [markdown]
# ## All methods on all tasks
#
# About five minutes a task on one core: most of it trains vectors, and generates texts. Two
# processes on two cores take .8 of the time of one with two threads. Run this first; the analysis
# then finds every task finished:
#
# ```
# icl-mech sweep --models gemma-3-270m --measures vectors --tasks all --workers 2 \
#     --set vectors.n_prompts=20 vectors.n_shots=5 vectors.n_sets=8 vectors.n_steps=30 \
#     vectors.batch_size=8 --folder figures/vector_methods-runs
# ```

# %%
settings = {
    "n_prompts": options.n_prompts,
    "n_shots": options.n_shots,
    "methods": options.methods,
    "n_sets": options.n_sets,
    "n_steps": options.n_steps,
    "batch_size": options.batch_size,
}
sweep = icl_mech.sweep(
    "gemma-3-270m",
    {"vectors": settings},
    tasks,
    options.seed,
    folder=options.out.with_name(f"{options.out.stem}-runs"),
)
result = join_comparisons([of for _, of in sweep.results("vectors")])
result.save(options.out.with_suffix(".nc"))
print(result)

# %%
figure = result.plot()
print(f"figure: {export(figure, options.out, result.caveats()).resolve()}")
if in_notebook:
    figure.show()

# %% [markdown]
# ## Which methods are told apart
#
# Paired differences on the prompts of all tasks, p corrected for the number of pairs (Holm).

# %%
for score in ("first_token", "accepted"):
    differences = result.differences(score)
    print(f"\n{score}: pairs that are told apart")
    print(differences[differences["differ"]].round(3).to_string(index=False))

# %% [markdown]
# ## Task by task
#
# First tokens, whole answers, the distance to the few-shot prompt, and the layers at work.

# %%
names = ["first_token", "first_token_low", "first_token_high", "recovered", "accepted", "shuffled"]
names += [
    "kl",
    "total_variation",
    "random",
    "other_task",
    "shuffled_labels",
    "layer",
    "n_layers_at_work",
]
full = result.full_summary()
for task in result.tasks:
    few, zero = (result.reference(task, reference) for reference in ("few_shot", "zero_shot"))
    whole = result.reference(task, "few_shot", "accepted")
    print(f"\n{task}: few-shot {few}, whole {whole}; zero-shot {zero}")
    print(f"KL of the zero-shot prompt: {result.reference_distance(task, 'zero_shot')} nats")
    print(full.loc[task, [*names, "norm", "stream_norm"]].round(2).to_string())

# %% [markdown]
# ## Do they do the same to the stream?
#
# Cosines between what the vectors (and the demonstrations) change in the residual stream after the
# last block, mean over prompts and tasks.

# %%
cosines = sum(result.cosines(task) for task in result.tasks) / len(result.tasks)
print(cosines.round(2).to_string())
