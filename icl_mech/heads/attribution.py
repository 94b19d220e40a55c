"""Which attention heads carry the task? Three methods, on the same prompts."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError, ModelError, choose
from icl_mech.heads.attention import ROLES, attention_by_role, induction_scores
from icl_mech.heads.attribution_result import METHODS, HeadAttribution
from icl_mech.heads.sampling import Drawn, Prompts, draw
from icl_mech.model import Edit, HookedModel, Readout, as_array, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, Prompt, check_counts
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks, load_tasks


def head_attribution(
    model: HookedModel,
    task: Tasks,
    n_prompts: int = 25,
    n_shots: int = 10,
    seed: int = 0,
    *,
    n_clean: int = 50,
    methods: str | Sequence[str] = METHODS,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> HeadAttribution:
    """What every head does for the answer, on prompts whose labels are shuffled.

    - `"aie"`: average indirect effect, exact (Todd et al. 2023, arXiv 2310.15213, section 2.3).
      At the last token of a few-shot prompt with shuffled labels, replace one head's output
      (`hook_z`) by its mean over clean prompts of the task; the change in the probability of the
      answer's first token, averaged over prompts.
    - `"attribution"`: attribution patching, its first-order estimate: (mean - own output) times
      the gradient of the probability. Same sign, same units, one backward pass.
    - `"direct"`: direct logit attribution: what the head's own output, as it is on the shuffled
      prompt, adds to the logit of the answer minus the mean logit of the other labels shown.

    Beside them, what the head attends to from the last token, by role, and its prefix-matching
    (induction) score on repeated random tokens. The clean prompts ask other queries than the
    shuffled ones, and neither are among the demonstrations.

    Args:
        model: from `load_model`.
        task: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: prompts with shuffled labels, per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_clean: clean prompts over which a head's output is averaged.
        methods: one or several of the three.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        progress: show a progress bar.

    Raises:
        InputError: where a task or count cannot work, the model never answers the clean prompts
            right (there is nothing to attribute), or its weights are quantised, which only
            `methods=["aie"]` can do with.
        ModelError: where the model returns numbers that are not finite, or where a method cannot
            work on its architecture (before anything longer is run; leave the method out).
    """
    check_model(model)
    tasks = load_tasks(task)
    counts = {"n_prompts": n_prompts, "n_shots": n_shots, "n_clean": n_clean}
    n_prompts, n_shots, n_clean = check_counts(counts, seed)
    methods = [methods] if isinstance(methods, str) else list(methods)
    for method in methods:
        choose(method, METHODS, "method")
    if not methods:
        raise InputError(f"no methods; expected at least one of {', '.join(METHODS)}")
    drawn = [
        draw(model, t, n_prompts, n_clean, n_shots, seed, template, leading_space) for t in tasks
    ]
    _refuse_methods(model, [d.test for d in drawn], methods)
    heads = model.n_layers * model.n_heads
    with progress_bar(n_prompts * heads * len(tasks), "heads", progress) as bar:
        right = answers_in_context(model, drawn)
        parts = []
        for d, clean in zip(drawn, right, strict=True):
            bar.set_description(d.task.name)
            parts.append(_attribute(model, d, clean, methods, bar))
    data = over_tasks(parts, [t.name for t in tasks])
    induction = induction_scores(model, seed)
    data["induction"] = (("layer", "head"), induction, {"units": "attention"})
    provenance = {
        "method": "head_attribution: AIE (Todd et al. 2023, arXiv 2310.15213)",
        **model.provenance(),
        "methods": list(methods),
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "n_clean": n_clean,
        "seed": seed,
        "template": template,
        "leading_space": leading_space,
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return HeadAttribution(data, provenance)


def _refuse_methods(model: HookedModel, drawn: Sequence[Prompts], methods: Sequence[str]) -> None:
    """Raise now, and not after the exact AIE, what another method will raise; on one prompt."""
    for method in methods:
        try:
            if method == "attribution":
                model.heads.refuse_no_gradients()
            elif method == "direct":
                rivals = [prompts.rivals for prompts in drawn]
                first = drawn[0]
                model.heads.direct_effects(first.shuffled[:1], first.answers[:1], rivals[0][:1])
        except (InputError, ModelError) as error:
            others = [m for m in methods if m != method]
            hint = f"leave out {method!r}: methods={others}" if others else "no other method asked"
            raise type(error)(f"method {method!r}: {error}; {hint}") from error


def _attribute(
    model: HookedModel, drawn: Drawn, right: Readout, methods: Sequence[str], bar: tqdm
) -> xr.Dataset:
    """One task: mean outputs from clean prompts, effects on prompts with shuffled labels."""
    test = drawn.test
    targets = test.targets
    before = _probability(model.predict(test.shuffled, targets))
    means = mean_heads(model, drawn.dev.clean)
    per_head = ("prompt", "layer", "head")
    found: dict[str, tuple] = {}
    if "aie" in methods:
        after = _probability(patch_heads(model, test.shuffled, means, targets, bar.update))
        effect = after.reshape(len(before), model.n_layers, model.n_heads)
        found["aie"] = (per_head, effect - before[:, None, None], {"units": "probability"})
    if "attribution" in methods:
        z, gradient = model.heads.gradients(test.shuffled, test.answers)
        estimate = ((means - z) * gradient).sum(dim=-1)
        found["attribution"] = (per_head, as_array(estimate), {"units": "probability"})
    if "direct" in methods:
        found |= _direct(model, test)
    attention = attention_by_role(model, test.shuffled)
    return xr.Dataset(
        {
            **found,
            "attention": ((*per_head, "role"), attention, {"units": "attention"}),
            "shuffled_probability": ("prompt", before, {"units": "probability"}),
            "clean_probability": ("prompt", _probability(right), {"units": "probability"}),
            "clean_right": ("prompt", right.right),
            "n_queries": ((), drawn.n_queries),
            "query": ("prompt", [e.query.x for e in test.episodes]),
            "answer": ("prompt", [e.query.y for e in test.episodes]),
        },
        coords={
            "layer": np.arange(model.n_layers),
            "head": np.arange(model.n_heads),
            "role": list(ROLES),
        },
    )


def _direct(model: HookedModel, test: Prompts) -> dict[str, tuple]:
    effects = model.heads.direct_effects(test.shuffled, test.answers, test.rivals)
    units = {"units": "logits"}
    return {
        "direct": (("prompt", "layer", "head"), as_array(effects.heads), units),
        "direct_mlp": (("prompt", "layer"), as_array(effects.mlps), units),
        "direct_rest": ("prompt", as_array(effects.rest), units),
        "logit_difference": ("prompt", as_array(effects.total), units),
    }


def mean_heads(model: HookedModel, prompts: Sequence[Prompt]) -> Float[Tensor, "layer head d_head"]:
    """Every head's mean output (`hook_z`) at the final arrow, in float32 at least."""
    z = model.capture(prompts, ["final_arrow"], site="z")[:, 0]
    return z.to(torch.promote_types(z.dtype, torch.float32)).mean(dim=0)


def patch_heads(
    model: HookedModel,
    prompts: Sequence[Prompt],
    means: Float[Tensor, "layer head d_head"],
    targets: Sequence[Sequence[int]],
    tick: Callable[[int], object],
) -> Readout:
    """Each head's output at the final arrow replaced by its mean: `[prompt, layer x head]`."""
    edits = [
        Edit(layer, means[layer, head], "z", "final_arrow", head=head)
        for layer in range(model.n_layers)
        for head in range(model.n_heads)
    ]
    return model.evaluate(prompts, edits, targets, tick)


def indirect_effects(
    model: HookedModel,
    clean: Sequence[Prompt],
    shuffled: Sequence[Prompt],
    answers: Sequence[int],
    tick: Callable[[int], object] = lambda n: None,
) -> Float[np.ndarray, "prompt layer head"]:
    """Change in each answer's probability when one head's output becomes its mean: exact.

    Args:
        model: from `load_model`.
        clean: few-shot prompts over which heads are averaged.
        shuffled: prompts with shuffled labels, in which they are replaced.
        answers: the first token of the right answer to each shuffled prompt.
        tick: called with the number of (prompt, head) cells just finished.
    """
    check_model(model)
    targets = [[token] for token in answers]
    before = _probability(model.predict(shuffled, targets))
    after = _probability(patch_heads(model, shuffled, mean_heads(model, clean), targets, tick))
    effect: np.ndarray = after - before[:, None]
    return effect.reshape(len(before), model.n_layers, model.n_heads)


def average_indirect_effects(
    model: HookedModel, prompts: Prompts, tick: Callable[[int], object]
) -> Float[np.ndarray, "layer head"]:
    """AIE of every head, means and effects from the same prompts (to choose heads by)."""
    effects = indirect_effects(model, prompts.clean, prompts.shuffled, prompts.answers, tick)
    return effects.mean(axis=0)


def answers_in_context(model: HookedModel, drawn: Sequence[Drawn]) -> list[Readout]:
    """What the model says to every task's clean test prompts, before anything longer is run.

    Raises:
        InputError: where it answers no prompt of a task right.
    """
    found = []
    for d in drawn:
        readout = model.predict(d.test.clean, d.test.targets)
        if not readout.right.any():
            raise InputError(
                f"task {d.task.name!r}: the model answers none of {len(readout.top)} few-shot "
                "prompts right, so there is nothing to attribute; expected a task that it can do "
                "in context"
            )
        found.append(readout)
    return found


def _probability(readout: Readout) -> Float[np.ndarray, "prompt *rest"]:
    return as_array(readout.logprob[..., 0].exp())
