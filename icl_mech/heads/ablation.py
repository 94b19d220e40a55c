"""Does the task need these heads? Mean-ablate the top ones, and as many random ones."""

from collections.abc import Sequence

import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError
from icl_mech.heads.ablation_result import HeadAblation
from icl_mech.heads.attribution import NO_FILTERS, answers_in_context, mean_heads
from icl_mech.heads.plan import (
    COUNTS,
    AblationSettings,
    Head,
    HeadsPlan,
    Off,
    plan_heads,
    several_counts,
)
from icl_mech.heads.prompts import TaskPrompts, elsewhere, encode
from icl_mech.heads.ranking import Ranking
from icl_mech.model import Edit, HookedModel, Readout, as_array, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, generator
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks


def head_ablation(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 50,
    n_shots: int = 10,
    seed: int = 0,
    *,
    heads: Sequence[Head] | None = None,
    off: Off = "other_tasks",
    counts: Sequence[int] | None = None,
    n_draws: int = 10,
    n_dev: int | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> HeadAblation:
    """Measure few-shot accuracy without the top k heads, and without k random heads.

    A head is switched off at the prompt's last token, where AIE is measured. Its output (`hook_z`)
    becomes, by `off`:

    - `"other_tasks"`: its mean over few-shot prompts of other built-in tasks;
    - `"shuffled_labels"`: its mean over the dev prompts with shuffled labels, which keeps what all
      answers of the task have in common;
    - `"zero"`: zero.

    (The mean over prompts of the task itself would keep the task information under study.) Heads
    are ranked on dev prompts and switched off on test prompts, whose queries differ.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        heads: (layer, head)s, most important first; by default ranked by AIE on dev prompts of
            each task. Heads that `head_attribution` ranked on this task with this seed have seen
            its test queries.
        off: what replaces a head's output.
        counts: numbers k of heads that are switched off together; by default 1, 2, 5, 10 and 20,
            as far as the model has that many heads.
        n_draws: number of random sets of heads for each k, without the top k (if the model has
            enough other heads).
        n_dev: dev prompts per task; half of `n_prompts` by default.
        template: how a pair is written.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, a count or a head cannot work, or the model answers none of a task's
            few-shot prompts right.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> ablation = icl_mech.head_ablation(
        ...     model, "country_capital", n_prompts=4, n_shots=4, heads=[(9, 3), (15, 1)],
        ...     n_draws=2, off="zero", progress=False,
        ... )
        >>> ablation.counts
        [1, 2]
    """
    check_model(model)
    settings = AblationSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        off=off,
        counts=None if counts is None else several_counts("counts", counts),
        n_draws=n_draws,
        n_dev=n_dev,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_ablation(model, plan_heads(tasks, settings, heads), progress)


def measure_ablation(
    model: HookedModel, plan: HeadsPlan[AblationSettings], progress: bool = True
) -> HeadAblation:
    """Run a plan of `plan_heads`: what `head_ablation` does after the prompts are drawn.

    Raises:
        InputError: as `head_ablation`.
        ModelError: as `head_ablation`.
    """
    model.check_site("z")
    s, ranking = plan.settings, Ranking.of(model, plan)
    limit = len(ranking)
    counts = [k for k in COUNTS if k <= limit] if s.counts is None else list(s.counts)
    if counts[-1] > limit:
        raise InputError(f"counts {counts}; expected numbers from 1 to {limit}, the heads ranked")
    encoded = encode(model, plan)
    ablated = s.n_prompts * len(counts) * (1 + s.n_draws)
    with progress_bar((ablated + ranking.n_runs(s.dev)) * len(encoded), "runs", progress) as bar:
        in_context = answers_in_context(model, encoded)
        parts = []
        for of, intact in zip(encoded, in_context, strict=True):
            bar.set_description(of.plan.task.name)
            ranked = ranking.top(of.dev, counts[-1], bar.update)
            output = _output_off(model, of, s.off)
            parts.append(_ablate(model, of, intact, ranked, output, counts, s, bar))
    data = over_tasks(parts, [of.task.name for of in plan.tasks])
    provenance = {
        "method": "head_ablation at the last token",
        **model.provenance(),
        **s.recorded(),
        "counts": counts,
        "heads": ranking.recorded,
        "filters": NO_FILTERS,
    }
    return HeadAblation(data, provenance)


def _ablate(
    model: HookedModel,
    of: TaskPrompts,
    intact: Readout,
    ranked: Sequence[Head],
    output: Float[Tensor, "layer head d_head"],
    counts: Sequence[int],
    s: AblationSettings,
    bar: tqdm,
) -> xr.Dataset:
    """One task: every set of heads switched off together, on all test prompts."""
    rng = generator(s.seed, of.plan.task.name, "random heads")
    every = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    sets: list[list[Head]] = []
    for k in counts:
        sets.append(list(ranked[:k]))
        others = [head for head in every if head not in ranked[:k]]
        pool = others if len(others) >= k else every
        sets += [
            [pool[i] for i in rng.choice(len(pool), k, replace=False)] for _ in range(s.n_draws)
        ]

    def switched_off(chosen: Sequence[Head]) -> list[Edit]:
        return [
            Edit(layer, output[layer, head], "z", "final_arrow", head=head)
            for layer, head in chosen
        ]

    edits = [switched_off(chosen) for chosen in sets]
    readout = model.evaluate(of.test.clean, edits, of.test.targets, bar.update)
    shape = (len(of.test.clean), len(counts), 1 + s.n_draws)
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
            **of.asked(),
        },
        coords={"k": list(counts)},
    )


def _output_off(
    model: HookedModel, of: TaskPrompts, off: Off
) -> Float[Tensor, "layer head d_head"]:
    """The output that every head is given at the final arrow when it is switched off."""
    if off == "zero":
        return torch.zeros(model.n_layers, model.n_heads, model.d_head)
    return mean_heads(model, of.dev.shuffled if off == "shuffled_labels" else elsewhere(model, of))
