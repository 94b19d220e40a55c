"""Measures the curves of a task map."""

import time
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.decodability import knn_credit, knn_half_td
from icl_mech.decodability.plan import half_of
from icl_mech.heads import indirect_effects
from icl_mech.localize.plan import N_NEIGHBOURS, MapPlan, MapSettings, MapTask, plan_map
from icl_mech.localize.result import TaskMap
from icl_mech.masking.run import read_until
from icl_mech.model import HookedModel, as_array, check_model
from icl_mech.progress import READING, dear, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    accepted,
    few_shot,
    in_context,
    zero_shot,
)
from icl_mech.stats.curves import Rule
from icl_mech.tasks import Tasks
from icl_mech.vectors import inject, theta

Vectors = Float[Tensor, "prompt layer d_model"]


def localize(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 25,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_points: int = 100,
    n_dummies: int = N_DUMMIES,
    k: int = N_NEIGHBOURS,
    fraction: float = 0.5,
    min_rise: float = 0.1,
    min_found: float = 0.95,
    heads: bool = True,
    masking: bool = True,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> TaskMap:
    """Find the layers at which the model forms a task, and those at which it decodes it.

    Few-shot prompts run once. Their residual streams give task decodability (Han et al. 2024) and
    the logit lens. With dummy queries after the same demonstrations they give theta (Hendel et al.
    2023), which is injected into zero-shot prompts at every layer. Heads' AIE (Todd et al. 2023) is
    measured on prompts with shuffled labels. For masking (Sia et al. 2024), the demonstrations are
    hidden from each block on; this uses no vector. `TaskMap` explains which layers are named
    *formed* and *decoded*, and by which rule.

    Args:
        model: from `load_model`.
        tasks: a family of tasks that share their inputs (its name or a `Family`), a task, its
            name, a path to pairs, or several of these. Decodability needs at least two tasks. A
            single task is compared with one other task, and the result says so.
        n_prompts: prompts per task for transfer, lens and heads.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_points: prompts per task for decodability; the first `n_prompts` of them are those of
            the other read-outs.
        n_dummies: dummy queries per demonstration set, over which theta is averaged.
        k: number of neighbours that vote.
        fraction, min_rise, min_found: when a curve counts as risen, and when its layer is named,
            see `Rule`.
        heads: also measure heads' AIE. If a block has no attention, it is left out and a caveat
            says so.
        masking: also hide the demonstrations from each block on; left out like `heads`.
        template: how a pair is written.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, a count or the rule cannot work.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.localize(
        ...     model, ["letters/next", "letters/upper"], n_prompts=2, n_shots=2, n_points=4, k=2,
        ...     heads=False, progress=False,
        ... )
        >>> found.readouts
        ['encoding', 'transfer', 'lens', 'masking']
    """
    check_model(model)
    settings = MapSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_points=n_points,
        n_dummies=n_dummies,
        k=k,
        rule=Rule(fraction, min_rise, min_found),
        heads=heads,
        masking=masking,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_map(model, plan_map(tasks, settings), progress)


def measure_map(model: HookedModel, plan: MapPlan, progress: bool = True) -> TaskMap:
    """Run a plan of `plan_map`: what `localize` does after the prompts are drawn.

    Raises:
        InputError: if the model cannot read a prompt.
        ModelError: if the model returns numbers that are not finite.
    """
    s = plan.settings
    # One encoder for all tasks, so that prompts of two tasks differ in their answers alone.
    words = [pair.y for t in plan.every for pair in t.task.pairs]
    encoder = model.encoder(s.template, words, s.leading_space)
    seconds: dict[str, float] = {}
    no_heads = model.why_no_site("z") if s.heads else ""
    heads = s.heads and not no_heads
    no_masking = model.why_no_attention() if s.masking else ""
    masking = s.masking and not no_masking
    read = s.n_points + s.n_prompts * s.n_dummies
    asked = s.n_prompts * (1 + model.n_layers * (1 + masking + model.n_heads * heads))
    total = READING * read * len(plan.every) + asked * len(plan.tasks)
    with progress_bar(total, "runs", progress) as bar:
        arrays = _measure(model, encoder, plan, bar, seconds)
        if heads:
            start = time.perf_counter()
            arrays["aie"] = _heads(model, encoder, plan, bar)
            seconds["heads"] = time.perf_counter() - start
        if masking:
            start = time.perf_counter()
            arrays["masking"] = _masking(model, encoder, plan, bar)
            seconds["masking"] = time.perf_counter() - start
    names = [t.task.name for t in plan.tasks]
    data = xr.Dataset(
        arrays, coords={"task": names, "layer": np.arange(model.n_layers), "half": [0, 1]}
    )
    provenance = {
        "method": "localize: encoding, transfer, lens, heads and masking on one axis",
        **model.provenance(),
        **s.recorded(),
        "heads": heads,
        "masking": masking,
        "told_apart": [t.task.name for t in plan.every],
        "shared_inputs": plan.shared,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "notes": [
            *plan.notes(),
            *[f"heads were not measured: {no_heads}"] * bool(no_heads),
            *[f"masking was not measured: {no_masking}"] * bool(no_masking),
        ],
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return TaskMap(data, provenance)


def _measure(
    model: HookedModel,
    encoder: Encoder,
    plan: MapPlan,
    bar: tqdm,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Encoding, lens and transfer of every task, from one pass over its few-shot prompts."""
    n_prompts = plan.settings.n_prompts
    stages = dict.fromkeys(("reading", "lens", "transfer", "encoding"), 0.0)
    rows: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {}
    for of in plan.every:
        bar.set_description(of.task.name)
        start = time.perf_counter()
        queries, vectors = _read(model, encoder, of, n_prompts, bar)
        rows.append(as_array(queries))
        stages["reading"] += time.perf_counter() - start
        if of in plan.others:
            continue
        start = time.perf_counter()
        parts = _lens(model, encoder, of, queries[:n_prompts])
        stages["lens"] += time.perf_counter() - start
        start = time.perf_counter()
        parts |= _transfer(model, encoder, of, vectors, bar)
        stages["transfer"] += time.perf_counter() - start
        for name, array in parts.items():
            found.setdefault(name, []).append(array)
    start = time.perf_counter()
    pool, (labels, groups), k = np.concatenate(rows), plan.labels_and_groups(), plan.settings.k
    credit = knn_credit(pool, labels, groups, k=k)
    half_td = knn_half_td(pool, labels, groups, k)
    stages["encoding"] = time.perf_counter() - start
    seconds |= stages
    by_task = credit.reshape(len(rows), -1, model.n_layers)[: len(plan.tasks)]
    halves = half_of(groups).reshape(len(rows), -1)[: len(plan.tasks)]
    curves, flat = ("task", "prompt", "layer"), ("task", "prompt")
    return {
        "encoding": (("task", "point", "layer"), by_task.astype(np.float32)),
        "half_td": (("half", "layer"), half_td.astype(np.float32)),
        "query_half": (("task", "point"), halves),
        **{n: (curves, np.stack(found[n])) for n in ("lens", "transfer")},
        **{n: (flat, np.stack(found[n])) for n in ("regular", "baseline", "prior")},
        "query": (("task", "point"), [[e.query.x for e in t.episodes] for t in plan.tasks]),
    }


def _read(
    model: HookedModel, encoder: Encoder, of: MapTask, n_prompts: int, bar: tqdm
) -> tuple[Float[Tensor, "point layer d_model"], Vectors]:
    """Residual streams after the queries, `[point, layer, d]`, and theta of the first prompts."""
    first, rest = of.episodes[:n_prompts], of.episodes[n_prompts:]
    resid = model.final_residuals(few_shot(encoder, first), dear(bar.update))
    queries = [resid[:, 0]]
    if rest:  # these need no theta, so no dummy queries
        alone = [[prompt] for prompt in in_context(encoder, rest)]
        queries.append(model.final_residuals(alone, dear(bar.update))[:, 0])
    return torch.cat(queries), theta(resid[:, 1:])


def _answers(encoder: Encoder, of: MapTask, n: int) -> tuple[tuple[int, ...], ...]:
    """First tokens of the right answers to the first `n` few-shot prompts."""
    first = of.episodes[:n]
    return accepted(encoder, in_context(encoder, first), first).first_tokens


def _lens(
    model: HookedModel, encoder: Encoder, of: MapTask, resid: Vectors
) -> dict[str, np.ndarray]:
    """Probability of the answer after every block, and whether the model answers right."""
    n, layers = resid.shape[:2]
    targets = [row for row in _answers(encoder, of, n) for _ in range(layers)]
    readout = model.read(resid.flatten(0, 1), targets)
    probability = readout.logprob.exp().nan_to_num(0).amax(dim=-1).reshape(n, layers)
    return {
        "lens": as_array(probability),
        "regular": readout.right.reshape(n, layers)[:, -1],
    }


def _transfer(
    model: HookedModel, encoder: Encoder, of: MapTask, vectors: Vectors, bar: tqdm
) -> dict[str, np.ndarray]:
    """Zero-shot prompts with theta written over the last token after every block, and without."""
    n = len(vectors)
    asked = of.episodes[:n]
    prompts = zero_shot(encoder, asked)
    targets = accepted(encoder, prompts, asked).first_tokens
    injected = inject(model, prompts, vectors[:, None], targets, bar.update)
    return {
        "transfer": injected.right[:, 0],
        "baseline": model.predict(prompts, targets, bar.update).right,
        "prior": np.array([of.prior in e.query.answers for e in asked]),
    }


def _heads(model: HookedModel, encoder: Encoder, plan: MapPlan, bar: tqdm) -> tuple:
    """Indirect effect of every head on the first prompts, with shuffled labels.

    Mean outputs come from the next points, up to as many. These ask other queries if the task has
    enough.
    """
    n = plan.settings.n_prompts
    arrays = []
    for of in plan.tasks:
        bar.set_description(f"{of.task.name}: heads")
        clean = in_context(encoder, of.episodes[n : 2 * n])
        corrupted = in_context(encoder, of.shuffled)
        answers = [row[0] for row in _answers(encoder, of, n)]
        arrays.append(indirect_effects(model, clean, corrupted, answers, bar.update))
    return ("task", "aie_prompt", "layer", "head"), np.stack(arrays)


def _masking(model: HookedModel, encoder: Encoder, plan: MapPlan, bar: tqdm) -> tuple:
    """Whether the answer is right if demonstrations are seen up to each block only."""
    n = plan.settings.n_prompts
    arrays = []
    for of in plan.tasks:
        bar.set_description(f"{of.task.name}: masking")
        prompts = in_context(encoder, of.episodes[:n])
        arrays.append(read_until(model, prompts, _answers(encoder, of, n), bar.update))
    return ("task", "prompt", "layer"), np.stack(arrays)
