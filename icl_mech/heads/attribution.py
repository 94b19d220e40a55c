"""Average indirect effect of every attention head (Todd et al. 2023, section 2.3)."""

import sys
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError
from icl_mech.heads.result import HeadAttribution
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    Encoder,
    Episode,
    Prompt,
    draw_split,
    generator,
    shuffle_labels,
)
from icl_mech.tasks import Task, load_tasks


def head_attribution(
    model: HookedModel,
    task: Task | str | Sequence[Task | str],
    n_prompts: int = 25,
    n_shots: int = 10,
    seed: int = 0,
    *,
    n_clean: int = 50,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> HeadAttribution:
    """Exact AIE of every head, on prompts whose labels are shuffled.

    Todd et al. 2023 (arXiv 2310.15213, section 2.3): at the last token of a few-shot prompt with
    shuffled labels, replace one head's output (`hook_z`) by its mean over clean prompts of the
    task. The head's effect on a prompt is the change in the probability of the answer's first
    token; AIE is its mean over prompts. The clean prompts ask other queries than the shuffled
    ones, and neither are among the demonstrations.

    Args:
        model: from `load_model`.
        task: a task, its name, a path to pairs, or several of these.
        n_prompts: prompts with shuffled labels, per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_clean: clean prompts over which a head's output is averaged.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        progress: show a progress bar.

    Raises:
        InputError: where a task or count cannot work, or the model never answers the clean
            prompts right: there is nothing to attribute.
        ModelError: where the model returns numbers that are not finite.
    """
    if n_shots < 2:
        raise InputError(f"n_shots is {n_shots}; expected at least 2 (labels are shuffled)")
    tasks = load_tasks(task)
    splits = [draw_split(t, n_prompts, n_clean, n_shots, 1, seed) for t in tasks]
    heads = model.n_layers * model.n_heads
    with tqdm(
        total=n_prompts * heads * len(tasks),
        disable=not progress,
        unit=" heads",
        file=sys.stderr,
        leave=False,
    ) as bar:
        parts = []
        for t, split in zip(tasks, splits, strict=True):
            bar.set_description(t.name)
            encoder = model.encoder(template, [pair.y for pair in t.pairs], leading_space)
            rng = generator(seed, t.name, "shuffled")
            parts.append(_attribute(model, t, encoder, split.dev, split.test, rng, bar))
    data = xr.concat(parts, dim=xr.DataArray([t.name for t in tasks], dims="task", name="task"))
    provenance = {
        "method": "head_attribution: AIE (Todd et al. 2023, arXiv 2310.15213)",
        **model.provenance(),
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "n_clean": n_clean,
        "seed": seed,
        "template": template,
        "leading_space": leading_space,
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return HeadAttribution(data, provenance)


def _attribute(
    model: HookedModel,
    task: Task,
    encoder: Encoder,
    clean: Sequence[Episode],
    test: Sequence[Episode],
    rng: np.random.Generator,
    bar: tqdm,
) -> xr.Dataset:
    """One task: mean outputs from clean prompts, effects on prompts with shuffled labels."""
    clean_prompts = [encoder.encode(e.demonstrations, e.query.x) for e in clean]
    means = mean_heads(model, clean_prompts)
    right_labels = [encoder.encode(e.demonstrations, e.query.x) for e in test]
    shuffled = [encoder.encode(shuffle_labels(e.demonstrations, rng), e.query.x) for e in test]
    answers = [
        [encoder.answer_tokens(prompt, [e.query.y])[0][0]]
        for prompt, e in zip(shuffled, test, strict=True)
    ]
    before = _probability(model, shuffled, answers)
    with_labels = _probability(model, right_labels, answers)
    if not with_labels[1].any():
        raise InputError(
            f"task {task.name!r}: the model answers none of {len(test)} few-shot prompts right, so "
            "there is nothing to attribute; expected a task that it can do in context"
        )
    edits = [
        Edit(layer, means[layer, head], "z", "final_arrow", head=head)
        for layer in range(model.n_layers)
        for head in range(model.n_heads)
    ]
    readout = model.evaluate(shuffled, edits, answers, bar.update)
    after = readout.logprob[..., 0].exp().reshape(len(test), model.n_layers, model.n_heads)
    effect = after.cpu().numpy() - before[0][:, None, None]
    return xr.Dataset(
        {
            "effect": (("prompt", "layer", "head"), effect, {"units": "probability"}),
            "shuffled_probability": ("prompt", before[0], {"units": "probability"}),
            "clean_probability": ("prompt", with_labels[0], {"units": "probability"}),
            "clean_right": ("prompt", with_labels[1]),
            "query": ("prompt", [e.query.x for e in test]),
            "answer": ("prompt", [e.query.y for e in test]),
        },
        coords={"layer": np.arange(model.n_layers), "head": np.arange(model.n_heads)},
    )


def mean_heads(model: HookedModel, prompts: Sequence[Prompt]) -> Float[Tensor, "layer head d_head"]:
    """Every head's mean output (`hook_z`) at the final arrow."""
    return model.capture(prompts, ["final_arrow"], site="z")[:, 0].mean(dim=0)


def _probability(
    model: HookedModel, prompts: Sequence[Prompt], answers: Sequence[Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Probability of each prompt's answer, and whether it is the most probable token."""
    resid = model.final_residuals([[prompt] for prompt in prompts])[:, 0, -1]
    readout = model.read(resid, answers)
    right = readout.rank[:, 0] == 0
    return readout.logprob[:, 0].exp().cpu().numpy(), right.cpu().numpy()
