"""The curves behind a task map: few-shot prompts captured once; theta and heads injected."""

import time
from typing import Any

import numpy as np
import torch
import xarray as xr
from tqdm.auto import tqdm

from icl_mech.decodability import knn_credit
from icl_mech.heads import indirect_effects
from icl_mech.localize.curves import Rule
from icl_mech.localize.prompts import Drawn, Pool, draw
from icl_mech.localize.result import TaskMap
from icl_mech.localize.settings import N_NEIGHBOURS, check_sizes
from icl_mech.model import HookedModel, as_array, check_model
from icl_mech.progress import READING, dear, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    accepted,
    few_shot,
    generator,
    in_context,
    shuffled,
    zero_shot,
)
from icl_mech.tasks import Tasks
from icl_mech.vectors import inject, theta


def localize(
    model: HookedModel,
    task: Tasks,
    n_prompts: int = 25,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_points: int = 100,
    k: int = N_NEIGHBOURS,
    fraction: float = 0.5,
    min_rise: float = 0.1,
    min_found: float = 0.95,
    heads: bool = True,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> TaskMap:
    """Where does the model encode the task, and where does it decode it?

    Few-shot prompts run once; from the same residual streams come task decodability (Han et al.
    2024), the logit lens, and, with dummy queries after the same demonstrations, theta (Hendel et
    al. 2023), which is injected into zero-shot prompts at every layer. Heads' AIE (Todd et al.
    2023) is measured on prompts with shuffled labels. See `TaskMap` for what is named *formed* and
    *decoded* and by which rule.

    Args:
        model: from `load_model`.
        task: a family of tasks that share their inputs (its name or a `Family`), a task, its
            name, a path to pairs, or several of these. Decodability needs at least two: a single
            task is told apart from one other, and the result says so.
        n_prompts: prompts per task for transfer, lens and heads.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_points: prompts per task for decodability; the first `n_prompts` of them are the same.
        k: neighbours that vote.
        fraction, min_rise, min_found: when a curve counts as risen, and when its layer is named,
            see `Rule`.
        heads: also measure heads' AIE.
        template: how a pair is written.
        leading_space: write words with a space before them; by default as the tokenizer likes.
        progress: show a progress bar.

    Raises:
        InputError: where a task, a count or the rule cannot work.
        ModelError: where the model returns numbers that are not finite.
    """
    check_model(model)
    rule = Rule(fraction, min_rise, min_found)
    check_sizes(n_prompts, n_shots, n_points, k, seed, heads)
    pool = draw(model, task, n_points, n_shots, seed, template, leading_space)
    seconds: dict[str, float] = {}
    read = n_points + n_prompts * N_DUMMIES
    asked = n_prompts * (1 + model.n_layers * (1 + model.n_heads * heads))
    total = READING * read * len(pool.names) + asked * len(pool.tasks)
    with progress_bar(total, "runs", progress) as bar:
        arrays = _measure(model, pool, n_prompts, k, bar, seconds)
        if heads:
            start = time.perf_counter()
            arrays["aie"] = _heads(model, pool, n_prompts, seed, bar)
            seconds["heads"] = time.perf_counter() - start
    names = [d.task.name for d in pool.tasks]
    data = xr.Dataset(arrays, coords={"task": names, "layer": np.arange(model.n_layers)})
    provenance = {
        "method": "localize: encoding, transfer, lens and heads on one axis",
        **model.provenance(),
        "rule": vars(rule),
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "n_points": n_points,
        "k": k,
        "seed": seed,
        "template": template,
        "told_apart": pool.names,
        "shared_inputs": pool.shared,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "notes": pool.notes(),
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return TaskMap(data, provenance)


def _measure(
    model: HookedModel,
    pool: Pool,
    n_prompts: int,
    k: int,
    bar: tqdm,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Encoding, lens and transfer of every task, from one pass over its few-shot prompts."""
    stages = dict.fromkeys(("reading", "lens", "transfer", "encoding"), 0.0)
    rows: list[np.ndarray] = []
    found: dict[str, list[np.ndarray]] = {}
    for drawn in (*pool.tasks, *pool.others):
        bar.set_description(drawn.task.name)
        start = time.perf_counter()
        queries, vectors = _read(model, drawn, n_prompts, bar)
        rows.append(as_array(queries))
        stages["reading"] += time.perf_counter() - start
        if drawn in pool.others:
            continue
        start = time.perf_counter()
        parts = _lens(model, drawn, queries[:n_prompts])
        stages["lens"] += time.perf_counter() - start
        start = time.perf_counter()
        parts |= _transfer(model, drawn, vectors, bar)
        stages["transfer"] += time.perf_counter() - start
        for name, array in parts.items():
            found.setdefault(name, []).append(array)
    start = time.perf_counter()
    credit = knn_credit(np.concatenate(rows), *pool.labels_and_groups(), k=k)
    stages["encoding"] = time.perf_counter() - start
    seconds |= stages
    by_task = credit.reshape(len(rows), -1, model.n_layers)[: len(pool.tasks)]
    curves, flat = ("task", "prompt", "layer"), ("task", "prompt")
    return {
        "encoding": (("task", "point", "layer"), by_task.astype(np.float32)),
        **{n: (curves, np.stack(found[n])) for n in ("lens", "transfer")},
        **{n: (flat, np.stack(found[n])) for n in ("regular", "baseline", "prior")},
        "query": (("task", "point"), [[e.query.x for e in d.episodes] for d in pool.tasks]),
    }


def _read(model: HookedModel, drawn: Drawn, n_prompts: int, bar: tqdm) -> tuple:
    """Residual streams after the queries, `[point, layer, d]`, and theta of the first prompts."""
    first, rest = drawn.episodes[:n_prompts], drawn.episodes[n_prompts:]
    resid = model.final_residuals(few_shot(drawn.encoder, first), dear(bar.update))
    queries = [resid[:, 0]]
    if rest:  # dummy queries only where a theta is needed
        alone = [[prompt] for prompt in in_context(drawn.encoder, rest)]
        queries.append(model.final_residuals(alone, dear(bar.update))[:, 0])
    return torch.cat(queries), theta(resid[:, 1:])


def _answers(drawn: Drawn, n: int) -> tuple[tuple[int, ...], ...]:
    """First tokens of the right answers to the first `n` few-shot prompts."""
    first = drawn.episodes[:n]
    return accepted(drawn.encoder, in_context(drawn.encoder, first), first).first_tokens


def _lens(model: HookedModel, drawn: Drawn, resid: Any) -> dict[str, np.ndarray]:
    """Probability of the answer after every block, and whether the model answers right."""
    n, layers = resid.shape[:2]
    targets = [row for row in _answers(drawn, n) for _ in range(layers)]
    readout = model.read(resid.flatten(0, 1), targets)
    probability = readout.logprob.exp().nan_to_num(0).amax(dim=-1).reshape(n, layers)
    return {
        "lens": as_array(probability),
        "regular": readout.right.reshape(n, layers)[:, -1],
    }


def _transfer(model: HookedModel, drawn: Drawn, vectors: Any, bar: tqdm) -> dict[str, np.ndarray]:
    """Zero-shot prompts with theta written over the last token after every block, and without."""
    n = len(vectors)
    prompts = zero_shot(drawn.encoder, drawn.episodes[:n])
    targets = accepted(drawn.encoder, prompts, drawn.episodes[:n]).first_tokens
    injected = inject(model, prompts, vectors[:, None], targets, bar.update)
    return {
        "transfer": injected.right[:, 0],
        "baseline": model.predict(prompts, targets, bar.update).right,
        "prior": np.array([drawn.prior in e.query.answers for e in drawn.episodes[:n]]),
    }


def _heads(model: HookedModel, pool: Pool, n_prompts: int, seed: int, bar: tqdm) -> tuple:
    """Indirect effect of every head on the first prompts, their labels shuffled.

    Means come from as many points after them, which ask other queries where there are enough.
    """
    arrays = []
    for drawn in pool.tasks:
        bar.set_description(f"{drawn.task.name}: heads")
        rng = generator(seed, drawn.task.name, "shuffled")
        first, rest = drawn.episodes[:n_prompts], drawn.episodes[n_prompts:][:n_prompts]
        clean = in_context(drawn.encoder, rest)
        corrupted = in_context(drawn.encoder, shuffled(first, rng))
        answers = [row[0] for row in _answers(drawn, n_prompts)]
        arrays.append(indirect_effects(model, clean, corrupted, answers, bar.update))
    return ("task", "aie_prompt", "layer", "head"), np.stack(arrays)
