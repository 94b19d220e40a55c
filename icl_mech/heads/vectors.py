"""What a few heads' mean output does on its own: function vectors beside theta and controls."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError
from icl_mech.heads.attribution import answers_in_context, average_indirect_effects
from icl_mech.heads.attribution_result import Head, largest
from icl_mech.heads.sampling import Drawn, Prompts, draw
from icl_mech.heads.vectors_result import PROMPTS, SCALED, VECTORS, FunctionVectors
from icl_mech.model import Edit, HookedModel, Readout, as_array, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    check_counts,
    generator,
    half,
    whole_numbers,
)
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks, load_tasks
from icl_mech.vectors import check_heads, dummy_residuals, function_vector, random_like, theta


def function_vectors(
    model: HookedModel,
    task: Tasks,
    heads: Sequence[Head] | None = None,
    n_prompts: int = 50,
    n_shots: int = 10,
    seed: int = 0,
    *,
    n_heads: int | Sequence[int] = (1, 2, 5, 10),
    scale: float | Sequence[float] = (1.0, 2.0, 4.0),
    output_bias: bool = False,
    n_dev: int | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> FunctionVectors:
    """Add a function vector at the last token of every layer and score the answers.

    Todd et al. 2023 (arXiv 2310.15213, sections 2 and 3): the vector is the sum of the mean
    outputs of the heads with the largest AIE, *added* to the residual stream after block `l` at
    the last token of zero-shot prompts, and of few-shot prompts with shuffled labels. The paper
    adds it as it is; here it is added times a `scale`. On the same prompts:

    - `"function_unscaled"`: the same vector at scale 1, as in the paper (where other scales are
      among those to choose from);
    - `"theta"`: the task vector of Hendel et al., which *replaces* the residual stream, read from
      each test prompt's own demonstrations with right labels;
    - `"layer_mean"`: the mean residual stream of clean prompts at that layer, added once;
    - `"random_heads"`: a function vector from as many random heads, others for each prompt;
    - `"random"`: a random direction of the function vector's norm.

    Everything that is chosen is chosen on dev prompts; test queries are others. Heads are ranked
    by AIE; how many are summed, whether those of the last third of the blocks may be among them,
    and the scale: by zero-shot accuracy at the best of every other layer; then for each vector by
    itself, controls too, the layer. (The paper sums 10 of GPT-J's 448 heads. Late heads write the
    answer more than the task, and as the stream grows with depth, so do they: one can drown the
    sum.)

    Args:
        model: from `load_model`.
        task: a task, its name, a path to pairs, a family, or several of these.
        heads: (layer, head)s; by default those with the largest AIE on each task's dev prompts,
            and all of these if given. Heads from other tasks (`HeadAttribution.universal`) test
            whether the same heads serve a task that had no part in choosing them; heads that were
            ranked on this task with this seed have seen its test queries.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_heads: how many heads, where none are given; of several numbers the best on dev.
        scale: factor on vectors from heads, and on the random one; of several the best on dev.
        output_bias: also add attention's output bias, once per head, as the paper's published code
            does (see `function_vector`); by default vectors hold what heads write and nothing else.
        n_dev: dev prompts per task; half of `n_prompts` by default.
        template: how a pair is written.
        leading_space: write words with a space before them; by default as the tokenizer likes.
        progress: show a progress bar.

    Raises:
        InputError: where a task, a count, a head or a scale cannot work, or the model never
            answers right.
        ModelError: where the model returns numbers that are not finite, or its blocks do not add
            what heads write to the residual stream as it is.
    """
    check_model(model)
    tasks = load_tasks(task)
    counts = {"n_prompts": n_prompts, "n_shots": n_shots, "n_dev": half(n_prompts, n_dev)}
    n_prompts, n_shots, n_dev = check_counts(counts, seed)
    every = model.n_layers * model.n_heads
    sizes = sorted(set(whole_numbers("n_heads", n_heads)))
    scales = check_scales(scale)
    if heads is not None:
        heads = check_heads(heads, model.n_layers, model.n_heads)
    elif not sizes or not 0 < sizes[0] <= sizes[-1] <= every:
        raise InputError(f"n_heads is {n_heads}; expected 1 to {every}, the model's heads")
    drawn = [
        draw(model, t, n_prompts, n_dev, n_shots, seed, template, leading_space, N_DUMMIES)
        for t in tasks
    ]
    vectors = [v for v in VECTORS if v != "function_unscaled" or scales != [1.0]]
    injections = (n_prompts + n_dev) * len(PROMPTS) * len(vectors) * model.n_layers
    ranking = n_dev * every if heads is None else 0
    model.heads.mean_outputs(drawn[0].dev.clean[:1])  # refused now, not after the ranking
    with progress_bar((injections + ranking) * len(tasks), "runs", progress) as bar:
        few_shot = answers_in_context(model, drawn)
        parts = []
        for d, clean in zip(drawn, few_shot, strict=True):
            bar.set_description(d.task.name)
            if heads is None:
                ranked = largest(average_indirect_effects(model, d.dev, bar.update), every)
                candidates = _candidates(model, ranked, sizes)
            else:
                candidates = [tuple(heads)]
            settings = _Settings(candidates, scales, output_bias, vectors, seed)
            parts.append(_compare(model, d, clean, settings, bar))
    data = over_tasks(parts, [t.name for t in tasks])
    provenance = {
        "method": "function_vectors (Todd et al. 2023, arXiv 2310.15213)",
        **model.provenance(),
        "heads": "ranked by AIE on dev prompts" if heads is None else [list(h) for h in heads],
        "n_heads": sizes if heads is None else [len(heads)],
        "scale": scales,
        "output_bias": "once per head" if output_bias else "left out",
        "n_prompts": n_prompts,
        "n_dev": n_dev,
        "n_shots": n_shots,
        "n_dummies": N_DUMMIES,
        "seed": seed,
        "template": template,
        "leading_space": leading_space,
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return FunctionVectors(data, provenance)


@dataclass(frozen=True)
class _Settings:
    """How one task's vectors are built and used.

    Attributes:
        candidates: sets of heads, of which the best on dev is taken.
        scales: factors, likewise.
        output_bias: whether attention's output bias counts once per head, or not at all.
        vectors: those of `VECTORS` that are injected.
        seed: of random heads and directions.
    """

    candidates: Sequence[tuple[Head, ...]]
    scales: Sequence[float]
    output_bias: bool
    vectors: Sequence[str]
    seed: int


@dataclass(frozen=True)
class _Sources:
    """What a task's vectors are made of, all from its dev prompts.

    Attributes:
        function: the function vector.
        layer_mean: the mean residual stream of clean prompts, per layer.
        heads: mean outputs, as `model.heads.mean_outputs` gives them.
        bias: likewise; None where it is left out.
        chosen: the heads of the function vector.
        scale: factor on the vectors from heads and on the random one.
    """

    function: Float[Tensor, "d_model"]
    layer_mean: Float[Tensor, "layer d_model"]
    heads: Float[Tensor, "layer head d_model"]
    bias: Float[Tensor, "layer d_model"] | None
    chosen: tuple[Head, ...]
    scale: float


def _candidates(
    model: HookedModel, ranked: Sequence[Head], sizes: Sequence[int]
) -> list[tuple[Head, ...]]:
    """The top heads of all blocks, and of those before the last third; as many as `sizes` say."""
    early = [head for head in ranked if head[0] < 2 * model.n_layers / 3]
    sets = [tuple(pool[:size]) for pool in (ranked, early) for size in sizes if len(pool) >= size]
    return list(dict.fromkeys(sets))


def _sources(
    model: HookedModel,
    dev: Prompts,
    s: _Settings,
    bar: tqdm,
) -> _Sources:
    """Build the vectors, from the heads and with the scale that do best on dev."""
    heads, every_bias = model.heads.mean_outputs(dev.clean)
    bias = every_bias if s.output_bias else None
    layer_mean = model.capture(dev.clean, ["final_arrow"])[:, 0].float().mean(dim=0)
    vectors = [function_vector(heads, chosen, bias) for chosen in s.candidates]
    pairs = [(i, scale) for i in range(len(s.candidates)) for scale in s.scales]
    layers = range(0, model.n_layers, 2)
    edits = [
        Edit(layer, vectors[i], position="final_arrow", mode="add", scale=scale)
        for i, scale in pairs
        for layer in layers
    ]
    targets = dev.targets
    bar.total = (bar.total or 0) + len(edits) * len(targets)
    right = model.evaluate(dev.zero_shot, edits, targets, bar.update).right
    accuracy = right.mean(axis=0).reshape(len(pairs), len(layers)).max(axis=1)
    i, scale = pairs[int(accuracy.argmax())]
    return _Sources(vectors[i], layer_mean, heads, bias, s.candidates[i], scale)


def _compare(
    model: HookedModel,
    drawn: Drawn,
    clean: Readout,
    s: _Settings,
    bar: tqdm,
) -> xr.Dataset:
    """One task: build the vectors from dev prompts, inject them into dev and test prompts."""
    test, dev = drawn.test, drawn.dev
    sources = _sources(model, dev, s, bar)
    rng = generator(s.seed, drawn.task.name, "random vectors")
    per_cell = ("prompt", "setting", "vector", "layer")
    scored = _inject(model, test, sources, s.vectors, rng, bar)
    on_dev = _inject(model, dev, sources, s.vectors, rng, bar)
    plain = [model.predict(p, test.targets) for p in (test.zero_shot, test.shuffled)]
    return xr.Dataset(
        {
            "right": (per_cell, scored.right),
            "logprob": (per_cell, as_array(scored.logprob[..., 0]), {"units": "nats"}),
            "dev_right": (("dev_prompt", *per_cell[1:]), on_dev.right),
            "plain_right": (("prompt", "setting"), np.stack([r.right for r in plain], axis=1)),
            "few_shot_right": ("prompt", clean.right),
            "heads": ((), " ".join(f"{layer}.{head}" for layer, head in sources.chosen)),
            "scale": ((), sources.scale),
            "n_queries": ((), drawn.n_queries),
            "query": ("prompt", [e.query.x for e in test.episodes]),
            "answer": ("prompt", [e.query.y for e in test.episodes]),
        },
        coords={
            "setting": list(PROMPTS),
            "vector": list(s.vectors),
            "layer": np.arange(model.n_layers),
        },
    )


def _inject(
    model: HookedModel,
    prompts: Prompts,
    sources: _Sources,
    vectors: Sequence[str],
    rng: np.random.Generator,
    bar: tqdm,
) -> Readout:
    """Every vector at every layer of zero-shot and shuffled prompts."""
    n = len(prompts.episodes)
    own = theta(dummy_residuals(model, prompts.encoder, prompts.episodes))
    values = {
        "function": sources.function,
        "function_unscaled": sources.function,
        "random_heads": _random_heads(sources, n, rng),
        "random": random_like(sources.function.expand(n, -1), rng),
    }

    def edit(vector: str, layer: int) -> Edit:
        if vector == "theta":
            return Edit(layer, own[:, layer], position="final_arrow")
        if vector == "layer_mean":
            return Edit(layer, sources.layer_mean[layer], position="final_arrow", mode="add")
        scale = sources.scale if vector in SCALED else 1.0
        return Edit(layer, values[vector], position="final_arrow", mode="add", scale=scale)

    edits = [edit(vector, layer) for vector in vectors for layer in range(model.n_layers)]
    targets = prompts.targets
    parts = [
        model.evaluate(asked, edits, targets, bar.update)
        for asked in (prompts.zero_shot, prompts.shuffled)
    ]
    return Readout.cat(parts, dim=1).reshape(n, len(PROMPTS), len(vectors), model.n_layers)


def _random_heads(
    sources: _Sources, n: int, rng: np.random.Generator
) -> Float[Tensor, "prompt d_model"]:
    """Function vectors from as many random heads, new ones for each prompt, not the chosen."""
    n_layers, n_heads = sources.heads.shape[:2]
    every = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    others = [head for head in every if head not in sources.chosen]
    every = others if len(others) >= len(sources.chosen) else every
    drawn = [rng.choice(len(every), len(sources.chosen), replace=False) for _ in range(n)]
    return torch.stack(
        [function_vector(sources.heads, [every[i] for i in row], sources.bias) for row in drawn]
    )


def check_scales(scale: Any) -> list[float]:
    """One factor or several, as plain numbers.

    Raises:
        InputError: where there is none, or one is no finite number.
    """
    is_one = isinstance(scale, str) or not isinstance(scale, Iterable)
    scales = []
    for given in [scale] if is_one else scale:
        try:
            scales.append(float(given))
        except (TypeError, ValueError):
            raise InputError(f"scale is {given!r}; expected a number") from None
        if not isfinite(scales[-1]):
            raise InputError(f"scale is {given}; expected a finite number")
    if not scales:
        raise InputError("no scale; expected at least one number")
    return scales
