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
# # From a sentence to a task vector, in fifteen minutes
#
# A language model that reads `Japan->Tokyo` and `France->Paris` answers `Peru->` with `Lima`.
# Somewhere it turned the examples into a *task*, and somewhere else it applied the task to Peru.
# This notebook takes that task out, writes it into a sentence without examples, and asks where in
# the model it was formed and where it is decoded.
#
# `make notebooks` runs all cells and writes `figures/tutorial.ipynb`; `python analyses/tutorial.py`
# prints what they show. It takes about four minutes on two CPU cores.

# %%
import builtins
import math
from dataclasses import dataclass
from pathlib import Path

import tyro

import icl_mech
from icl_mech.plotting import export

FIGURES = Path("../figures" if Path.cwd().name == "analyses" else "figures")
IN_NOTEBOOK = hasattr(builtins, "__IPYTHON__")
# In a notebook, shows what a result as a cell's last line shows: its figure and its table.
display = getattr(builtins, "display", print)


@dataclass(frozen=True, kw_only=True)
class Options:
    """From a sentence to a task vector, and to where it is formed and decoded."""

    n_prompts: int = 50
    """Test prompts of the scan, and at most 16 of the map."""
    out: Path = FIGURES / "tutorial.html"
    """The scan's figure."""


options = Options() if IN_NOTEBOOK else tyro.cli(Options)

# %% [markdown]
# ## A sentence
#
# The packaged model needs no network. `model.prompt` takes any text; where it follows the pattern
# `input->output`, every token knows its role.

# %%
model = icl_mech.load_model("gemma-3-270m")
prompt = model.prompt("Japan->Tokyo\nFrance->Paris\nPeru->")
for token, role in zip(prompt.tokens, prompt.roles, strict=True):
    print(f"{role:14} {model.to_string(token)!r}")

# %%
print(model.generate(prompt, max_new_tokens=4).text)
print(model.generate("Peru->", max_new_tokens=4).text)

# %% [markdown]
# With two examples the model names a capital. Without them it does not know what is asked.
#
# What would it say if it stopped after each block? The *logit lens* reads the residual stream
# there as if it were the last. Rows are blocks, columns are tokens; the menu changes what the
# colour means.

# %%
display(icl_mech.prompt_lens(model, prompt, target="Lima"))

# %% [markdown]
# ## A task
#
# A task is a list of inputs and right answers. Eighteen come with the package; a dict of pairs, a
# CSV or a JSON file of your own does as well.

# %%
print(icl_mech.list_tasks())
task = icl_mech.load_task("country_capital")
print(len(task), task.pairs[:2])

# %% [markdown]
# ## A task vector
#
# Hendel et al. (2023): read the residual stream at the last token of a prompt with examples, after
# some block, and write it over the same place of a prompt without examples. `task_vector` does it
# for twenty sets of five examples, and finds the block on other countries.

# %%
tv = icl_mech.task_vector(model, task)
display(tv)
print(model.generate("Peru->", vector=tv, max_new_tokens=4).text)
for answer, logprob in model.logprobs("Canada->", [" Ottawa", " Toronto"], vector=tv).items():
    print(f"p({answer}) = {math.exp(logprob):.2f}")

# %% [markdown]
# How good is it? `accuracy` asks about countries that the vector was not shown. The number has a
# 95 % interval; so has every number of this package.

# %%
print(tv.accuracy(model, task))

# %% [markdown]
# After which block, and how strongly? `steer` writes it after each block in turn.

# %%
display(icl_mech.steer(model, "Peru->", tv, [" Lima", " Peru"], scales=[0.5, 1.0, 2.0]))

# %% [markdown]
# What does the vector itself say, read through the unembedding? Up to block 9 nothing that one
# could read: the task is there, and not as a word. After block 10 words such as *Hauptstadt* come
# up, and from block 11 on capitals.

# %%
display(icl_mech.vector_lens(model, tv, layers=[8, 9, 10, 11, 12]))

# %% [markdown]
# The vector works inside TransformerLens too, and it can be added, scaled, saved and loaded. (The
# cosine of two tasks is nearly 1: most of what stands at this token is the same in every task.)

# %%
with tv.apply(model):
    print(model.bridge.generate("Egypt->", max_new_tokens=3, do_sample=False, verbose=False))
upper = icl_mech.task_vector(model, "to_upper", layer=tv.layer)
print(f"cosine of capitals and upper case: {float(tv.cosine(upper)[tv.layer]):.2f}")

# %% [markdown]
# ## Where is it formed, where decoded?
#
# A layer scan reads a vector from the examples of every prompt, and writes it after every block in
# turn. It compares with the prompt without examples (*baseline*) and with them (*regular*), and
# runs controls: vectors of shuffled labels, of another task, and of random numbers. (To scan one
# vector that is held: `layer_scan(model, task, vector=tv)`.)

# %%
scan = icl_mech.layer_scan(model, task, n_prompts=options.n_prompts)
display(scan)

# %% [markdown]
# The vector works after the blocks where the curve is high: the task has been formed by then. From
# the block on where it falls, the same place no longer holds the task but the answer: it has been
# decoded. `localize` puts this beside probes, attention heads and the logit lens on one axis of
# layers.

# %%
display(icl_mech.localize(model, task, n_prompts=min(16, options.n_prompts)))

# %% [markdown]
# Which heads bring the task to the last token, and where do they look?

# %%
heads = icl_mech.head_attribution(model, task, n_prompts=8, n_shots=5)
display(icl_mech.prompt_attention(model, prompt, heads))

# %% [markdown]
# ## A task and a model of your own

# %%
pairs = {"one": "1", "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "eight": "8"}
pairs |= {"nine": "9", "ten": "10", "twelve": "12"}
digits = icl_mech.task_vector(model, pairs, n_prompts=4, layer=tv.layer)
print(model.generate("seven->", vector=digits, max_new_tokens=2).text)

# %% [markdown]
# Any model that TransformerLens runs will do: `icl_mech.load_model("org/name")`, a folder, a
# `.gguf` file, or a model object. `icl-mech check --model org/name` says whether it is supported,
# and proves that its edits act.

# %%
export(scan.plot(), options.out)
print(f"figure: {options.out}")
