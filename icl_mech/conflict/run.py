"""Few-shot prompts of one task with the vector of another (Hendel et al. 2023, section 5.1)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float
from tqdm.auto import tqdm

from icl_mech.conflict.following import Tokens, follow
from icl_mech.conflict.pairs import Pairs
from icl_mech.conflict.plan import (
    ConflictPlan,
    ConflictSettings,
    Undefined,
    first_reason,
    pair_name,
    plan,
    why,
)
from icl_mech.conflict.result import CONDITIONS, ConflictingTasks
from icl_mech.conflict.sampling import ConflictEpisodes, ConflictUndefined, Differ
from icl_mech.errors import InputError
from icl_mech.model import HookedModel, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    accepted,
    generator,
    in_context,
    zero_shot,
)
from icl_mech.tasks import Pair, Tasks
from icl_mech.vectors import (
    answer_logprob,
    choose_layer,
    dummy_residuals,
    inject,
    overwrite,
    random_like,
    theta,
)


def conflicting_tasks(
    model: HookedModel,
    tasks: Pairs | Tasks | None = None,
    n_prompts: int = 50,
    n_shots: int = 4,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> ConflictingTasks:
    """Inject the vector of one task into few-shot prompts of another: which one is answered?

    Hendel et al. 2023 (arXiv 2310.15916), section 5.1: the prompt shows task A and asks a query
    that A and B answer differently; the residual stream at its last token is overwritten, after
    one block, by theta of B. An answer that begins like A's follows the prompt, one that begins
    like B's the vector. The block is the one where theta of B, injected into zero-shot prompts of
    B, gives the best accuracy on dev prompts (other queries, other vectors; see
    `vectors.choose_layer`). Beside it, on the same queries: no vector (*regular*), theta of A
    from other demonstrations (*own*), a random vector of the norm of B's (*random*), and theta of
    B in the zero-shot prompt (*zero_shot*). No query is ever shown.

    Args:
        model: from `load_model`.
        tasks: pairs (A, B) of tasks or their names; or a family or several tasks, which
            means all ordered pairs, of which those without a conflict are left out with the
            reason (see `ConflictingTasks.undefined`); or nothing: the five pairs of the paper.
        n_prompts: prompts per pair; queries return with other demonstrations where there are
            fewer (intervals are over queries).
        n_shots: demonstrations per prompt and per vector.
        seed: of every random draw.
        n_dev: dev prompts per pair; half of `n_prompts` by default.
        n_dummies: dummy queries per vector.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: where a task or count cannot work, or a pair that was asked for by name (or
            every pair) has no conflict: no shared input, the same answers, or too few pairs.
        ModelError: where the model returns numbers that are not finite.

    Example:
        >>> pair = ("to_upper", "next_letter")
        >>> found = icl_mech.conflicting_tasks(model, [pair], 4, 2, progress=False)
        >>> found.pairs
        ['to_upper:next_letter']
    """
    check_model(model)
    settings = ConflictSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_dev=n_dev,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    return measure(model, plan(tasks, settings), progress)


def measure(model: HookedModel, plan: ConflictPlan, progress: bool = True) -> ConflictingTasks:
    """Run a plan: what `conflicting_tasks` does after it has found the pairs.

    Raises:
        InputError: where the answers of a pair begin with the same tokens.
        ModelError: where the model returns numbers that are not finite.
    """
    s, undefined = plan.settings, dict(plan.undefined)
    drawn = _draw(model, plan, undefined)
    per_pair = s.dev * (s.n_dummies + model.n_layers) + s.n_prompts * (2 * s.n_dummies + 5)
    with progress_bar(per_pair * len(drawn), "runs", progress) as bar:
        parts = [_measure(model, pair, encoder, s.seed, bar) for pair, encoder in drawn]
    names = [pair_name(pair.prompt_task, pair.injected_task) for pair, _ in drawn]
    data = xr.concat(parts, dim=xr.DataArray(names, dims="pair", name="pair"))
    return ConflictingTasks(data, _provenance(model, drawn, undefined, plan))


def _draw(
    model: HookedModel, plan: ConflictPlan, undefined: Undefined
) -> list[tuple[ConflictEpisodes, Encoder]]:
    """The episodes of every pair whose answers the model's tokenizer tells apart.

    Args:
        model: from `load_model`.
        plan: the pairs.
        undefined: pairs that have no conflict after all are added to it.

    Raises:
        InputError: where that is a pair which was asked for by name, or no pair is left.
    """
    s, found = plan.settings, []
    for a, b in plan.pairs:
        # One encoder for both tasks: only answers may tell their prompts apart.
        words = [pair.y for task in (a, b) for pair in task.pairs]
        encoder = model.encoder(s.template, words, s.leading_space)
        try:
            found.append((s.between(a, b, _begin_differently(encoder)), encoder))
        except ConflictUndefined as error:
            if not plan.matrix:
                raise
            undefined[pair_name(a, b)] = why(a, b, error)
    if not found:
        raise InputError(f"no pair is left: {first_reason(undefined)}")
    return found


def _begin_differently(encoder: Encoder) -> Differ:
    """Whether the first tokens of two tasks' answers differ, after the input alone."""

    def differ(first: Pair, second: Pair) -> bool:
        prompt = encoder.encode((), first.x)
        ids = [encoder.first_tokens(prompt, pair.answers) for pair in (first, second)]
        return set(ids[0]).isdisjoint(ids[1])

    return differ


def _measure(
    model: HookedModel, drawn: ConflictEpisodes, encoder: Encoder, seed: int, bar: tqdm
) -> xr.Dataset:
    """One pair: choose the layer, inject, and see whose answer comes."""
    a, b = drawn.prompt_task.name, drawn.injected_task.name
    bar.set_description(f"{a} with θ of {b}")
    dev_right, dev_logprob = _on_dev(model, drawn, encoder, bar)
    dev_query = np.array([e.query.x for e in drawn.dev])
    choice = choose_layer(dev_right, dev_logprob, dev_query)
    layer = choice.at
    of_b = theta(dummy_residuals(model, encoder, drawn.injected, bar.update))[:, layer]
    vectors = {
        "injected": of_b,
        "own": theta(dummy_residuals(model, encoder, drawn.own, bar.update))[:, layer],
        "random": random_like(of_b, generator(seed, a, b, "random")),
    }
    few = in_context(encoder, drawn.prompts)
    zero = zero_shot(encoder, drawn.prompts)
    tokens, alone = Tokens.of(encoder, few, drawn), Tokens.of(encoder, zero, drawn)
    edits = [None, *(overwrite(layer, vector) for vector in vectors.values())]
    edited = model.evaluate(few, edits, tokens.both, bar.update)
    unaided = model.evaluate(zero, [overwrite(layer, of_b)], alone.both, bar.update)
    read = {
        **{c: follow(edited.column(i), tokens) for i, c in enumerate(("regular", *vectors))},
        "zero_shot": follow(unaided.column(0), alone),
    }
    stacked = {name: np.stack([read[c][name] for c in CONDITIONS]) for name in read["regular"]}
    units = {"units": "nats"}
    return xr.Dataset(
        {
            **{
                name: (("condition", "prompt"), values, units if "logprob" in name else {})
                for name, values in stacked.items()
            },
            "dev_right": (("dev_prompt", "layer"), dev_right),
            "dev_logprob": (("dev_prompt", "layer"), dev_logprob, units),
            "chosen_layer": ((), layer),
            "rises": ((), choice.rises),
            "dev_query": ("dev_prompt", dev_query),
            "query": ("prompt", [e.query.x for e in drawn.prompts]),
            "prompt_answer": ("prompt", [e.query.y for e in drawn.prompts]),
            "injected_answer": ("prompt", [e.query.y for e in drawn.injected]),
            "prompt_task": ((), a),
            "injected_task": ((), b),
        },
        coords={"condition": list(CONDITIONS), "layer": np.arange(model.n_layers)},
    )


def _on_dev(
    model: HookedModel, drawn: ConflictEpisodes, encoder: Encoder, bar: tqdm
) -> tuple[Bool[np.ndarray, "dev_prompt layer"], Float[np.ndarray, "dev_prompt layer"]]:
    """Whether zero-shot prompts of B with theta of B are answered right, at every layer, and the
    log probability of the answer."""
    zero = zero_shot(encoder, drawn.dev)
    answers = accepted(encoder, zero, drawn.dev).first_tokens
    vectors = theta(dummy_residuals(model, encoder, drawn.dev, bar.update))
    read = inject(model, zero, vectors[:, None], answers, bar.update)
    return read.right[:, 0], answer_logprob(read)[:, 0]


def _provenance(
    model: HookedModel,
    drawn: Sequence[tuple[ConflictEpisodes, Encoder]],
    undefined: Undefined,
    plan: ConflictPlan,
) -> dict:
    return {
        "method": "conflicting_tasks (Hendel et al. 2023, arXiv 2310.15916, section 5.1)",
        **model.provenance(),
        **plan.settings.recorded(),
        "score": "first token of an accepted answer",
        "matrix": plan.matrix,
        "tasks": list(plan.asked),
        "pairs": {
            pair_name(pair.prompt_task, pair.injected_task): {
                "n_queries": pair.n_queries,
                "n_dev_queries": pair.n_dev_queries,
                "n_shared_inputs": pair.n_shared,
                "n_same_answer": pair.n_agreed,
                "n_same_first_token": pair.n_left_out,
                "leading_space": encoder.template.leading_space,
            }
            for pair, encoder in drawn
        },
        "undefined": undefined,
        "filters": (
            "inputs that both tasks answer alike are neither asked nor shown (n_same_answer); "
            "those whose answers begin with the same token are not asked (n_same_first_token)"
        ),
    }
