"""Few-shot prompts of one task with the vector of another (Hendel et al. 2023, section 5.1)."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Shaped
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.conflict.plan import (
    ConflictPlan,
    ConflictSettings,
    Pairs,
    Undefined,
    first_reason,
    pair_name,
    plan,
    why_undefined,
)
from icl_mech.conflict.result import CONDITIONS, ConflictingTasks
from icl_mech.conflict.sampling import ConflictEpisodes, ConflictUndefined
from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel, as_array, check_model
from icl_mech.progress import Tick, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Encoder,
    Episode,
    Prompt,
    accepted,
    generator,
    in_context,
    zero_shot,
)
from icl_mech.tasks import Pair, Tasks
from icl_mech.token_texts import token_texts
from icl_mech.vectors import (
    choose_layer,
    dummy_residuals,
    overwrite,
    random_like,
    scores_by_layer,
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
    """Inject the vector of one task into few-shot prompts of another: which task is answered?

    Hendel et al. 2023 (arXiv 2310.15916), section 5.1. The prompt shows task A and asks a query
    that A and B answer differently. After one block, the residual stream at the last token is
    overwritten by theta of B. An answer that begins like A's follows the prompt; one that begins
    like B's follows the vector. No query is ever shown.

    The block is the one where theta of B, injected into zero-shot prompts of B, gives the best
    accuracy on dev prompts (other queries, other vectors; see `vectors.choose_layer`). Controls on
    the same queries: no vector (*regular*), theta of A from other demonstrations (*own*), a random
    vector of the norm of B's (*random*), and theta of B in the zero-shot prompt (*zero_shot*).

    Args:
        model: from `load_model`.
        tasks: pairs (A, B) of tasks or their names; or a family or several tasks, which means all
            ordered pairs, without those that have no conflict (see `ConflictingTasks.undefined`);
            by default the five pairs of the paper.
        n_prompts: prompts per pair. If there are fewer queries, they are asked again after other
            demonstrations; intervals are over queries.
        n_shots, seed, n_dev, n_dummies, template, leading_space, instruction: see
            `ConflictSettings`.
        progress: show a progress bar.

    Raises:
        InputError: if a task or count cannot work, or if a pair that was named, or every pair of
            a matrix, has no conflict: no shared input, the same answers, or too few pairs.
        ModelError: if the model returns numbers that are not finite.

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
    """Run a plan, as `conflicting_tasks` does after it has found the pairs."""
    s = plan.settings
    drawn, undefined = _draw(model, plan)
    per_pair = s.dev * (s.n_dummies + model.n_layers) + s.n_prompts * (2 * s.n_dummies + 5)
    with progress_bar(per_pair * len(drawn), "runs", progress) as bar:
        parts = [_measure(model, pair, encoder, s.seed, bar) for pair, encoder in drawn]
    names = [pair_name(pair.prompt_task, pair.injected_task) for pair, _ in drawn]
    data = xr.concat(parts, dim=xr.DataArray(names, dims="pair", name="pair"))
    said = _provenance(model, drawn, undefined, plan)
    texts = token_texts(model.to_string, data["top"].values)
    return ConflictingTasks(data, said | {"token_texts": texts})


def _draw(
    model: HookedModel, plan: ConflictPlan
) -> tuple[list[tuple[ConflictEpisodes, Encoder]], Undefined]:
    """The episodes of every pair whose answers begin with different tokens, and the other pairs."""
    s, found, undefined = plan.settings, [], dict(plan.undefined)
    for a, b in plan.pairs:
        # Both tasks share one encoder, so that their prompts are written alike.
        words = [pair.y for task in (a, b) for pair in task.pairs]
        encoder = model.encoder(s.template, words, s.leading_space)

        def begin_differently(first: Pair, second: Pair, encoder: Encoder = encoder) -> bool:
            prompt = encoder.encode((), first.x)
            ids = [encoder.first_tokens(prompt, pair.answers) for pair in (first, second)]
            return set(ids[0]).isdisjoint(ids[1])

        try:
            found.append((s.between(a, b, begin_differently), encoder))
        except ConflictUndefined as error:
            if not plan.matrix:
                raise
            undefined |= why_undefined(a, b, error)
    if not found:
        raise InputError(f"no pair is left: {first_reason(undefined)}")
    return found, undefined


def _measure(
    model: HookedModel, drawn: ConflictEpisodes, encoder: Encoder, seed: int, bar: tqdm
) -> xr.Dataset:
    """Choose the layer of one pair, inject the vectors, and read the answers."""
    a, b = drawn.prompt_task.name, drawn.injected_task.name
    bar.set_description(f"{a} with θ of {b}")

    def thetas(episodes: Sequence[Episode]) -> Float[Tensor, "episode layer d_model"]:
        return theta(dummy_residuals(model, encoder, episodes, bar.update))

    dev_right, dev_logprob = scores_by_layer(
        model, encoder, drawn.dev, thetas(drawn.dev), bar.update
    )
    dev_query = np.array([e.query.x for e in drawn.dev])
    choice = choose_layer(dev_right, dev_logprob, dev_query)
    layer = choice.at
    of_b = thetas(drawn.injected)[:, layer]
    vectors = {
        "injected": of_b,
        "own": thetas(drawn.own)[:, layer],
        "random": random_like(of_b, generator(seed, a, b, "random")),
    }
    few, zero = in_context(encoder, drawn.prompts), zero_shot(encoder, drawn.prompts)
    edits = [None, *(overwrite(layer, vector) for vector in vectors.values())]
    answered = _answered(model, encoder, drawn, few, edits, bar.update)
    alone = _answered(model, encoder, drawn, zero, [overwrite(layer, of_b)], bar.update)
    units = {"units": "nats"}
    return xr.Dataset(
        {
            **{
                name: (
                    ("condition", "prompt"),
                    np.concatenate([values, alone[name]], axis=1).T,
                    units if "logprob" in name else {},
                )
                for name, values in answered.items()
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


def _answered(
    model: HookedModel,
    encoder: Encoder,
    drawn: ConflictEpisodes,
    prompts: Sequence[Prompt],
    edits: Sequence[Edit | None],
    tick: Tick,
) -> dict[str, Shaped[np.ndarray, "prompt edit"]]:
    """The top token, which task's answer it begins, and how probable either task's answer is."""
    of_a, of_b = (
        accepted(encoder, prompts, episodes).first_tokens
        for episodes in (drawn.prompts, drawn.injected)
    )
    both = [a + b for a, b in zip(of_a, of_b, strict=True)]
    readout = model.evaluate(prompts, edits, both, tick)
    top, logprob = readout.top.cpu().numpy(), as_array(readout.logprob)
    # A row of `logprob` holds A's tokens, then B's, then NaN up to the longest row.
    rows = [(row, len(a)) for row, a in zip(logprob, of_a, strict=True)]
    return {
        "top": top,
        "follows_prompt": np.array([np.isin(t, a) for t, a in zip(top, of_a, strict=True)]),
        "follows_injected": np.array([np.isin(t, b) for t, b in zip(top, of_b, strict=True)]),
        "prompt_logprob": np.array([np.nanmax(row[:, :n], axis=1) for row, n in rows]),
        "injected_logprob": np.array([np.nanmax(row[:, n:], axis=1) for row, n in rows]),
    }


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
