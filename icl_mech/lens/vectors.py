"""Task vectors read through the unembedding: do their top tokens name the task?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from icl_mech.errors import InputError, choose
from icl_mech.heads import head_attribution
from icl_mech.layers import check_layers
from icl_mech.lens.counting import KINDS, Words, among, count, kind_of
from icl_mech.lens.naming import naming_words
from icl_mech.lens.run import texts
from icl_mech.lens.targets import check_vector
from icl_mech.lens.vectors_result import AVERAGES, VectorLens
from icl_mech.model import HookedModel, TopTokens, as_array, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    Split,
    check_counts,
    draw_split,
    generator,
    in_context,
    whole,
)
from icl_mech.results import over_tasks
from icl_mech.tasks import Task, Tasks, load_tasks
from icl_mech.vectors import check_heads, dummy_residuals, function_vector, random_like, theta

#: The "layer" of a function vector, which belongs to none.
NO_LAYER = -1
Head = tuple[int, int]


def vector_lens(
    model: HookedModel,
    task: Tasks,
    vector: str = "theta",
    n_prompts: int = 25,
    n_shots: int = 5,
    seed: int = 0,
    *,
    layers: Sequence[int] | None = None,
    heads: Sequence[Head] | None = None,
    n_heads: int = 10,
    output_bias: bool = False,
    top_k: int = 20,
    average: str = "log_probability",
    only_words: bool = False,
    naming: Mapping[str, Sequence[str]] | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> VectorLens:
    """Read task vectors through the final norm and the unembedding, and count what they say.

    Hendel et al. 2023 (arXiv 2310.15916, appendix on the vocabulary) show that the top tokens of
    theta name the task. Here that is counted: of the top 10 and 20 tokens, how many are words
    that name the task (`NAMING`, written by hand), first tokens of its answers, and first tokens
    of its inputs; beside it, on the same lists, words that name *other* tasks (mean over them),
    and the same counts for random vectors of the same norm. The final norm is always applied,
    and no token is left out unless `only_words` is set; both are recorded.

    Args:
        model: from `load_model`.
        task: a task, its name, a path to pairs, a family, or several of these.
        vector: `"theta"` (Hendel et al., one per demonstration set, at every layer) or
            `"function"` (Todd et al. 2023, the sum of what chosen heads write, here one per
            prompt; it belongs to no layer, and its layer is given as -1).
        n_prompts: vectors per task, each from other demonstrations.
        n_shots: demonstrations per vector.
        seed: of every random draw.
        layers: of theta; all by default.
        heads: of function vectors; by default the `n_heads` with the largest AIE on each task,
            ranked on prompts that are drawn and written as these are.
        n_heads: how many, where no heads are given.
        output_bias: whether function vectors hold attention's output bias too, once per head, as
            in the paper's published code (see `function_vector`).
        top_k: tokens that are kept.
        average: over a task's vectors: `"log_probability"` of every token, or the `"vector"`
            itself, which is then read once.
        only_words: leave out tokens that are not letters only (but for a space before them).
            Probabilities remain among all tokens.
        naming: words that name tasks, in addition to `NAMING` (needed for tasks of your own).
        template: how a pair is written.
        leading_space: write words with a space before them; by default as the tokenizer likes.
        progress: show a progress bar.

    Raises:
        InputError: where a task, count, layer, head or name cannot work, or, for function
            vectors without `heads`, the model never answers right.
        ModelError: where the model returns numbers that are not finite.
    """
    check_model(model)
    tasks = load_tasks(task)
    n_prompts, n_shots = check_counts({"n_prompts": n_prompts, "n_shots": n_shots}, seed)
    check_vector(vector, n_shots, given=heads is not None)
    choose(average, AVERAGES, "average")
    model.vocabulary.check_count(top_k)
    chosen = _layers(model, vector, layers)
    if heads is not None:
        heads = check_heads(heads, model.n_layers, model.n_heads)
    elif not 0 < whole("n_heads", n_heads) <= model.n_layers * model.n_heads:
        most = model.n_layers * model.n_heads
        raise InputError(f"n_heads is {n_heads}; expected 1 to {most}, the model's heads")
    splits = [draw_split(t, n_prompts, 1, n_shots, N_DUMMIES, seed) for t in tasks]
    settings = _Settings(chosen, top_k, average, model.vocabulary.words() if only_words else None)
    names = naming_words(naming)

    def ranked(t: Task) -> list[Head]:
        """The heads with the largest AIE on a task."""
        found = head_attribution(
            model,
            t,
            n_prompts,
            n_shots,
            seed,
            n_clean=n_prompts,
            methods=("aie",),
            template=template,
            leading_space=leading_space,
            progress=False,
        )
        return [(layer, head) for layer, head, _ in found.top(t.name, n_heads)]

    parts: list[xr.Dataset] = []
    used: dict[str, list[Head]] = {}
    with progress_bar(len(tasks), "tasks", progress) as bar:
        for t, split in zip(tasks, splits, strict=True):
            bar.set_description(t.name)
            encoder = model.encoder(template, [pair.y for pair in t.pairs], leading_space)
            if vector == "theta":
                vectors = theta(dummy_residuals(model, encoder, split.test))[:, chosen]
            else:
                model.heads.mean_outputs(in_context(encoder, split.test[:1]))  # refused now
                used[t.name] = list(heads or ranked(t))
                vectors = _function_vectors(model, encoder, split, used[t.name], output_bias)
            words = Words.of(model, t, encoder, names)
            rng = generator(seed, t.name, "random vectors")
            part = _project(model, vectors, random_like(vectors, rng), words, settings)
            parts.append(part.assign(n_queries=split.n_test_queries))
            bar.update()
    data = over_tasks(parts, [t.name for t in tasks])
    provenance = {
        "method": "vector_lens (Hendel et al. 2023, arXiv 2310.15916), final norm applied",
        **model.provenance(),
        "vector": vector,
        "heads": {name: [list(head) for head in of] for name, of in used.items()} or None,
        "output_bias": ("once per head" if output_bias else "left out") if used else None,
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "n_dummies": N_DUMMIES,
        "seed": seed,
        "top_k": top_k,
        "average": average,
        "only_words": only_words,
        "naming": {t.name: sorted(names.get(t.name, ())) for t in tasks},
        "template": template,
        "leading_space": leading_space,
        "filters": _filters(settings.allowed),
    }
    return VectorLens(data, provenance)


@dataclass(frozen=True)
class _Settings:
    """How vectors are read.

    Attributes:
        layers: the coordinates of their layers.
        top_k: tokens kept.
        average: of `AVERAGES`.
        allowed: tokens that may be among the top ones; None for all.
    """

    layers: list[int]
    top_k: int
    average: str
    allowed: Bool[Tensor, "vocab"] | None


def _layers(model: HookedModel, vector: str, layers: Sequence[int] | None) -> list[int]:
    if vector == "function":
        if layers is not None:
            raise InputError("layers of a function vector, which belongs to none; expected None")
        return [NO_LAYER]
    return check_layers(layers, model.n_layers)


def _function_vectors(
    model: HookedModel, encoder: Encoder, split: Split, heads: Sequence[Head], output_bias: bool
) -> Float[Tensor, "prompt layer d_model"]:
    """A function vector from every prompt by itself, so that there is something to vary."""
    vectors = []
    for prompt in in_context(encoder, split.test):
        outputs, bias = model.heads.mean_outputs([prompt])
        vectors.append(function_vector(outputs, heads, bias if output_bias else None))
    return torch.stack(vectors)[:, None]


def _project(
    model: HookedModel,
    vectors: Float[Tensor, "prompt layer d_model"],
    random: Float[Tensor, "prompt layer d_model"],
    words: Words,
    s: _Settings,
) -> xr.Dataset:
    """One task: the average of its vectors, and every vector and random vector by itself."""

    def read(groups: Float[Tensor, "group row d_model"]) -> TopTokens:
        return model.vocabulary.top_tokens(groups, s.top_k, s.allowed)

    by_layer = vectors.transpose(0, 1)
    top = read(by_layer if s.average == "log_probability" else by_layer.mean(1, keepdim=True))
    each = torch.stack([vectors, random], dim=1)  # prompt vector layer d_model
    own = read(each.flatten(0, 2)[:, None])
    ids = own.ids.view(*each.shape[:3], s.top_k)
    nats = {"units": "nats"}
    return xr.Dataset(
        {
            "top": (("layer", "k"), top.ids.cpu().numpy()),
            "top_logprob": (("layer", "k"), top.logprob.cpu().numpy(), nats),
            "top_text": (("layer", "k"), texts(model, top.ids)),
            "top_kind": (("layer", "k"), kind_of(model, words, top.ids)),
            "average_count": (("layer", "among", "kind"), count(model, words, top.ids)),
            "count": (("prompt", "vector", "layer", "among", "kind"), count(model, words, ids)),
            "prompt_top": (("prompt", "vector", "layer", "k"), ids.cpu().numpy()),
            "norm": (("prompt", "layer"), as_array(vectors.norm(dim=-1))),
        },
        coords={
            "layer": np.array(s.layers),
            "vector": ["own", "random"],
            "among": among(s.top_k),
            "kind": list(KINDS),
        },
    )


def _filters(allowed: Any) -> str:
    if allowed is None:
        return "none: no token is left out of the top tokens"
    n = int(allowed.sum())
    return (
        f"only words: top tokens are among the {n} of {len(allowed)} that are letters only, but "
        "for a space before them; probabilities are among all tokens"
    )
