"""Reads a task vector from a task, from pairs, or from a few-shot prompt."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from icl_mech.errors import InputError, choose
from icl_mech.layers import check_layer
from icl_mech.model import HookedModel, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES, Episode, Template, VectorSettings
from icl_mech.prompts.reading import follows
from icl_mech.task_vectors.vector import TaskVector
from icl_mech.tasks import Family, Task, load_tasks
from icl_mech.vectors import choose_layer, dummy_residuals, scores_by_layer, theta

METHODS = ("theta",)
#: The source of a vector: a task or its name, pairs, or the text of a few-shot prompt.
Source = Task | str | Path | Mapping[str, str | Sequence[str]]


def task_vector(
    model: HookedModel,
    task: Source,
    n_prompts: int = 20,
    n_shots: int = 5,
    seed: int = 0,
    *,
    layer: int | Literal["best"] = "best",
    method: Literal["theta"] = "theta",
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> TaskVector:
    """The task vector of a task: theta, the mean over several demonstration sets.

    Hendel et al. 2023 (arXiv 2310.15916), section 3.2: theta is the residual stream after a block
    at the last token of a few-shot prompt whose query is a dummy. (The paper does not average over
    demonstration sets; the vector of each set is in `TaskVector.sets`.)

    Args:
        model: from `load_model`.
        task: a task, its name, a path to pairs, a dict of pairs; or the text of a few-shot prompt,
            whose last token is read as it is.
        n_prompts: demonstration sets.
        n_shots: demonstrations in each.
        seed: of every random draw.
        layer: the block after which the vector will be written; `"best"` chooses the block after
            which it answers most zero-shot dev prompts right.
        method: `"theta"`.
        n_dev: dev prompts; half of `n_prompts` by default.
        n_dummies: dummy queries per demonstration set.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations, as in `layer_scan`.
        progress: show a progress bar.

    Raises:
        InputError: if the task, a count, the layer or the template cannot work, or if
            `layer="best"` is given with a single prompt, which has no queries to choose on.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> tv = icl_mech.task_vector(model, "to_upper", 4, 3, layer=9, progress=False)
        >>> tv.layer, tv.values.shape, tv.sets.shape
        (9, torch.Size([18, 640]), torch.Size([4, 18, 640]))
    """
    check_model(model)
    choose(method, METHODS, "method")
    number = None if layer == "best" else check_layer(layer, model.n_layers)
    if isinstance(task, str) and follows(task, template) is not None:
        return _of_prompt(model, task, template, number)
    chosen = _as_task(task)
    settings = VectorSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_dev=n_dev,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    split = settings.split(chosen)
    encoder = model.encoder(template, [pair.y for pair in chosen.pairs], leading_space)
    dev = split.dev if number is None else ()
    total = len(split.test) * n_dummies + len(dev) * model.n_layers
    with progress_bar(total, "steps", progress) as bar:
        sets = theta(dummy_residuals(model, encoder, split.test, bar.update)).float().cpu()
        values = sets.mean(dim=0)
        if number is None:
            number = _best(model, encoder, dev, values, bar.update, chosen.name)
    provenance = {
        "method": "task_vector: theta (Hendel et al. 2023, arXiv 2310.15916)",
        **model.provenance(),
        **settings.recorded(),
        "task": chosen.name,
        "leading_space": encoder.template.leading_space,
        "layer_chosen": "on dev prompts" if layer == "best" else "by the caller",
        "shown": sorted({pair.x for e in split.test for pair in e.demonstrations}),
    }
    return TaskVector(
        chosen.name, values, tuple(range(model.n_layers)), number, sets=sets, provenance=provenance
    )


def _as_task(task: Source) -> Task:
    """The one task that `task` names, holds or is."""
    if isinstance(task, Mapping):
        return Task.from_pairs(task, "pairs")
    found = [] if isinstance(task, Family) else load_tasks(task)
    if len(found) != 1:
        raise InputError(
            f"{len(found) or 'a family of'} tasks; expected one, whose vector is taken"
        )
    return found[0]


def _best(
    model: HookedModel,
    encoder: Any,
    dev: Sequence[Episode],
    values: torch.Tensor,
    tick: Any,
    name: str,
) -> int:
    """The vector's best layer on dev prompts; warns if its accuracy does not rise above noise."""
    each = values[None].expand(len(dev), -1, -1)
    right, logprob = scores_by_layer(model, encoder, dev, each, tick)
    queries = np.unique([episode.query.x for episode in dev], return_inverse=True)[1]
    choice = choose_layer(right, logprob, queries)
    for caveat in choice.caveat(choice.at, f"the vector of {name}"):
        warnings.warn(caveat, stacklevel=4)
    return choice.at


def _of_prompt(model: HookedModel, text: str, template: str, layer: int | None) -> TaskVector:
    """The residual stream at the last token of one prompt."""
    if layer is None:
        raise InputError(
            "layer='best' of a single prompt, which has no other queries to choose on; expected a "
            "number, as layer=9"
        )
    prompt = model.prompt(text, template)
    values = model.final_residuals([[prompt]])[0, 0].float().cpu()
    provenance = {
        "method": "task_vector: the last token of a prompt",
        **model.provenance(),
        "template": Template(template).text,
        "prompt": text,
    }
    name = text.strip().splitlines()[-1] if text.strip() else "prompt"
    return TaskVector(name, values, tuple(range(model.n_layers)), layer, provenance=provenance)
