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
# # How many tokens of an answer need the demonstrations?
#
# PICA (arXiv 2503.09958) generates the first answer tokens with demonstrations and drops them then:
# its motive is that the next-token distributions of the zero-shot and the few-shot prompt differ
# most at the first answer tokens. Here the divergence is measured token by token, and whole answers
# against the number k of tokens that follow the demonstrations, with nothing in their place after
# that, with the separator's own states, with theta, or with a learned vector.
#
# The case: on present_past theta brings the answer and not its end ("kept." for "kept"). Is the end
# one of the tokens that need the demonstrations?

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
# As a script this takes arguments (`python analyses/progressive_generation.py --help`); in a
# notebook, change the defaults.

# %%
FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Answers whose first tokens follow demonstrations and whose others do not."""

    task: tuple[str, ...] = ("present_past", "es_en")
    """Tasks by name."""
    first_tokens: tuple[int, ...] = (0, 1, 2, 3)
    """How many answer tokens follow the demonstrations."""
    methods: tuple[str, ...] = ("theta", "learned")
    """Vectors that are in place after that."""
    n_prompts: int = 16
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    many_shots: int = 40
    """Demonstrations per prompt where only the speed is measured; 0 leaves this out."""
    n_sets: int = 8
    """Demonstration sets that a vector is read from."""
    n_steps: int = 20
    """Most gradient steps of the learned vector."""
    batch_size: int = 8
    """Training prompts in a step."""
    seed: int = 0
    """Of every random draw."""
    out: Path = FIGURES / "progressive_generation.html"
    """The figure; the data go beside it as .nc."""


in_notebook = hasattr(builtins, "__IPYTHON__")
options = Options() if in_notebook else tyro.cli(Options)
check_target(options.out)

# %% [markdown]
# ## The measurement

# %%
model = icl_mech.load_model()
result = icl_mech.progressive_generation(
    model,
    options.task,
    options.n_prompts,
    options.n_shots,
    options.seed,
    first_tokens=options.first_tokens,
    methods=options.methods,
    n_sets=options.n_sets,
    n_steps=options.n_steps,
    batch_size=options.batch_size,
    timed_tokens=4,  # the speed has a part of its own below
    n_rounds=1,
)
result.save(options.out.with_suffix(".nc"))
print(result)

# %%
figure = result.plot()
print(f"figure: {export(figure, options.out, result.caveats()).resolve()}")
if in_notebook:
    figure.show()

# %% [markdown]
# ## Does one token bring the end?
#
# Of the answers that begin rightly, the share that end there.

# %%
for task in result.tasks:
    print(f"\n{task}: KL at the first answer token minus the second: {result.falls(task)} nats")
    for kept in result.kept:
        found = {k: result.ends(task, k, kept) for k in result.first_tokens}
        ends = ", ".join(f"k = {k}: {e if e.n else 'none begins'}" for k, e in found.items())
        print(f"  {kept}: of those that begin rightly, end there: {ends}")

# %% [markdown]
# ## Speed with many demonstrations
#
# What is dropped need not be attended to: tokens per second, median of the rounds.

# %%
for n_shots in (options.n_shots, *([options.many_shots] if options.many_shots else [])):
    timed = icl_mech.progressive_generation(
        model,
        options.task[0],
        4,
        n_shots,
        options.seed,
        first_tokens=options.first_tokens,
        methods=[],
        n_blocks=1,
        n_positions=1,
        timed_tokens=16,
        n_rounds=5,
    )
    task = timed.tasks[0]
    whole, length = timed.speed(task), float(timed.of(task)["few_length"])
    print(f"\n{n_shots} shots, prompts of {length:.0f} tokens: {whole.value:.0f} tokens per second")
    for k in timed.first_tokens:
        print(f"  k = {k}: {timed.speed(task, k).value / whole.value:.2f} times as many")
