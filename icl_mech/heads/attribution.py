"""Which attention heads carry the task? Three methods, on the same prompts."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import InputError, ModelError
from icl_mech.heads.attention import ROLES, attention_by_role, induction_scores
from icl_mech.heads.attribution_result import HeadAttribution
from icl_mech.heads.plan import (
    METHODS,
    AttributionSettings,
    HeadsPlan,
    plan_heads,
    several_methods,
)
from icl_mech.heads.prompts import Prompts, TaskPrompts, encode
from icl_mech.model import Edit, HookedModel, Readout, as_array, check_model
from icl_mech.progress import Tick, progress_bar, silent
from icl_mech.prompts import DEFAULT_TEMPLATE, Prompt
from icl_mech.results import over_tasks
from icl_mech.tasks import Tasks

#: What provenance says of prompts that were left out.
NO_FILTERS = "none: every prompt counts, also those that the model answers wrong"


def head_attribution(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 25,
    n_shots: int = 10,
    seed: int = 0,
    *,
    n_clean: int = 50,
    methods: str | Sequence[str] = METHODS,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> HeadAttribution:
    """Measure the effect of every head on the answer, in prompts with shuffled labels.

    - `"aie"`: average indirect effect, exact (Todd et al. 2023, arXiv 2310.15213, section 2.3).
      At the last token of a few-shot prompt with shuffled labels, replace one head's output
      (`hook_z`) by its mean over clean prompts of the task; the effect is the change in the
      probability of the answer's first token, averaged over prompts.
    - `"attribution"`: attribution patching, the first-order estimate of this: (mean - own output)
      times the gradient of the probability. It has the same sign and unit, and takes one backward
      pass.
    - `"direct"`: direct logit attribution: the contribution of the head's own output on the
      shuffled prompt to the logit of the answer minus the mean logit of the other labels shown.

    The result also holds the attention of the last token to each role, and each head's
    prefix-matching (induction) score on repeated random tokens. The clean prompts ask other
    queries than the shuffled ones, and no demonstration shows a query of either.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: prompts with shuffled labels, per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_clean: prompts with right labels over which a head's output is averaged.
        methods: one or several of the three.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task or count cannot work, the model answers none of a task's few-shot
            prompts right (there is nothing to attribute), or its weights are quantised, which
            `"attribution"` does not allow.
        ModelError: if the model returns numbers that are not finite, or a method cannot work on
            its architecture (raised before the long runs; leave the method out then).

    Example:
        >>> heads = icl_mech.head_attribution(
        ...     model, "country_capital", n_prompts=2, n_shots=4, n_clean=2, methods="direct",
        ...     progress=False,
        ... )
        >>> heads.data["direct"].sizes["layer"], heads.data["direct"].sizes["head"]
        (18, 4)
    """
    check_model(model)
    settings = AttributionSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_clean=n_clean,
        methods=several_methods(methods),
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure_attribution(model, plan_heads(tasks, settings), progress)


def measure_attribution(
    model: HookedModel, plan: HeadsPlan[AttributionSettings], progress: bool = True
) -> HeadAttribution:
    """Run a plan of `plan_heads`: what `head_attribution` does after the prompts are drawn.

    Raises:
        InputError: as `head_attribution`.
        ModelError: as `head_attribution`.
    """
    model.check_site("z")
    s = plan.settings
    encoded = encode(model, plan)
    _refuse_methods(model, [e.test for e in encoded], s.methods)
    heads = model.n_layers * model.n_heads
    with progress_bar(s.n_prompts * heads * len(encoded), "heads", progress) as bar:
        in_context = answers_in_context(model, encoded)
        parts = []
        for of, clean in zip(encoded, in_context, strict=True):
            bar.set_description(of.plan.task.name)
            parts.append(_attribute(model, of, clean, s.methods, bar))
    data = over_tasks(parts, [of.task.name for of in plan.tasks])
    induction = induction_scores(model, s.seed)
    data["induction"] = (("layer", "head"), induction, {"units": "attention"})
    provenance = {
        "method": "head_attribution: AIE (Todd et al. 2023, arXiv 2310.15213)",
        **model.provenance(),
        **s.recorded(),
        "filters": NO_FILTERS,
    }
    return HeadAttribution(data, provenance)


def _refuse_methods(model: HookedModel, drawn: Sequence[Prompts], methods: Sequence[str]) -> None:
    """Refuse gradient and direct methods that cannot work, before the exact AIE is run."""
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
    model: HookedModel, of: TaskPrompts, right: Readout, methods: Sequence[str], bar: tqdm
) -> xr.Dataset:
    """One task: mean outputs from clean prompts, effects on prompts with shuffled labels."""
    test = of.test
    targets = test.targets
    before = _probability(model.predict(test.shuffled, targets))
    means = mean_heads(model, of.dev.clean)
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
            **of.asked(),
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
    tick: Tick,
) -> Readout:
    """Runs with one head's output at the final arrow replaced: `[prompt, layer x head]`."""
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
    tick: Tick = silent,
) -> Float[np.ndarray, "prompt layer head"]:
    """Change in each answer's probability when one head's output becomes its mean: exact.

    Args:
        model: from `load_model`.
        clean: few-shot prompts over which head outputs are averaged.
        shuffled: prompts with shuffled labels, in which head outputs are replaced.
        answers: the first token of the right answer to each shuffled prompt.
        tick: called with the number of (prompt, head) cells just finished.

    Raises:
        InputError: if a prompt or an answer cannot be used.

    Example:
        >>> from icl_mech.heads import indirect_effects
        >>> from icl_mech.tasks import Pair
        >>> encoder = model.encoder("{x}->{y}", ["b", "d"])
        >>> a, b = Pair("a", ("b",)), Pair("c", ("d",))
        >>> clean, other = encoder.encode([a], "c"), encoder.encode([b], "a")
        >>> indirect_effects(model, [clean], [other], encoder.first_tokens(other, ["b"])).shape
        (1, 18, 4)
    """
    check_model(model)
    targets = [[token] for token in answers]
    before = _probability(model.predict(shuffled, targets))
    after = _probability(patch_heads(model, shuffled, mean_heads(model, clean), targets, tick))
    effect: np.ndarray = after - before[:, None]
    return effect.reshape(len(before), model.n_layers, model.n_heads)


def answers_in_context(model: HookedModel, encoded: Sequence[TaskPrompts]) -> list[Readout]:
    """The model's answers to the clean test prompts of every task.

    Raises:
        InputError: if it answers no prompt of a task right.
    """
    found = []
    for of in encoded:
        readout = model.predict(of.test.clean, of.test.targets)
        if not readout.right.any():
            raise InputError(
                f"task {of.plan.task.name!r}: the model answers none of {len(readout.top)} "
                "few-shot prompts right, so there is nothing to attribute; expected a task that it "
                "can do in context"
            )
        found.append(readout)
    return found


def _probability(readout: Readout) -> Float[np.ndarray, "prompt *rest"]:
    return as_array(readout.logprob[..., 0].exp())
