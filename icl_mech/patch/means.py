"""Mean-activation patching (Han et al. 2024, section 5): write one task's mean into another's."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.decodability.answers import accepted_tokens
from icl_mech.layers import check_layers, evenly_spaced
from icl_mech.model import Edit, HookedModel, Readout, as_array, check_model
from icl_mech.patch.means_plan import MODES, Mode, plan_patching
from icl_mech.patch.means_result import MEAN, RANDOM, RANDOM_TASK, MeanPatching
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, Encoder, Matched, Pool, generator, in_context
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks
from icl_mech.vectors import random_like

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
    progress: bool = True,
) -> MeanPatching:
    """Few-shot prompts of every task with every task's mean activation written into them.

    Han et al. 2024 (arXiv 2412.12276, section 5): h of a task is the mean residual stream at the
    token before the answer, after block `l`, over prompts of the task. It is written over the
    same token of other few-shot prompts: of the same task (*positive*: does a clean encoding
    help?), or, as their *negative*, the mean of the null task, where the family has one. The paper
    says "add" and "replace" in one sentence: both are measured. Here also every other task's
    mean (does the answer follow the mean, or the demonstrations?), and what no task's mean should
    be read without: `mean of tasks` (the mean of all tasks' means: what every prompt has in
    common), `random` (a random direction as long as the prompt's own task's mean), and `mean +
    random` (the common mean, plus a random direction as long as what is special to the prompt's
    task). Means come from other queries than those asked, and no query is ever shown.

    Args:
        model: from `load_model`.
        tasks: a family or its name, or tasks that share their inputs.
        n_prompts: prompts per task that are patched.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_mean: prompts per task over which its mean is taken.
        layers: blocks after which is written; by default six, evenly spaced: every layer costs
            tasks x (tasks + controls) x modes runs of each prompt.
        modes: `"replace"`, `"add"` or both.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        progress: show a progress bar.

    Raises:
        InputError: where a task or count cannot work, or the tasks ask different inputs.
        ModelError: where the model returns numbers that are not finite.
    """
    check_model(model)
    plan = plan_patching(tasks, n_prompts, n_mean, n_shots, seed, modes)
    pool, dev, test = plan.pool, plan.dev, plan.test
    if layers is None:
        layers = evenly_spaced(model.n_layers, N_LAYERS)
    at = check_layers(layers, model.n_layers)
    words = [pair.y for task in pool.tasks for pair in task.pairs]
    encoder = model.encoder(template, words, leading_space)
    means = _means(model, encoder, dev)
    injected = [task.name for task in plan.means] + [MEAN, RANDOM, RANDOM_TASK]
    runs = len(pool.tasks) * n_prompts * len(at) * len(modes) * len(injected)
    with progress_bar(runs, "runs", progress) as bar:
        parts = []
        for i, task in enumerate(pool.tasks):
            bar.set_description(task.name)
            vectors = _vectors(means, i, len(pool.tasks), generator(seed, task.name, "random"))
            parts.append(_patched(model, encoder, pool, test, i, vectors, at, modes, bar))
    data = over_tasks(parts, pool.names)
    data = data.assign_coords(
        mode=list(modes), layer=at, injected=injected, answered=pool.names
    ).transpose("task", "prompt", "mode", "layer", "injected", "answered")
    return MeanPatching(
        data,
        {
            "method": "mean_patching (Han et al. 2024, arXiv 2412.12276)",
            **model.provenance(),
            "n_prompts": n_prompts,
            "n_shots": n_shots,
            "n_mean": n_mean,
            "seed": seed,
            "template": template,
            "leading_space": leading_space,
            "null": pool.null.name if pool.null else None,
            "n_queries": test.n_queries,
            "n_mean_queries": dev.n_queries,
            "score": "first token of an accepted answer",
            "filters": "none: every prompt counts, also those that the model answers wrong",
        },
    )


def _means(
    model: HookedModel, encoder: Encoder, dev: Matched
) -> Float[Tensor, "task layer d_model"]:
    """Mean residual stream at the final arrow over every task's prompts."""
    prompts = [in_context(encoder, row) for row in dev.episodes]
    return torch.stack([model.capture(p, ["final_arrow"])[:, 0].mean(dim=0) for p in prompts])


def _vectors(
    means: Float[Tensor, "task layer d_model"], own: int, n_tasks: int, rng: np.random.Generator
) -> Float[Tensor, "injected layer d_model"]:
    """Every task's mean (the null task's last), and three controls for prompts of task `own`."""
    common = means[:n_tasks].mean(dim=0)
    noise = random_like(means[own], rng)
    special = common + random_like(means[own] - common, rng)
    return torch.cat([means, torch.stack([common, noise, special])])


def _patched(
    model: HookedModel,
    encoder: Encoder,
    pool: Pool,
    test: Matched,
    own: int,
    vectors: Float[Tensor, "injected layer d_model"],
    layers: Sequence[int],
    modes: Sequence[Mode],
    bar: tqdm,
) -> xr.Dataset:
    """One task's prompts: every task's answer before and after every edit."""
    episodes = test.episodes[own]
    prompts = in_context(encoder, episodes)
    answers = [
        accepted_tokens(encoder, prompts, [e.query for e in test.episodes[i]])
        for i in range(len(pool.tasks))
    ]
    targets = [[row[p][0][0] for row in answers] for p in range(len(prompts))]
    edits = [
        Edit(layer, vector[layer], "resid_post", "final_arrow", mode)
        for mode in modes
        for layer in layers
        for vector in vectors
    ]
    last = model.capture(prompts, ["final_arrow"])[:, 0, -1]
    before = model.read(last, targets)
    after = model.evaluate(prompts, edits, targets, bar.update)
    shape = (len(prompts), len(modes), len(layers), len(vectors))
    dims = ("prompt", "mode", "layer", "injected", "answered")
    unit = {"units": "nats"}
    return xr.Dataset(
        {
            "right": (dims, _right(after.reshape(*shape), answers)),
            "logprob": (dims, as_array(after.reshape(*shape).logprob), unit),
            "right_before": (("prompt", "answered"), _right(before, answers)),
            "logprob_before": (("prompt", "answered"), as_array(before.logprob), unit),
            "query": ("prompt", [e.query.x for e in episodes]),
        }
    )


def _right(said: Readout, answers: Sequence[Sequence[Sequence[tuple[int, ...]]]]) -> np.ndarray:
    """`[prompt, ..., answered]`: whether the top token begins an accepted answer of each task."""
    top = said.top.cpu().numpy()
    per_task = [
        np.stack([np.isin(t, [a[0] for a in row]) for t, row in zip(top, of_task, strict=True)])
        for of_task in answers
    ]
    return np.stack(per_task, axis=-1)
