"""Mean-activation patching (Han et al. 2024, section 5): write one task's mean into another's."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.layers import Mode, check_layers, evenly_spaced
from icl_mech.model import Edit, HookedModel, Readout, as_array, check_model
from icl_mech.patch.means_plan import MODES, MeanPlan, MeanSettings, plan_means
from icl_mech.patch.means_result import MEAN, RANDOM, RANDOM_TASK, MeanPatching
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, Encoder, Matched, accepted, generator, in_context
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks
from icl_mech.vectors import random_like

#: Default number of blocks after which means are written. Each block costs
#: tasks x prompts x (tasks + controls) x modes runs.
N_LAYERS = 6


def mean_patching(
    model: HookedModel,
    tasks: Tasks = "verbs",
    n_prompts: int = 20,
    n_shots: int = 4,
    seed: int = 0,
    *,
    n_mean: int = 50,
    layers: Sequence[int] | None = None,
    modes: Sequence[Mode] = MODES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> MeanPatching:
    """Write every task's mean activation into few-shot prompts of every task.

    Han et al. 2024 (arXiv 2412.12276, section 5). The mean activation of a task is the mean
    residual stream at the token before the answer, after block `l`, over prompts of the task. It
    is written at the same token of other few-shot prompts. Written into prompts of the same task
    it is the paper's *positive* (does a clean encoding help?). The mean of the null task, if the
    family has one, is the paper's *negative*. The paper says "add" and "replace" in one sentence,
    so both are measured.

    The means of all other tasks are written too (does the answer follow the mean or the
    demonstrations?), and three controls: `mean of tasks` (the mean of all tasks' means), `random`
    (a random direction with the norm of the mean of the prompt's own task), and `mean + random`
    (the mean of all tasks' means, plus a random direction with the norm of the difference between
    the own task's mean and that mean). Means are taken over prompts with other queries than those
    asked, and no query is ever a demonstration.

    Args:
        model: from `load_model`.
        tasks: a family or its name, or tasks that share their inputs.
        n_prompts: prompts per task that are patched.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_mean: prompts per task over which its mean is taken.
        layers: the blocks after which means are written; by default six, evenly spaced.
        modes: `"replace"`, `"add"` or both.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task or count cannot work, or the tasks ask different inputs.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> result = icl_mech.mean_patching(
        ...     model, "letters", n_prompts=2, n_shots=2, n_mean=3, layers=[9], progress=False)
        >>> result.matrix(layer=9).shape
        (3, 6)
    """
    check_model(model)
    settings = MeanSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_mean=n_mean,
        layers=None if layers is None else tuple(layers),
        modes=tuple(modes),
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_means(model, plan_means(tasks, settings), progress)


def measure_means(model: HookedModel, plan: MeanPlan, progress: bool = True) -> MeanPatching:
    """Run a plan of `plan_means`: what `mean_patching` does after it has drawn the prompts.

    Raises:
        InputError: if the model lacks a layer or cannot read a prompt.
        ModelError: if the model returns numbers that are not finite.
    """
    s, pool = plan.settings, plan.pool
    asked = evenly_spaced(model.n_layers, N_LAYERS) if s.layers is None else s.layers
    layers = check_layers(asked, model.n_layers)
    words = [pair.y for task in pool.tasks for pair in task.pairs]
    encoder = model.encoder(s.template, words, s.leading_space)
    means = _means(model, encoder, plan.dev)
    injected = [task.name for task in plan.sources] + [MEAN, RANDOM, RANDOM_TASK]
    runs = len(pool.tasks) * s.n_prompts * len(layers) * len(s.modes) * len(injected)
    with progress_bar(runs, "runs", progress) as bar:
        parts = []
        for i, task in enumerate(pool.tasks):
            bar.set_description(task.name)
            vectors = _vectors(means, i, len(pool.tasks), generator(s.seed, task.name, "random"))
            parts.append(_patched(model, encoder, plan, i, vectors, layers, bar))
    data = over_tasks(parts, pool.names)
    data = data.assign_coords(
        mode=list(s.modes), layer=layers, injected=injected, answered=pool.names
    ).transpose("task", "prompt", "mode", "layer", "injected", "answered")
    return MeanPatching(
        data,
        {
            "method": "mean_patching (Han et al. 2024, arXiv 2412.12276)",
            **model.provenance(),
            **s.recorded(),
            "layers": layers,
            "null": pool.null.name if pool.null else None,
            "n_queries": plan.test.n_queries,
            "n_mean_queries": plan.dev.n_queries,
            "score": "first token of an accepted answer",
            "filters": "none: every prompt counts, also those that the model answers wrong",
        },
    )


def _means(
    model: HookedModel, encoder: Encoder, dev: Matched
) -> Float[Tensor, "task layer d_model"]:
    """The mean residual stream at the final arrow, over the prompts of each source."""
    prompts = [in_context(encoder, row) for row in dev.episodes]
    return torch.stack([model.capture(p, ["final_arrow"])[:, 0].mean(dim=0) for p in prompts])


def _vectors(
    means: Float[Tensor, "task layer d_model"], own: int, n_tasks: int, rng: np.random.Generator
) -> Float[Tensor, "injected layer d_model"]:
    """The mean of every source, and three controls for prompts of task `own`."""
    common = means[:n_tasks].mean(dim=0)
    noise = random_like(means[own], rng)
    special = common + random_like(means[own] - common, rng)
    return torch.cat([means, torch.stack([common, noise, special])])


def _patched(
    model: HookedModel,
    encoder: Encoder,
    plan: MeanPlan,
    own: int,
    vectors: Float[Tensor, "injected layer d_model"],
    layers: Sequence[int],
    bar: tqdm,
) -> xr.Dataset:
    """The prompts of task `own`: every task's answer to the same query, before and after edits."""
    episodes = plan.test.episodes[own]
    prompts = in_context(encoder, episodes)
    # [answered][prompt][accepted first token]; the null task has no right answers.
    asked = plan.test.episodes[: len(plan.pool.tasks)]
    answers = [accepted(encoder, prompts, of_task).first_tokens for of_task in asked]
    targets = [[of_task[p][0] for of_task in answers] for p in range(len(prompts))]
    modes = plan.settings.modes
    edits = [
        Edit(layer, vector[layer], "resid_post", "final_arrow", mode)
        for mode in modes
        for layer in layers
        for vector in vectors
    ]
    last = model.capture(prompts, ["final_arrow"])[:, 0, -1]
    before = model.read(last, targets)
    after = model.evaluate(prompts, edits, targets, bar.update)
    after = after.reshape(len(prompts), len(modes), len(layers), len(vectors))
    dims = ("prompt", "mode", "layer", "injected", "answered")
    unit = {"units": "nats"}
    return xr.Dataset(
        {
            "right": (dims, _right(after, answers)),
            "logprob": (dims, as_array(after.logprob), unit),
            "right_before": (("prompt", "answered"), _right(before, answers)),
            "logprob_before": (("prompt", "answered"), as_array(before.logprob), unit),
            "query": ("prompt", [e.query.x for e in episodes]),
        }
    )


def _right(said: Readout, answers: Sequence[Sequence[Sequence[int]]]) -> np.ndarray:
    """`[prompt, ..., answered]`: whether the top token begins an accepted answer of each task."""
    top = said.top.cpu().numpy()
    per_task = [
        np.stack([np.isin(t, tokens) for t, tokens in zip(top, of_task, strict=True)])
        for of_task in answers
    ]
    return np.stack(per_task, axis=-1)
