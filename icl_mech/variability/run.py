"""Vectors of one task from many demonstration sets (Hendel et al. 2023, section 5.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.spatial.distance import pdist
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.model import HookedModel, Readout, as_array, check_model
from icl_mech.progress import READING, dear, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    Episode,
    Prompt,
    accepted,
    generator,
    same_inputs,
    shot_counts,
    shuffled,
    zero_shot,
)
from icl_mech.tasks import Tasks
from icl_mech.variability.plan import VariabilityPlan, VariabilitySettings, plan
from icl_mech.variability.result import FORMS, KINDS, VectorVariability
from icl_mech.variability.sampling import Sets
from icl_mech.vectors import answer_logprob, dummy_residuals, inject, random_like, theta


def vector_variability(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 25,
    n_shots: int | Sequence[int] = 5,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> VectorVariability:
    """Many task vectors of every task, and how far they are from one another.

    Hendel et al. 2023 (arXiv 2310.15916), section 5.1 (robustness): theta of one task from
    different demonstrations lies together, apart from that of other tasks. Here, after every
    block: cosine distances within and between tasks (never of a vector with itself), as they are
    and after the mean of all vectors is subtracted (*centred*: residual streams share a large
    direction, beside which raw distances can be tiny), their silhouettes, and the zero-shot
    accuracy with every vector injected. Beside them: theta from the same demonstrations with
    shuffled labels (its distance to theta, and its accuracy), and the distance to a random
    vector. Demonstration sets are disjoint as far as a task's pairs allow; queries are never
    shown; the layer that results quote is chosen on dev vectors.

    Args:
        model: from `load_model`.
        tasks: a family or its name, or two or more tasks.
        n_prompts: demonstration sets per task; each gives one vector and is asked one query.
        n_shots: demonstrations per set; several numbers show the first of the same sets.
        seed: of every random draw.
        n_dev: further sets per task, on which the layer that is quoted is chosen (with the most
            shots); half of `n_prompts` by default.
        n_dummies: dummy queries per set.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: where a task or count cannot work, or there is one task only.
        ModelError: where the model returns numbers that are not finite.

    Example:
        >>> tasks = ["antonyms", "country_capital"]
        >>> found = icl_mech.vector_variability(model, tasks, 3, 2, progress=False)
        >>> found.tasks
        ['antonyms', 'country_capital']
    """
    check_model(model)
    settings = VariabilitySettings(
        n_prompts=n_prompts,
        n_shots=shot_counts(n_shots),
        seed=seed,
        n_dev=n_dev,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure(model, plan(tasks, settings), progress)


def measure(model: HookedModel, plan: VariabilityPlan, progress: bool = True) -> VectorVariability:
    """Run a plan: what `vector_variability` does after it has drawn the sets.

    Raises:
        InputError: where the model cannot read a prompt.
        ModelError: where the model returns numbers that are not finite.
    """
    s, sets = plan.settings, plan.sets
    # One encoder for all: only what the pairs are may tell prompts apart.
    words = [pair.y for each in sets for pair in each.task.pairs]
    encoder = model.encoder(s.template, words, s.leading_space)
    per_vector = READING * s.n_dummies + model.n_layers
    per_task = s.n_prompts * (2 * len(s.n_shots) * per_vector + 1) + s.dev * per_vector
    with progress_bar(len(sets) * per_task, "runs", progress) as bar:
        measured = [_measure(model, each, encoder, s, bar) for each in sets]
    names = [each.task.name for each in sets]
    data = xr.concat([m.data for m in measured], xr.DataArray(names, dims="task", name="task"))
    data = data.assign(_distances(measured, s.n_shots)).assign_coords(form=list(FORMS))
    return VectorVariability(data, _provenance(model, encoder, plan))


@dataclass(frozen=True)
class _Measured:
    """One task's arrays, and its vectors (theta, then its control) by number of shots."""

    data: xr.Dataset
    vectors: dict[int, Float[Tensor, "vector kind layer d_model"]]


def _measure(
    model: HookedModel, sets: Sets, encoder: Encoder, s: VariabilitySettings, bar: tqdm
) -> _Measured:
    """Read one task's vectors and inject them."""
    bar.set_description(sets.task.name)
    rng = generator(s.seed, sets.task.name, "controls")
    zero, answers = _asked(encoder, sets.test)
    vectors: dict[int, Tensor] = {}
    right = []
    for n in s.n_shots:
        shown = _first(sets.test, n)
        own, control = (
            theta(dummy_residuals(model, encoder, episodes, dear(bar.update)))
            for episodes in (shown, shuffled(shown, rng))
        )
        both = torch.stack([own, control], dim=1)
        right.append(_injected(model, encoder, shown, both, bar).right)
        vectors[n] = both
    dev = _first(sets.dev, max(s.n_shots))
    on_dev = theta(dummy_residuals(model, encoder, dev, dear(bar.update)))
    read = _injected(model, encoder, dev, on_dev[:, None], bar).column(0)
    most = vectors[max(s.n_shots)][:, 0]
    to_random = _cosine_distance(most, random_like(most, rng))
    data = xr.Dataset(
        {
            "right": (("shots", "vector", "kind", "layer"), np.stack(right)),
            "norm": (
                ("shots", "vector", "layer"),
                np.stack([as_array(v[:, 0].norm(dim=-1)) for v in vectors.values()]),
            ),
            "random_distance": (("vector", "layer"), to_random),
            "baseline_right": ("vector", model.predict(zero, answers, bar.update).right),
            "dev_right": (("dev_vector", "layer"), read.right),
            "dev_logprob": (("dev_vector", "layer"), answer_logprob(read), {"units": "nats"}),
            "query": ("vector", [e.query.x for e in sets.test]),
            "dev_query": ("dev_vector", [e.query.x for e in sets.dev]),
        },
        coords={
            "shots": list(s.n_shots),
            "kind": list(KINDS),
            "layer": np.arange(model.n_layers),
        },
    )
    return _Measured(data, vectors)


def _first(episodes: Sequence[Episode], n_shots: int) -> tuple[Episode, ...]:
    return tuple(replace(e, demonstrations=e.demonstrations[:n_shots]) for e in episodes)


def _asked(
    encoder: Encoder, episodes: Sequence[Episode]
) -> tuple[list[Prompt], tuple[tuple[int, ...], ...]]:
    """Zero-shot prompts, and the first tokens of their answers."""
    zero = zero_shot(encoder, episodes)
    return zero, accepted(encoder, zero, episodes).first_tokens


def _injected(
    model: HookedModel,
    encoder: Encoder,
    episodes: Sequence[Episode],
    vectors: Float[Tensor, "vector kind layer d_model"],
    bar: tqdm,
) -> Readout:
    """Zero-shot prompts with every vector in turn, `[vector, kind, layer]`."""
    zero, answers = _asked(encoder, episodes)
    return inject(model, zero, vectors, answers, bar.update)


def _cosine_distance(
    first: Float[Tensor, "*cell d_model"], second: Float[Tensor, "*cell d_model"]
) -> Float[np.ndarray, "*cell"]:
    """Of every vector to its partner, in double precision."""
    return as_array(1 - torch.cosine_similarity(first.double(), second.double(), dim=-1))


def _distances(measured: Sequence[_Measured], counts: Sequence[int]) -> dict:
    """Cosine distances of any two different vectors: a vector's to itself does not exist here.

    Centred: after the mean over all tasks' vectors of that layer and number of shots is
    subtracted, from vectors and controls alike.
    """
    between, to_shuffled = [], []
    for n in counts:
        raw = torch.stack([m.vectors[n] for m in measured]).double()  # task vector kind layer d
        centred = raw - raw[:, :, :1].mean(dim=(0, 1), keepdim=True)
        # What rounding leaves of vectors that are all the same has no direction.
        nothing = centred.norm(dim=-1) <= 1e-12 * raw.norm(dim=-1)
        both = (raw, centred.masked_fill(nothing[..., None], 0))
        points = [as_array(form[:, :, 0].flatten(0, 1)) for form in both]
        between.append(
            [[pdist(p[:, layer], "cosine") for layer in range(p.shape[1])] for p in points]
        )
        to_shuffled.append([_cosine_distance(form[:, :, 0], form[:, :, 1]) for form in both])
    dims = ("shots", "form", "task", "vector", "layer")
    return {
        "distance": (("shots", "form", "layer", "pair"), np.array(between, dtype=np.float32)),
        "shuffled_distance": (dims, np.array(to_shuffled)),
    }


def _provenance(model: HookedModel, encoder: Encoder, plan: VariabilityPlan) -> dict:
    return {
        "method": "vector_variability (Hendel et al. 2023, arXiv 2310.15916, section 5.1)",
        **model.provenance(),
        **plan.settings.recorded(),
        "n_shots": list(plan.settings.n_shots),
        "metric": "cosine distance, pairs of different vectors only",
        "centred": "after the mean of all vectors (by shots and layer) is subtracted",
        "score": "first token of an accepted answer",
        "sink_token": model.to_string(encoder.sink),
        "leading_space": encoder.template.leading_space,
        "d_model": model.d_model,
        "shared_inputs": same_inputs([each.task for each in plan.sets]),
        "tasks": {
            each.task.name: {
                "category": each.task.category,
                "n_pairs": len(each.task),
                "n_disjoint_sets": each.n_disjoint,
                "overlap": each.overlap,
                "n_queries": each.n_queries,
                "n_dev_queries": each.n_dev_queries,
            }
            for each in plan.sets
        },
        "filters": "none: every vector and every prompt counts",
    }
