"""Runs few-shot prompts with the demonstrations hidden in some blocks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.masking.plan import MASKS, Mask, MaskingPlan, MaskingSettings, plan
from icl_mech.masking.result import ContextMasking
from icl_mech.model import AnyEdit, HookedModel, Knockout, as_array, check_model
from icl_mech.progress import Tick, progress_bar, silent
from icl_mech.prompts import DEFAULT_TEMPLATE, Prompt, Split, accepted, in_context, zero_shot
from icl_mech.results import over_tasks
from icl_mech.stats.curves import Rule
from icl_mech.tasks import Task, Tasks


def context_masking(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 25,
    n_shots: int = 5,
    seed: int = 0,
    *,
    masks: Sequence[str] = tuple(MASKS),
    fraction: float = 0.5,
    min_rise: float = 0.1,
    min_found: float = 0.95,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> ContextMasking:
    """Hide demonstrations from some layer on, to find the layer by which they have been read.

    Sia, Mueller and Duh 2024 (arXiv 2403.04510): from a block on, the tokens after the
    demonstrations no longer attend to them. If accuracy is unchanged, the model has read all it
    needs of them before that block. The reverse is measured too: they are seen only from a block
    on. No vector is written, so this is evidence for the layer of formation that is independent of
    theta.

    Args:
        model: from `load_model`; every block needs attention.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        masks: names of `MASKS`, which say what is hidden.
        fraction, min_rise, min_found: when a curve counts as risen, see `Rule`.
        template: how a pair is written.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations, which is never hidden: `"none"`, `"true"`
            (it names the task), `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, count, mask or the rule cannot work, or a block of the model has
            no attention.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.context_masking(
        ...     model, "country_capital", 2, 2, masks=["labels"], progress=False)
        >>> len(found.curve("country_capital", "labels"))
        18
    """
    check_model(model)
    settings = MaskingSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        masks=tuple(masks),
        rule=Rule(fraction, min_rise, min_found),
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure(model, plan(tasks, settings), progress)


def measure(model: HookedModel, plan: MaskingPlan, progress: bool = True) -> ContextMasking:
    """Run a plan of `plan`: what `context_masking` does after the prompts are drawn.

    Raises:
        InputError: as `context_masking`.
        ModelError: as `context_masking`.
    """
    s = plan.settings
    runs = 2 + len(s.masks) * (2 * model.n_layers - 1)
    with progress_bar(len(plan.tasks) * s.n_prompts * runs, "runs", progress) as bar:
        parts = [_measure(model, task, split, s, bar) for task, split in plan.tasks]
    provenance = {
        "method": "context masking (Sia et al. 2024, arXiv 2403.04510)",
        **model.provenance(),
        **s.recorded(),
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return ContextMasking(over_tasks(parts, [task.name for task, _ in plan.tasks]), provenance)


def read_until(
    model: HookedModel,
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[int]],
    tick: Tick = silent,
) -> np.ndarray:
    """Whether answers are right if demonstrations are seen in blocks 0 to `l` only: `[prompt, l]`.

    The mask is `"demonstrations"`; nothing is hidden at the last `l`.
    """
    edits = knockouts(model.n_layers, MASKS["demonstrations"])[1 : model.n_layers]
    right: np.ndarray = model.evaluate(prompts, [*edits, None], answers, tick).right
    return right


def knockouts(n_layers: int, mask: Mask) -> list[AnyEdit]:
    """The knockouts of a mask: everywhere, seen until each block but the last, seen after each."""
    every = range(n_layers)
    blocks = [every[layer + 1 :] for layer in every[:-1]] + [every[:n] for n in every[1:]]
    return [Knockout(cut, mask.hidden, mask.at) for cut in (every, *blocks)]


def _measure(
    model: HookedModel, task: Task, split: Split, s: MaskingSettings, bar: tqdm
) -> xr.Dataset:
    """All masks of one task."""
    bar.set_description(task.name)
    encoder = model.encoder(s.template, [pair.y for pair in task.pairs], s.leading_space)
    prompts = in_context(encoder, split.test)
    answers = accepted(encoder, prompts, split.test).first_tokens
    edits: list[AnyEdit] = [None]
    for name in s.masks:
        edits += knockouts(model.n_layers, MASKS[name])
    streams = model.last_streams(prompts, edits, bar.update)
    found = _read(model, streams, answers)
    bare = zero_shot(encoder, split.test)
    asked = model.predict(bare, accepted(encoder, bare, split.test).first_tokens, bar.update)
    data: dict[str, Any] = {
        f"few_shot_{name}": ("prompt", found[name][:, 0]) for name in ("right", "logprob")
    }
    data["zero_shot_right"] = ("prompt", asked.right)
    for name, values in found.items():
        data[name] = (
            ("direction", "mask", "prompt", "layer"),
            _by_layer(values, len(s.masks), model.n_layers),
            {} if name in ("right", "total_variation") else {"units": "nats"},
        )
    data["query"] = ("prompt", [e.query.x for e in split.test])
    coords = {"direction": ["until", "after"], "mask": list(s.masks)}
    layers = {"layer": np.arange(model.n_layers)}
    return xr.Dataset(data, coords=coords | layers).assign(n_queries=split.n_test_queries)


def _read(
    model: HookedModel,
    streams: Float[Tensor, "prompt edit d_model"],
    answers: Sequence[Sequence[int]],
) -> dict[str, np.ndarray]:
    """The `VALUES` of every prompt with every mask, `[prompt, edit]`."""
    n_prompts, n_edits, _ = streams.shape
    targets = [row for row in answers for _ in range(n_edits)]
    readout = model.read(streams.flatten(0, 1), targets).reshape(n_prompts, n_edits)
    kl, apart = model.vocabulary.distances(streams[:, 0], streams)
    return {
        "right": readout.right,
        "logprob": as_array(readout.logprob.nan_to_num(-torch.inf).amax(dim=-1)),
        "kl": as_array(kl),
        "total_variation": as_array(apart),
    }


def _by_layer(values: np.ndarray, n_masks: int, n_layers: int) -> np.ndarray:
    """Reorder `[prompt, edit]` to `[direction, mask, prompt, layer]`, see `knockouts`."""
    clean = values[:, :1]
    out = []
    for of_mask in np.split(values[:, 1:], n_masks, axis=1):
        everywhere, until, after = np.split(of_mask, [1, n_layers], axis=1)
        out.append([np.hstack([until, clean]), np.hstack([after, everywhere])])
    return np.array(out).swapaxes(0, 1)
