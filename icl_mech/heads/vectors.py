"""Does a few heads' mean output carry the task? Function vectors, theta and controls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError
from icl_mech.heads.attribution import NO_FILTERS, answers_in_context
from icl_mech.heads.plan import (
    FunctionVectorSettings,
    Head,
    HeadsPlan,
    plan_heads,
    several_counts,
    several_scales,
)
from icl_mech.heads.prompts import Prompts, TaskPrompts, encode
from icl_mech.heads.ranking import Ranking
from icl_mech.heads.vectors_result import PROMPTS, SCALED, VECTORS, FunctionVectors
from icl_mech.model import Edit, HookedModel, Readout, as_array, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES, generator
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks
from icl_mech.vectors import dummy_residuals, function_vector, random_like, theta


def function_vectors(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 50,
    n_shots: int = 10,
    seed: int = 0,
    *,
    heads: Sequence[Head] | None = None,
    n_heads: int | Sequence[int] = (1, 2, 5, 10),
    scale: float | Sequence[float] = (1.0, 2.0, 4.0),
    output_bias: bool = False,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> FunctionVectors:
    """Add a function vector at the last token after every layer and score the answers.

    Todd et al. 2023 (arXiv 2310.15213, sections 2 and 3): the vector is the sum of the mean
    outputs of the heads with the largest AIE. It is *added* to the residual stream after block `l`
    at the last token of zero-shot prompts, and of few-shot prompts with shuffled labels. The paper
    adds it as it is; here it is multiplied by `scale` first. On the same prompts:

    - `"function_unscaled"`: the same vector at scale 1, as in the paper (left out if 1 is the only
      scale);
    - `"theta"`: the task vector of Hendel et al., which *replaces* the residual stream, read from
      each test prompt's own demonstrations with right labels;
    - `"layer_mean"`: the mean residual stream of clean prompts at that layer, added once;
    - `"random_heads"`: a function vector from as many random heads, others for each prompt;
    - `"random"`: a random direction of the function vector's norm.

    All choices are made on dev prompts, which ask other queries than the test prompts. Heads are
    ranked by AIE. Three things are chosen together: how many heads are summed, whether heads of the
    last third of the blocks may be among them, and the scale. The criterion is the zero-shot
    accuracy at the best layer among every second one. Then the layer is chosen for each vector
    separately, also for controls. (The paper sums 10 of GPT-J's 448 heads. Late heads write the
    answer more than the task. The residual stream grows with depth, and their outputs grow with it,
    so that one late head can dominate the sum.)

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        heads: (layer, head)s, all of which are summed; by default those with the largest AIE on
            each task's dev prompts. Heads from other tasks (`HeadAttribution.universal`) test
            whether the same heads serve a task on which they were not chosen. Heads that
            `head_attribution` ranked on this task with this seed have seen its test queries.
        n_heads: how many heads are summed if `heads` is not given; of several numbers the best on
            dev is kept.
        scale: factor on vectors from heads, and on the random one; of several the best on dev is
            kept.
        output_bias: also add attention's output bias, once per head, as the paper's published code
            does (see `function_vector`); by default vectors hold only what heads write.
        n_dev: dev prompts per task; half of `n_prompts` by default.
        n_dummies: dummy queries per demonstration set, over which theta is averaged.
        template: how a pair is written.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, a count, a head or a scale cannot work, or the model answers none of
            a task's few-shot prompts right.
        ModelError: if the model returns numbers that are not finite, or its blocks do not add the
            heads' outputs to the residual stream unchanged.

    Example:
        >>> vectors = icl_mech.function_vectors(
        ...     model, "country_capital", n_prompts=1, n_shots=4, heads=[(9, 3), (10, 2)],
        ...     scale=1.0, n_dev=1, progress=False,
        ... )
        >>> vectors.vectors
        ['function', 'theta', 'layer_mean', 'random_heads', 'random']
    """
    check_model(model)
    settings = FunctionVectorSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_heads=several_counts("n_heads", n_heads),
        scale=several_scales(scale),
        output_bias=output_bias,
        n_dev=n_dev,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_function_vectors(model, plan_heads(tasks, settings, heads), progress)


def measure_function_vectors(
    model: HookedModel, plan: HeadsPlan[FunctionVectorSettings], progress: bool = True
) -> FunctionVectors:
    """Run a plan of `plan_heads`: what `function_vectors` does after the prompts are drawn.

    Raises:
        InputError: as `function_vectors`.
        ModelError: as `function_vectors`.
    """
    model.check_site("z")
    s, ranking = plan.settings, Ranking.of(model, plan)
    n = len(ranking)
    if ranking.given is None and s.n_heads[-1] > n:
        raise InputError(f"n_heads is {s.n_heads[-1]}; expected 1 to {n}, the model's heads")
    encoded = encode(model, plan)
    vectors = [v for v in VECTORS if v != "function_unscaled" or s.scale != (1.0,)]
    injections = (s.n_prompts + s.dev) * len(PROMPTS) * len(vectors) * model.n_layers
    model.heads.mean_outputs(encoded[0].dev.clean[:1])  # fails here rather than after the ranking
    with progress_bar((injections + ranking.n_runs(s.dev)) * len(encoded), "runs", progress) as bar:
        few_shot = answers_in_context(model, encoded)
        parts = []
        for of, clean in zip(encoded, few_shot, strict=True):
            bar.set_description(of.plan.task.name)
            ranked = ranking.top(of.dev, n, bar.update)
            candidates = [tuple(ranked)]
            if ranking.given is None:
                candidates = head_sets(model, ranked, s.n_heads)
            sources = _sources(model, of.dev, candidates, s, bar)
            parts.append(_compare(model, of, clean, sources, vectors, s.seed, bar))
    data = over_tasks(parts, [of.task.name for of in plan.tasks])
    provenance = {
        "method": "function_vectors (Todd et al. 2023, arXiv 2310.15213)",
        **model.provenance(),
        **s.recorded(),
        "heads": ranking.recorded,
        "n_heads": list(s.n_heads) if ranking.given is None else [n],
        "output_bias": "once per head" if s.output_bias else "left out",
        "filters": NO_FILTERS,
    }
    return FunctionVectors(data, provenance)


@dataclass(frozen=True)
class _Sources:
    """The parts of a task's vectors, all measured on its dev prompts.

    Attributes:
        function: the function vector.
        layer_mean: the mean residual stream of clean prompts, per layer.
        heads: mean outputs of all heads, from `model.heads.mean_outputs`.
        bias: attention's output bias, from the same; None if it is left out.
        chosen: the heads of the function vector.
        scale: factor on the vectors from heads and on the random one.
    """

    function: Float[Tensor, "d_model"]
    layer_mean: Float[Tensor, "layer d_model"]
    heads: Float[Tensor, "layer head d_model"]
    bias: Float[Tensor, "layer d_model"] | None
    chosen: tuple[Head, ...]
    scale: float


def head_sets(
    model: HookedModel, ranked: Sequence[Head], sizes: Sequence[int]
) -> list[tuple[Head, ...]]:
    """For each size, the top heads of all blocks, and the top heads before the last third."""
    early = [head for head in ranked if head[0] < 2 * model.n_layers / 3]
    sets = [tuple(pool[:size]) for pool in (ranked, early) for size in sizes if len(pool) >= size]
    return list(dict.fromkeys(sets))


def _sources(
    model: HookedModel,
    dev: Prompts,
    candidates: Sequence[tuple[Head, ...]],
    s: FunctionVectorSettings,
    bar: tqdm,
) -> _Sources:
    """Build the vectors from the heads and with the scale that are best on dev prompts."""
    heads, every_bias = model.heads.mean_outputs(dev.clean)
    bias = every_bias if s.output_bias else None
    layer_mean = model.capture(dev.clean, ["final_arrow"])[:, 0].float().mean(dim=0)
    vectors = [function_vector(heads, chosen, bias) for chosen in candidates]
    pairs = [(i, scale) for i in range(len(candidates)) for scale in s.scale]
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
    return _Sources(vectors[i], layer_mean, heads, bias, candidates[i], scale)


def _compare(
    model: HookedModel,
    of: TaskPrompts,
    clean: Readout,
    sources: _Sources,
    vectors: Sequence[str],
    seed: int,
    bar: tqdm,
) -> xr.Dataset:
    """One task: inject the vectors into dev and test prompts."""
    test = of.test
    rng = generator(seed, of.plan.task.name, "random vectors")
    per_cell = ("prompt", "setting", "vector", "layer")
    scored = _inject(model, test, sources, vectors, rng, bar)
    on_dev = _inject(model, of.dev, sources, vectors, rng, bar)
    plain = [model.predict(p, test.targets) for p in (test.zero_shot, test.shuffled)]
    return xr.Dataset(
        {
            "right": (per_cell, scored.right),
            "logprob": (per_cell, as_array(scored.logprob[..., 0]), {"units": "nats"}),
            "dev_right": (("dev_prompt", *per_cell[1:]), on_dev.right),
            "dev_query": ("dev_prompt", [e.query.x for e in of.dev.episodes]),
            "plain_right": (("prompt", "setting"), np.stack([r.right for r in plain], axis=1)),
            "few_shot_right": ("prompt", clean.right),
            "heads": ((), " ".join(f"{layer}.{head}" for layer, head in sources.chosen)),
            "scale": ((), sources.scale),
            **of.asked(),
        },
        coords={
            "setting": list(PROMPTS),
            "vector": list(vectors),
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
    """For each prompt, a function vector from as many random heads, without the chosen ones."""
    n_layers, n_heads = sources.heads.shape[:2]
    every = [(layer, head) for layer in range(n_layers) for head in range(n_heads)]
    others = [head for head in every if head not in sources.chosen]
    every = others if len(others) >= len(sources.chosen) else every
    drawn = [rng.choice(len(every), len(sources.chosen), replace=False) for _ in range(n)]
    return torch.stack(
        [function_vector(sources.heads, [every[i] for i in row], sources.bias) for row in drawn]
    )
