"""Writes task vectors into prompts that invite the model to say what they hold."""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError
from icl_mech.layers import check_layer, check_layers
from icl_mech.model import Edit, HookedModel, check_model
from icl_mech.patchscope.plan import (
    INVITATIONS,
    MARK,
    PLACEHOLDER,
    PatchscopePlan,
    PatchscopeSettings,
    plan,
)
from icl_mech.patchscope.result import VECTORS, Patchscope
from icl_mech.progress import READING, dear, progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES, Prompt, Split, generator
from icl_mech.results import over_tasks
from icl_mech.tasks import Task, Tasks
from icl_mech.vectors import dummy_residuals, random_like, theta


def patchscope(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 20,
    n_shots: int = 5,
    seed: int = 0,
    *,
    invitations: Sequence[str] = tuple(INVITATIONS),
    layers: Sequence[int] | None = None,
    into: int | None = None,
    max_new_tokens: int = 12,
    naming: Mapping[str, Sequence[str]] | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> Patchscope:
    """Write task vectors into prompts that invite the model to say what they hold.

    Ghandeharioun et al. 2024 (*Patchscopes*, arXiv 2401.06102), here for theta (Hendel et al. 2023,
    section 3.2). Theta is read after a block, and written after the same block (or another, `into`)
    over one token of a prompt such as `"cat -> cat\\nhello -> hello\\nx ->"` (over the `x`). The
    model continues greedily. The result counts texts with a word that names the task
    (`icl_mech.lens.NAMING`), and texts with an answer of the task, to any of its inputs. Controls
    are words that name *another* task (mean over these), and a random vector of the same norm.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: vectors per task, each from other demonstrations.
        n_shots: demonstrations per vector.
        seed: of every random draw.
        invitations: names of `INVITATIONS`, or texts of your own in which `{}` marks the token over
            which the vector is written.
        layers: after which blocks vectors are read, from 0 (or from the end, negative); all by
            default.
        into: after which block they are written; by default after the block of the reading.
        max_new_tokens: the most tokens that are generated; a line break ends the text.
        naming: words that name tasks, in addition to `NAMING` (needed for tasks of your own).
        n_dummies: dummy queries per demonstration set, over which theta is averaged.
        template: how a pair is written.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, count, layer or invitation cannot work.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.patchscope(
        ...     model, "country_capital", 2, 2, layers=[9], invitations=["repeat"], progress=False
        ... )
        >>> found.said("country_capital", "repeat", 9)
        [...]
    """
    check_model(model)
    settings = PatchscopeSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        invitations=tuple(invitations),
        layers=None if layers is None else tuple(check_layers(layers, model.n_layers)),
        into=None if into is None else check_layer(into, model.n_layers),
        max_new_tokens=max_new_tokens,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure(model, plan(tasks, settings, naming), progress)


def measure(model: HookedModel, plan: PatchscopePlan, progress: bool = True) -> Patchscope:
    """Run a plan of `plan`: what `patchscope` does after the demonstrations are drawn.

    Raises:
        InputError: as `patchscope`.
        ModelError: as `patchscope`.
    """
    s = plan.settings
    layers = check_layers(s.layers, model.n_layers)
    invited = {name: _invited(model, text) for name, text in s.texts.items()}
    texts = len(layers) * len(VECTORS) * len(invited)
    per_task = s.n_prompts * (READING * s.n_dummies + texts)
    with progress_bar(per_task * len(plan.tasks), "runs", progress) as bar:
        parts = [
            _measure(model, task, split, invited, layers, plan, bar) for task, split in plan.tasks
        ]
    names = [task.name for task, _ in plan.tasks]
    provenance = {
        "method": "patchscope (Ghandeharioun et al. 2024, arXiv 2401.06102) of theta",
        **model.provenance(),
        **s.recorded(),
        "layers": layers,
        "texts": s.texts,
        "naming": {name: sorted(plan.naming.get(name, ())) for name in names},
        "filters": "none: every vector counts",
    }
    return Patchscope(over_tasks(parts, names), provenance)


def _invited(model: HookedModel, text: str) -> tuple[Prompt, int]:
    """An invitation as a prompt, and the index of the marked token.

    Raises:
        InputError: if the placeholder at the mark is not a separate token.
    """
    before, _, after = text.partition(MARK)
    prompt = model.prompt(before + PLACEHOLDER + after)
    upto = model.prompt(before + PLACEHOLDER).tokens
    if tuple(prompt.tokens[: len(upto)]) != tuple(upto):
        raise InputError(
            f"invitation {text!r}: {PLACEHOLDER!r} in place of {MARK} is no token of its own; "
            "expected a space or a line break round it"
        )
    return prompt, len(upto) - 1


def _measure(
    model: HookedModel,
    task: Task,
    split: Split,
    invited: Mapping[str, tuple[Prompt, int]],
    layers: Sequence[int],
    plan: PatchscopePlan,
    bar: tqdm,
) -> xr.Dataset:
    """The texts of one task's vectors, and their counts."""
    bar.set_description(task.name)
    s = plan.settings
    encoder = model.encoder(s.template, [pair.y for pair in task.pairs], s.leading_space)
    own = theta(dummy_residuals(model, encoder, split.test, dear(bar.update)))[:, layers]
    vectors = torch.stack([own, random_like(own, generator(s.seed, task.name, "patchscope"))])
    said = np.stack([_said(model, *invited[name], vectors, layers, s, bar) for name in invited])
    dims = ("invitation", "vector", "prompt", "layer")
    answers = {answer for pair in task.pairs for answer in pair.answers}
    named = plan.naming.get(task.name, frozenset())
    others = [words - named for name, words in plan.naming.items() if name != task.name]
    folded = np.vectorize(str.casefold, otypes=[object])(said)
    return xr.Dataset(
        {
            "text": (dims, said.astype(str)),
            "answers": (dims, _has(said, answers)),
            "names": (dims, _has(folded, named)),
            "other_names": (dims, np.mean([_has(folded, words) for words in others], axis=0)),
            "query": ("prompt", [e.query.x for e in split.test]),
        },
        coords={"invitation": list(invited), "vector": list(VECTORS), "layer": list(layers)},
    ).assign(n_queries=split.n_test_queries)


def _said(
    model: HookedModel,
    prompt: Prompt,
    at: int,
    vectors: Float[Tensor, "vector prompt layer d_model"],
    layers: Sequence[int],
    s: PatchscopeSettings,
    bar: tqdm,
) -> np.ndarray:
    """The texts after one invitation, `[vector, prompt, layer]`."""
    edits = [
        Edit(layer if s.into is None else s.into, of_kind[:, i], position=at)
        for of_kind in vectors
        for i, layer in enumerate(layers)
    ]
    prompts = [prompt] * vectors.shape[1]
    found = model.generate(prompts, edits, s.max_new_tokens, tick=bar.update)
    texts = np.array([[each.text for each in row] for row in found], dtype=object)
    return texts.reshape(len(prompts), len(vectors), len(layers)).swapaxes(0, 1)


def _has(texts: np.ndarray, words: Collection[str]) -> np.ndarray:
    """Whether each text contains one of the words as a whole word."""
    found = re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, words))})(?!\w)" if words else r"(?!)")
    return np.vectorize(lambda text: found.search(text) is not None, otypes=[bool])(texts)
