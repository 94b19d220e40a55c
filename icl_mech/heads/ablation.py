"""Does the task need these heads? Mean-ablate the top ones, and as many random ones."""

from collections.abc import Sequence

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError, choose
from icl_mech.heads.ablation_result import HeadAblation
from icl_mech.heads.attribution import (
    answers_in_context,
    average_indirect_effects,
    mean_heads,
)
from icl_mech.heads.attribution_result import Head, largest
from icl_mech.heads.sampling import Drawn, draw
from icl_mech.model import Edit, HookedModel, Readout, as_array, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, Prompt, check_counts, generator, whole_numbers
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks, list_tasks, load_task, load_tasks
from icl_mech.vectors import check_heads

COUNTS = (1, 2, 5, 10, 20)
#: What stands in for the output of a head that is switched off.
OFF = ("other_tasks", "shuffled_labels", "zero")
#: Few-shot prompts per other task over which a head's output is averaged.
PER_TASK = 4


def head_ablation(
    model: HookedModel,
    task: Tasks,
    heads: Sequence[Head] | None = None,
    n_prompts: int = 50,
    n_shots: int = 10,
    seed: int = 0,
    *,
    off: str = "other_tasks",
    counts: Sequence[int] | None = None,
    n_draws: int = 10,
    n_dev: int = 25,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> HeadAblation:
    """Few-shot accuracy without the top-k heads, and without k random heads, for growing k.

    A head is switched off at the prompt's last token, where AIE is measured. Its output (`hook_z`)
    becomes, by `off`:

    - `"other_tasks"`: its mean over few-shot prompts of other built-in tasks;
    - `"shuffled_labels"`: its mean over the dev prompts with shuffled labels, which keeps what all
      answers of the task have in common;
    - `"zero"`: nothing.

    (Its mean over prompts of the task itself would leave in place just what is asked about.)
    Heads are ranked on dev prompts and switched off on test prompts, whose queries differ.

    Args:
        model: from `load_model`.
        task: a task, its name, a path to pairs, a family, or several of these.
        heads: (layer, head)s, most important first; by default ranked by AIE on dev prompts of
            each task. Heads that were ranked on this task with this seed elsewhere have seen its
            test queries.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        off: what stands in for a head's output.
        counts: how many heads are switched off together, each k in turn; by default 1, 2, 5, 10
            and 20, as far as there are heads.
        n_draws: random sets of heads for each k, none of the top k among them (as far as there are
            others).
        n_dev: dev prompts per task.
        template: how a pair is written.
        leading_space: write words with a space before them; by default as the tokenizer likes.
        progress: show a progress bar.

    Raises:
        InputError: where a task, a count or a head cannot work, or the model never answers right.
        ModelError: where the model returns numbers that are not finite.
    """
    check_model(model)
    tasks = load_tasks(task)
    asked = {"n_prompts": n_prompts, "n_shots": n_shots, "n_draws": n_draws, "n_dev": n_dev}
    n_prompts, n_shots, n_draws, n_dev = check_counts(asked, seed)
    choose(off, OFF, "way to switch heads off")
    n_heads = model.n_layers * model.n_heads
    if heads is not None:
        heads = check_heads(heads, model.n_layers, model.n_heads)
    limit = n_heads if heads is None else len(heads)
    given = [k for k in COUNTS if k <= limit] if counts is None else counts
    counts = sorted(set(whole_numbers("counts", given)))
    if not counts or not 0 < counts[0] <= counts[-1] <= limit:
        raise InputError(f"counts {counts}; expected numbers from 1 to {limit}, the heads ranked")
    drawn = [
        draw(model, t, n_prompts, n_dev, n_shots, seed, template, leading_space) for t in tasks
    ]
    branches = len(counts) * (1 + n_draws)
    ranking = n_dev * n_heads if heads is None else 0
    with progress_bar((n_prompts * branches + ranking) * len(tasks), "runs", progress) as bar:
        in_context = answers_in_context(model, drawn)
        parts = []
        for d, intact in zip(drawn, in_context, strict=True):
            bar.set_description(d.task.name)
            ranked = heads
            if ranked is None:
                ranked = largest(average_indirect_effects(model, d.dev, bar.update), counts[-1])
            output = _output_off(model, d, off, n_shots, seed, template)
            parts.append(_ablate(model, d, intact, ranked, output, counts, n_draws, seed, bar))
    data = over_tasks(parts, [t.name for t in tasks])
    provenance = {
        "method": "head_ablation at the last token",
        "off": off,
        **model.provenance(),
        "heads": "ranked by AIE on dev prompts" if heads is None else [list(h) for h in heads],
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "n_dev": n_dev,
        "n_draws": n_draws,
        "seed": seed,
        "template": template,
        "leading_space": leading_space,
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return HeadAblation(data, provenance)


def _ablate(
    model: HookedModel,
    drawn: Drawn,
    intact: Readout,
    ranked: Sequence[Head],
    output: Float[Tensor, "layer head d_head"],
    counts: Sequence[int],
    n_draws: int,
    seed: int,
    bar: tqdm,
) -> xr.Dataset:
    """One task: every set of heads switched off together, on all test prompts."""
    rng = generator(seed, drawn.task.name, "random heads")
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    sets: list[list[Head]] = []
    for k in counts:
        sets.append(list(ranked[:k]))
        others = [head for head in every if head not in ranked[:k]]
        pool = others if len(others) >= k else every
        sets += [[pool[i] for i in rng.choice(len(pool), k, replace=False)] for _ in range(n_draws)]

    def switched_off(chosen: Sequence[Head]) -> list[Edit]:
        return [
            Edit(layer, output[layer, head], "z", "final_arrow", head=head)
            for layer, head in chosen
        ]

    edits = [switched_off(chosen) for chosen in sets]
    readout = model.evaluate(drawn.test.clean, edits, drawn.test.targets, bar.update)
    shape = (len(drawn.test.clean), len(counts), 1 + n_draws)
    right = readout.right.reshape(shape)
    logprob = as_array(readout.logprob).reshape(shape)
    names = [f"{layer}.{head}" for layer, head in ranked[: counts[-1]]]
    logs = {"units": "nats"}
    return xr.Dataset(
        {
            "top_right": (("prompt", "k"), right[..., 0]),
            "random_right": (("prompt", "k", "draw"), right[..., 1:]),
            "top_logprob": (("prompt", "k"), logprob[..., 0], logs),
            "random_logprob": (("prompt", "k", "draw"), logprob[..., 1:], logs),
            "intact_right": ("prompt", intact.right),
            "intact_logprob": ("prompt", as_array(intact.logprob)[:, 0], logs),
            "ranked": ("position", names),
            "n_queries": ((), drawn.n_queries),
            "query": ("prompt", [e.query.x for e in drawn.test.episodes]),
            "answer": ("prompt", [e.query.y for e in drawn.test.episodes]),
        },
        coords={"k": list(counts)},
    )


def _output_off(
    model: HookedModel, drawn: Drawn, off: str, n_shots: int, seed: int, template: str
) -> Float[Tensor, "layer head d_head"]:
    """What every head's output at the final arrow becomes when it is switched off."""
    if off == "zero":
        return torch.zeros(model.n_layers, model.n_heads, model.d_head)
    if off == "shuffled_labels":
        return mean_heads(model, drawn.dev.shuffled)
    prompts: list[Prompt] = []
    # By what it asks, not by its name: a family's task may be a built-in one.
    asked = {(pair.x, pair.y) for pair in drawn.task.pairs}
    for name in list_tasks():
        other = load_task(name)
        if len(other) < n_shots + 3 or asked & {(pair.x, pair.y) for pair in other.pairs}:
            continue
        space = drawn.test.encoder.template.leading_space
        drawn_other = draw(model, other, PER_TASK, 1, n_shots, seed, template, space)
        prompts += drawn_other.test.clean
    if not prompts:
        raise InputError(
            f"no other built-in task has enough pairs for {n_shots} shots; expected fewer shots, "
            "or another way to switch heads off"
        )
    return mean_heads(model, prompts)
