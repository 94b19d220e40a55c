"""Task vectors read through the unembedding: do their top tokens name the task?"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.heads import head_attribution
from icl_mech.layers import check_layers
from icl_mech.lens.counting import KINDS, Words, among, count, kind_of
from icl_mech.lens.plan import (
    N_HEADS,
    Average,
    Vector,
    VectorLensPlan,
    VectorLensSettings,
    plan_vectors,
)
from icl_mech.lens.run import texts
from icl_mech.lens.vectors_result import VectorLens
from icl_mech.model import HookedModel, TopTokens, as_array, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES, Encoder, Split, generator, in_context
from icl_mech.results import over_tasks
from icl_mech.tasks import Task, Tasks
from icl_mech.vectors import check_heads, dummy_residuals, function_vector, random_like, theta

#: The "layer" of a function vector, which belongs to none.
NO_LAYER = -1


def vector_lens(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 25,
    n_shots: int = 5,
    seed: int = 0,
    *,
    vector: Vector = "theta",
    layers: Sequence[int] | None = None,
    heads: Sequence[tuple[int, int]] | None = None,
    n_heads: int | None = None,
    output_bias: bool = False,
    top_k: int = 20,
    average: Average = "log_probability",
    only_words: bool = False,
    naming: Mapping[str, Sequence[str]] | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> VectorLens:
    """Read task vectors through the final norm and the unembedding, and count what they say.

    Hendel et al. 2023 (arXiv 2310.15916, appendix on the vocabulary) show that the top tokens of
    theta name the task. Here this is counted: of the top 10 and 20 tokens, how many are words
    that name the task (`NAMING`, written by hand), first tokens of its answers, and first tokens
    of its inputs. There are two controls: words that name *other* tasks in the same lists (mean
    over these tasks), and the same counts for random vectors of the same norm. The final norm is
    always applied, and no token is left out unless `only_words` is set; the result records both.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: vectors per task, each from other demonstrations.
        n_shots: demonstrations per vector.
        seed: of every random draw.
        vector: `"theta"` (Hendel et al., one per demonstration set, at every layer) or
            `"function"` (Todd et al. 2023, the sum of what chosen heads write, here one per
            prompt; it belongs to no layer, and its layer is given as -1).
        layers: of theta, as block numbers from 0; all by default.
        heads: of function vectors, (layer, head)s; by default the `n_heads` with the largest AIE
            on each task, ranked on prompts that are drawn and written as these are.
        n_heads: how many heads a function vector sums; 10 by default.
        output_bias: whether function vectors hold attention's output bias too, once per head, as
            in the paper's published code (see `function_vector`).
        top_k: tokens that are kept.
        average: over a task's vectors: `"log_probability"` of every token, or the `"vector"`
            itself, which is then read once.
        only_words: leave out tokens that are not letters only (but for a space before them).
            Probabilities remain among all tokens.
        naming: words that name tasks, in addition to `NAMING` (needed for tasks of your own).
        n_dummies: dummy queries per demonstration set, over which theta is averaged.
        template: how a pair is written.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: where a task, count, layer, head or name cannot work, an argument belongs to
            the other kind of vector, or, for function vectors without `heads`, the model never
            answers right.
        ModelError: where the model returns numbers that are not finite.

    Example:
        >>> lens = icl_mech.vector_lens(
        ...     model, "country_capital", n_prompts=4, n_shots=2, layers=[9, -1], progress=False
        ... )
        >>> lens.layers, len(lens.top("country_capital", 9))
        ([9, 17], 10)
    """
    check_model(model)
    settings = VectorLensSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        vector=vector,
        layers=None if layers is None else tuple(check_layers(layers, model.n_layers)),
        n_heads=n_heads,
        output_bias=output_bias,
        top_k=top_k,
        average=average,
        only_words=only_words,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_vectors(model, plan_vectors(tasks, settings, heads, naming), progress)


def measure_vectors(model: HookedModel, plan: VectorLensPlan, progress: bool = True) -> VectorLens:
    """Run a plan of `plan_vectors`: what `vector_lens` does after the prompts are drawn.

    Raises:
        InputError: as `vector_lens`.
        ModelError: as `vector_lens`.
    """
    s = plan.settings
    model.vocabulary.check_count(s.top_k)
    if s.vector == "function":
        model.check_site("z")
    heads = _heads(model, plan)
    layers = [NO_LAYER] if s.vector == "function" else check_layers(s.layers, model.n_layers)
    allowed = model.vocabulary.words() if s.only_words else None
    parts: list[xr.Dataset] = []
    used: dict[str, list[tuple[int, int]]] = {}
    with progress_bar(len(plan.tasks), "tasks", progress) as bar:
        for task, split in plan.tasks:
            bar.set_description(task.name)
            words = [pair.y for pair in task.pairs]
            encoder = model.encoder(s.template, words, s.leading_space)
            if s.vector == "theta":
                vectors = theta(dummy_residuals(model, encoder, split.test))[:, layers]
            else:
                model.heads.mean_outputs(in_context(encoder, split.test[:1]))  # refused now
                used[task.name] = heads or _ranked(model, task, s)
                vectors = _function_vectors(model, encoder, split, used[task.name], s.output_bias)
            rng = generator(s.seed, task.name, "random vectors")
            random = random_like(vectors, rng)
            known = Words.of(model, task, encoder, plan.naming)
            part = _project(model, vectors, random, known, layers, allowed, s)
            parts.append(part.assign(n_queries=split.n_test_queries))
            bar.update()
    names = [task.name for task, _ in plan.tasks]
    provenance = {
        "method": "vector_lens (Hendel et al. 2023, arXiv 2310.15916), final norm applied",
        **model.provenance(),
        **s.recorded(),
        "layers": layers,
        "n_heads": len(next(iter(used.values()))) if used else None,
        "heads": {name: [list(head) for head in of] for name, of in used.items()} or None,
        "output_bias": ("once per head" if s.output_bias else "left out") if used else None,
        "naming": {name: sorted(plan.naming.get(name, ())) for name in names},
        "filters": _filters(allowed),
    }
    return VectorLens(over_tasks(parts, names), provenance)


def _heads(model: HookedModel, plan: VectorLensPlan) -> list[tuple[int, int]]:
    """The heads of function vectors that the caller gave; none where they are to be ranked."""
    if plan.heads is not None:
        heads = check_heads(plan.heads, model.n_layers, model.n_heads)
        if plan.settings.vector == "theta":
            raise InputError("heads are for function vectors; expected vector='function'")
        return heads
    most = model.n_layers * model.n_heads
    if plan.settings.vector == "function" and (plan.settings.n_heads or N_HEADS) > most:
        raise InputError(
            f"n_heads is {plan.settings.n_heads or N_HEADS}; expected 1 to {most}, the model's "
            "heads"
        )
    return []


def _ranked(model: HookedModel, task: Task, s: VectorLensSettings) -> list[tuple[int, int]]:
    """The heads with the largest AIE on a task."""
    found = head_attribution(
        model,
        task,
        s.n_prompts,
        s.n_shots,
        s.seed,
        n_clean=s.n_prompts,
        methods=("aie",),
        template=s.template,
        instruction=s.instruction,
        leading_space=s.leading_space,
        progress=False,
    )
    return [(layer, head) for layer, head, _ in found.top(task.name, s.n_heads or N_HEADS)]


def _function_vectors(
    model: HookedModel,
    encoder: Encoder,
    split: Split,
    heads: Sequence[tuple[int, int]],
    output_bias: bool,
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
    layers: Sequence[int],
    allowed: Bool[Tensor, "vocab"] | None,
    s: VectorLensSettings,
) -> xr.Dataset:
    """One task: the average of its vectors, and every vector and random vector by itself."""

    def read(groups: Float[Tensor, "group row d_model"]) -> TopTokens:
        return model.vocabulary.top_tokens(groups, s.top_k, allowed)

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
            "layer": np.array(layers),
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
