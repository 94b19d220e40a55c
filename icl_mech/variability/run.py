"""Vectors of one task from many demonstration sets (Hendel et al. 2023, section 5.1)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from scipy.spatial.distance import pdist
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.model import HookedModel, as_array, check_model
from icl_mech.progress import READING, dear, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    accepted,
    generator,
    same_inputs,
    shot_counts,
    shuffled,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks
from icl_mech.variability.plan import VariabilityPlan, VariabilitySettings, plan
from icl_mech.variability.result import FORMS, KINDS, VectorVariability
from icl_mech.variability.sampling import Sets
from icl_mech.vectors import dummy_residuals, inject, random_like, scores_by_layer, theta


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
    """Read many task vectors of every task, and measure how much they vary.

    Hendel et al. 2023 (arXiv 2310.15916), section 5.1 (robustness): thetas of one task from
    different demonstrations lie together, apart from those of other tasks. Three things are
    measured after every block: cosine distances within and between tasks (never of a vector with
    itself), the vectors' silhouettes, and the zero-shot accuracy with every vector injected.
    Distances are measured raw and *centred*, after the mean of all vectors is subtracted (residual
    streams share a large direction, which can make all raw distances tiny). Controls are theta from
    the same demonstrations with shuffled labels (its distance to theta, and its accuracy), and the
    distance to a random vector.

    Demonstration sets are disjoint as far as a task's pairs allow; queries are never shown; the
    layer that results quote is chosen on dev vectors.

    Args:
        model: from `load_model`.
        tasks: a family or its name, or two or more tasks.
        n_prompts: demonstration sets per task; each gives one vector and is asked one query.
        n_shots: demonstrations per set, one number or several; smaller numbers use the first
            demonstrations of the same sets.
        seed, n_dev, n_dummies, template, leading_space, instruction: see `VariabilitySettings`.
        progress: show a progress bar.

    Raises:
        InputError: if a task or count cannot work, or only one task is given.
        ModelError: if the model returns numbers that are not finite.

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
    """Run a plan, as `vector_variability` does after it has drawn the sets."""
    s, sets = plan.settings, plan.sets
    # All tasks share one encoder, so that their prompts are written alike.
    words = [pair.y for each in sets for pair in each.task.pairs]
    encoder = model.encoder(s.template, words, s.leading_space)
    per_vector = READING * s.n_dummies + model.n_layers
    per_task = s.n_prompts * (2 * len(s.n_shots) * per_vector + 1) + s.dev * per_vector
    with progress_bar(len(sets) * per_task, "runs", progress) as bar:
        measured = [_measure(model, each, encoder, s, bar) for each in sets]
    data = over_tasks([part for part, _ in measured], [each.task.name for each in sets])
    distances = _distances([vectors for _, vectors in measured], s.n_shots)
    data = data.assign(distances).assign_coords(form=list(FORMS))
    return VectorVariability(data, _provenance(model, encoder, plan))


#: One task's vectors, of the two `KINDS`, by number of shots.
_Vectors = dict[int, Float[Tensor, "vector kind layer d_model"]]


def _measure(
    model: HookedModel, sets: Sets, encoder: Encoder, s: VariabilitySettings, bar: tqdm
) -> tuple[xr.Dataset, _Vectors]:
    """Read one task's vectors and inject them."""
    bar.set_description(sets.task.name)
    rng = generator(s.seed, sets.task.name, "controls")
    zero = zero_shot(encoder, sets.test)
    answers = accepted(encoder, zero, sets.test).first_tokens
    vectors: _Vectors = {}
    right = []
    for n in s.n_shots:
        shown = [replace(e, demonstrations=e.demonstrations[:n]) for e in sets.test]
        own, control = (
            theta(dummy_residuals(model, encoder, episodes, dear(bar.update)))
            for episodes in (shown, shuffled(shown, rng))
        )
        vectors[n] = torch.stack([own, control], dim=1)
        right.append(inject(model, zero, vectors[n], answers, bar.update).right)
    on_dev = theta(dummy_residuals(model, encoder, sets.dev, dear(bar.update)))
    dev_right, dev_logprob = scores_by_layer(model, encoder, sets.dev, on_dev, bar.update)
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
            "dev_right": (("dev_vector", "layer"), dev_right),
            "dev_logprob": (("dev_vector", "layer"), dev_logprob, {"units": "nats"}),
            "query": ("vector", [e.query.x for e in sets.test]),
            "dev_query": ("dev_vector", [e.query.x for e in sets.dev]),
        },
        coords={
            "shots": list(s.n_shots),
            "kind": list(KINDS),
            "layer": np.arange(model.n_layers),
        },
    )
    return data, vectors


def _cosine_distance(
    first: Float[Tensor, "*cell d_model"], second: Float[Tensor, "*cell d_model"]
) -> Float[np.ndarray, "*cell"]:
    return as_array(1 - torch.cosine_similarity(first.double(), second.double(), dim=-1))


def _distances(tasks: Sequence[_Vectors], counts: Sequence[int]) -> dict:
    """Cosine distances between all vectors, and of each theta to its control, raw and centred.

    Centred: the mean over all tasks' thetas of that layer and number of shots is subtracted from
    thetas and controls.
    """
    between, to_shuffled = [], []
    for n in counts:
        raw = torch.stack([vectors[n] for vectors in tasks]).double()  # task vector kind layer d
        centred = raw - raw[:, :, :1].mean(dim=(0, 1), keepdim=True)
        # If all vectors are the same, centring leaves rounding errors, which have no direction.
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
