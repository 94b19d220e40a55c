"""The logit lens: reads the residual stream after every layer as if it were the last."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError
from icl_mech.lens.plan import LensPlan, LensSettings, plan_lens
from icl_mech.lens.result import LogitLens
from icl_mech.lens.targets import TARGETS, Asked, Columns
from icl_mech.lens.text import is_text
from icl_mech.model import HookedModel, Readout, check_model
from icl_mech.one_prompt import PromptLens, prompt_lens
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, Prompt
from icl_mech.results import over_tasks
from icl_mech.tasks import Task, Tasks

Translator = Callable[[int, Tensor], Tensor]
#: Residual vectors that are read together.
ROWS = 512


def logit_lens(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 25,
    n_shots: int = 5,
    seed: int = 0,
    *,
    roles: str | Sequence[str] = ("final_arrow",),
    top_k: int = 5,
    other_task: Task | str | None = None,
    translator: Translator | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> LogitLens | PromptLens:
    """Read the residual stream of few-shot prompts, after every layer, as if it were the last.

    If `tasks` is a text instead of a task, this reads that one prompt after each of its tokens and
    returns the result of `prompt_lens`, which also takes a vector and a target token.

    The logit lens (nostalgebraist 2020) applies the model's own final norm, unembedding and soft
    cap to the embedding stream (layer -1) and to the output of every block. After the last block
    this gives the model's own prediction. The lens looks for these targets, each as the first token
    of a word that follows the prompt (the most probable one if a target has several first tokens):

    - `"answer"`: the accepted answers to the query;
    - `"query"`: the query itself, as if it were copied;
    - `"prior"`: the most frequent answer of the task among the pairs that are not asked;
    - `"other"`: the answer of another task to the same query.

    A rival that begins with the token of a right answer is left out of that prompt (NaN, and rank
    -1). So is `"other"` if the other task does not have the query among its inputs.

    TransformerLens's `logit_readout` reads one target per row, or the top tokens, in one pass over
    whole rows of logits. Here several targets per row and the top tokens come from one pass in
    chunks, through the same modules (`model.read`); the tests compare the two.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these; or a text. A
            string is a text if it contains a space or the template's arrow, unless it is a
            misspelt name of a task. For a text, only `top_k` of the settings is used.
        n_prompts: prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        roles: the tokens to read (the last of each role): `"final_arrow"`, `"query"`,
            `"demo_0_arrow"`, ..., or `"all"`; the targets are the same at all of them.
        top_k: number of most probable tokens that are kept.
        other_task: the task whose answers are rivals; by default the built-in task that shares the
            most inputs, if at least half (en_es for en_fr, present_past for present_gerund).
        translator: a tuned lens (Belrose et al. 2023, arXiv 2303.08112): a function of a layer
            and residual vectors `[row, d_model]` that returns the vectors to read instead. With
            the `tuned_lens` package, whose index 0 is the embedding and which translates nothing
            after the last block:
            `lambda layer, h: h if layer == model.n_layers - 1 else tuned.transform_hidden(h,
            layer + 1)`.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, count or role cannot work, a text is longer than the model's
            context, or the translator returns another shape.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> lens = icl_mech.logit_lens(
        ...     model, "country_capital", n_prompts=4, n_shots=2, progress=False
        ... )
        >>> lens.layers[0], lens.layers[-1], lens.data["rank"].dims
        (-1, 17, ('task', 'prompt', 'role', 'layer', 'target'))
        >>> icl_mech.logit_lens(model, "The capital of France is").texts[-1]
        ' is'
    """
    check_model(model)
    if isinstance(tasks, str) and is_text(tasks, template):
        if translator is not None:
            raise InputError("a translator with a text; expected a task, or no translator")
        return prompt_lens(model, tasks, top_k=top_k)
    settings = LensSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        roles=(roles,) if isinstance(roles, str) else tuple(roles),
        top_k=top_k,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_lens(model, plan_lens(tasks, settings, other_task), progress, translator)


def measure_lens(
    model: HookedModel,
    plan: LensPlan,
    progress: bool = True,
    translator: Translator | None = None,
) -> LogitLens:
    """Run a plan of `plan_lens`: what `logit_lens` does after the prompts are drawn.

    Raises:
        InputError: as `logit_lens`.
        ModelError: as `logit_lens`.
    """
    s = plan.settings
    model.vocabulary.check_count(s.top_k)
    asked = []
    for of in plan.tasks:
        words = [pair.y for pair in of.task.pairs]
        asked.append(Asked.of(model.encoder(s.template, words, s.leading_space), of))
    with progress_bar(s.n_prompts * len(asked), "prompts", progress) as bar:
        parts = []
        for a in asked:
            bar.set_description(a.plan.task.name)
            parts.append(_look(model, a, s.roles, s.top_k, translator, bar))
    data = over_tasks(parts, [of.task.name for of in plan.tasks])
    return LogitLens(
        data,
        {
            "method": "logit_lens (nostalgebraist 2020), final norm applied",
            **model.provenance(),
            **s.recorded(),
            "sink_token": model.to_string(asked[0].encoder.sink),
            "translator": None if translator is None else _name(translator),
            "tasks": {a.plan.task.name: _about(a) for a in asked},
            "filters": "none: every prompt counts, also those that the model answers wrong; no "
            "token is left out of the top tokens",
        },
    )


def _about(asked: Asked) -> dict[str, Any]:
    """The provenance entry of a task."""
    of = asked.plan
    return {
        "category": of.task.category,
        "n_pairs": len(of.task),
        "n_queries": of.split.n_test_queries,
        "other_task": None if of.other is None else of.other.name,
        "leading_space": asked.encoder.template.leading_space,
    }


def _look(
    model: HookedModel,
    asked: Asked,
    roles: Sequence[str],
    top_k: int,
    translator: Translator | None,
    bar: tqdm,
) -> xr.Dataset:
    """One task: every prompt, role and layer."""
    columns = Columns.of(asked.tokens)
    stages = model.n_layers + 1
    step = max(1, ROWS // (stages * len(roles)))
    parts = []
    for i in range(0, len(asked.prompts), step):
        prompts = asked.prompts[i : i + step]
        targets = np.repeat(columns.ids[i : i + step], stages * len(roles), axis=0)
        readout = _read(model, prompts, roles, targets.tolist(), top_k, translator)
        parts.append(readout.reshape(len(prompts), len(roles), stages))
        bar.update(len(prompts))
    readout = Readout.cat(parts)
    assert readout.best is not None
    assert readout.best_logprob is not None
    logprob, rank = columns.reduce(readout.logprob.cpu().numpy(), readout.rank.cpu().numpy())
    cell = ("prompt", "role", "layer")
    nats = {"units": "nats"}
    return xr.Dataset(
        {
            # Rounding may lift a probability slightly above 1.
            "logprob": ((*cell, "target"), logprob.clip(max=0), nats),
            "rank": ((*cell, "target"), rank),
            "top": ((*cell, "k"), readout.best.cpu().numpy()),
            "top_logprob": ((*cell, "k"), readout.best_logprob.clamp_max(0).cpu().numpy(), nats),
            "top_text": ((*cell, "k"), texts(model, readout.best)),
            **asked.arrays(),
        },
        coords={
            "role": list(roles),
            "layer": np.arange(-1, model.n_layers),
            "target": list(TARGETS),
        },
    )


def _read(
    model: HookedModel,
    prompts: Sequence[Prompt],
    roles: Sequence[str],
    targets: list[list[int]],
    top_k: int,
    translator: Translator | None,
) -> Readout:
    """Every (prompt, role, layer) as a row, in that order."""
    stream = model.residual_stream(prompts, roles)
    if translator is not None:
        layers = range(-1, model.n_layers)
        stages = [_translated(translator, x, stream[:, :, x + 1]) for x in layers]
        stream = torch.stack(stages, dim=2)
    return model.read(stream.flatten(0, 2), targets, top_k)


def _translated(
    translator: Translator, layer: int, resid: Float[Tensor, "prompt role d_model"]
) -> Float[Tensor, "prompt role d_model"]:
    rows = resid.flatten(0, 1)
    with torch.no_grad():
        found: Any = translator(layer, rows)
    if not isinstance(found, Tensor) or found.shape != rows.shape:
        what = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise InputError(
            f"the translator returned {what} at layer {layer}; expected a tensor of the shape that "
            f"it was given, {list(rows.shape)}"
        )
    return found.to(rows).view_as(resid)


def texts(model: HookedModel, ids: Tensor) -> np.ndarray:
    """Token texts written as in source code (a line break is a backslash and an n)."""
    every = ids.cpu().numpy()
    known, index = np.unique(every, return_inverse=True)
    names = np.array([repr(model.to_string(token))[1:-1] for token in known.tolist()])
    return names[index].reshape(every.shape)


def _name(translator: Translator) -> str:
    return str(getattr(translator, "__qualname__", type(translator).__qualname__))
