"""At which layer does a task vector work? (Hendel et al. 2023, sections 3 and 4.)"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.errors import choose
from icl_mech.model import HookedModel, check_model
from icl_mech.patch.scan_result import REFERENCES, VECTORS, LayerScan, choice_on_dev
from icl_mech.patch.scores import (
    SCORES,
    count_collisions,
    prefixed,
    score,
    score_arrays,
    with_controls,
)
from icl_mech.progress import READING, dear, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Answers,
    Encoder,
    Episode,
    Prompt,
    PromptSettings,
    Split,
    accepted,
    few_shot,
    generator,
    half,
    shuffled,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.tasks import Task, Tasks, load_other, load_tasks
from icl_mech.vectors import dummy_residuals, inject, random_like, theta

Vectors = Float[Tensor, "prompt layer d_model"]
ControlLayers = Literal["all", "chosen"]
#: On which a doubtful sink token is compared with its rival.
N_SINK_PROMPTS = 16


@dataclass(frozen=True, kw_only=True)
class _Settings(PromptSettings):
    control_layers: str


def layer_scan(
    model: HookedModel,
    task: Tasks,
    n_prompts: int = 50,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    other_task: Task | str | None = None,
    control_layers: ControlLayers = "all",
    progress: bool = True,
) -> LayerScan:
    """Inject task vectors into zero-shot prompts at every layer and score the answers.

    Hendel et al. 2023: theta is read at the last token of a few-shot prompt whose query is a
    dummy (mean over `n_dummies`), after block `l`; it overwrites the same place of the zero-shot
    prompt. *Baseline* is the zero-shot prompt alone, *regular* the few-shot prompt, *hypothesis*
    the zero-shot prompt with theta at the layer that is best on the dev prompts. Every
    demonstration set keeps its own theta. Dev queries, test queries and demonstrations are
    disjoint. On the same test prompts, at every layer: theta from demonstrations with shuffled
    labels, theta of another task, and random vectors of the same norm.

    Args:
        model: from `load_model`.
        task: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task; queries return with other demonstrations where the
            task has too few pairs (the result says how many differ).
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_dev: dev prompts per task; half of `n_prompts` by default.
        n_dummies: dummy queries per demonstration set.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        other_task: whose theta is the control; by default antonyms, or, for a linguistic task,
            country_capital.
        control_layers: where the controls are injected: after every block (`"all"`), or only where
            theta is best on the dev prompts (`"chosen"`, by either score), in less than half the
            time.
        progress: show a progress bar.

    Raises:
        InputError: where a task, template or count cannot work.
        ModelError: where the model returns numbers that are not finite.
    """
    check_model(model)
    tasks = load_tasks(task)
    choose(control_layers, get_args(ControlLayers), "control_layers")
    settings = _Settings(
        n_prompts,
        half(n_prompts, n_dev),
        n_shots,
        n_dummies,
        seed,
        template,
        leading_space,
        control_layers=control_layers,
    )
    # Draw everything before the first forward pass: a task with too few pairs fails at once.
    plans = [_plan(model, t, load_other(t, other_task), settings) for t in tasks]
    injections = (settings.n_prompts + settings.n_dev) * model.n_layers
    n_control = model.n_layers if control_layers == "all" else 1
    injections += settings.n_prompts * (len(VECTORS) - 1) * n_control
    injections += settings.n_prompts  # without a vector
    readings = settings.n_prompts * (1 + 3 * n_dummies) + settings.n_dev * (1 + n_dummies)
    with progress_bar((injections + READING * readings) * len(plans), "runs", progress) as bar:
        parts = [_scan(model, plan, control_layers == "all", bar) for plan in plans]
    data = over_tasks(parts, [t.name for t in tasks])
    return LayerScan(data, _provenance(model, plans, settings))


@dataclass(frozen=True)
class _Plan:
    """A task with its episodes drawn."""

    task: Task
    other: Task
    encoder: Encoder
    split: Split
    shuffled: tuple[Episode, ...]
    other_episodes: tuple[Episode, ...]
    other_encoder: Encoder
    rng: np.random.Generator


def _plan(model: HookedModel, task: Task, other: Task, s: PromptSettings) -> _Plan:
    def encoder(t: Task) -> Encoder:
        return model.encoder(s.template, [pair.y for pair in t.pairs], s.leading_space)

    split = s.split(task)
    rng = generator(s.seed, task.name, "controls")
    return _Plan(
        task,
        other,
        encoder(task),
        split,
        shuffled(split.test, rng),
        s.split(other).test,
        encoder(other),
        rng,
    )


def _scan(model: HookedModel, plan: _Plan, everywhere: bool, bar: tqdm) -> xr.Dataset:
    """One task: read vectors, inject them (controls everywhere, or where theta is best), score."""
    encoder, test, dev = plan.encoder, plan.split.test, plan.split.dev
    bar.set_description(f"{plan.task.name}: reading vectors")
    few = few_shot(encoder, test + dev)
    resid = model.final_residuals(few, dear(bar.update))
    own = theta(resid[:, 1:])
    rows_test, rows_dev = slice(len(test)), slice(len(test), None)
    controls = {
        "shuffled": theta(dummy_residuals(model, encoder, plan.shuffled, dear(bar.update))),
        "other_task": theta(
            dummy_residuals(model, plan.other_encoder, plan.other_episodes, dear(bar.update))
        ),
        "random": random_like(own[rows_test], plan.rng),
    }
    bar.set_description(f"{plan.task.name}: injecting")
    zero = zero_shot(encoder, test + dev)
    answers = accepted(encoder, zero[rows_test], test)
    dev_answers = accepted(encoder, zero[rows_dev], dev)
    few_answers = accepted(encoder, [group[0] for group in few[rows_test]], test)

    def scored(
        vectors: dict[str, Vectors], layers: Sequence[int], choosing: bool = False
    ) -> xr.Dataset:
        """These vectors injected after these blocks, on test prompts or, to choose, on dev."""
        rows, right = (rows_dev, dev_answers) if choosing else (rows_test, answers)
        several = torch.stack(list(vectors.values()), dim=1)
        readout = inject(model, zero[rows], several, right.first_tokens, bar.update, layers)
        coords = {"vector": list(vectors), "layer": layers}
        return score_arrays(score(model, readout, right), coords)

    every = range(model.n_layers)
    on_dev = scored({"theta": own[rows_dev]}, every, choosing=True).isel(vector=0, drop=True)
    on_dev = prefixed("dev_", on_dev.rename(prompt="dev_prompt"))
    on_dev = on_dev.assign(dev_query=("dev_prompt", [e.query.x for e in dev]))
    vectors = with_controls(
        scored({"theta": own[rows_test]}, every),
        scored(controls, every if everywhere else _chosen(on_dev)),
    )
    plain = model.predict(zero[rows_test], answers.first_tokens, bar.update)
    asked = model.read(resid[rows_test, 0, -1], few_answers.first_tokens)
    references = xr.concat(
        [
            score_arrays(score(model, plain, answers)),
            score_arrays(score(model, asked, few_answers)),
        ],
        dim=xr.DataArray(list(REFERENCES), dims="reference", name="reference"),
    )
    return xr.Dataset(
        {
            **vectors,
            **prefixed("reference_", references),
            **on_dev,
            "prior_right": ("prompt", [plan.split.prior in e.query.answers for e in test]),
            "query": ("prompt", [e.query.x for e in test]),
            "answer": ("prompt", [e.query.y for e in test]),
            "n_tokens": ("prompt", list(answers.n_tokens)),
            "prior_answer": ((), plan.split.prior),
            "collisions": ((), count_collisions(encoder, plan.task, zero[0], answers)),
            "n_queries": ((), plan.split.n_test_queries),
            **_under_both_sinks(model, [group[0] for group in few[rows_test]], few_answers),
        }
    )


def _under_both_sinks(
    model: HookedModel, prompts: Sequence[Prompt], right: Answers
) -> dict[str, tuple[str, list[bool]]]:
    """Few-shot answers on the first prompts under the sink token and its rival, if there is one."""
    if model.sink.rival is None:
        return {}
    first = prompts[:N_SINK_PROMPTS]
    under = {}
    for name, sink in (("sink_right", model.sink.token), ("rival_sink_right", model.sink.rival)):
        ours = [replace(p, tokens=(sink, *p.tokens[1:])) for p in first]
        targets = right.first_tokens[: len(first)]
        under[name] = ("sink_prompt", model.predict(ours, targets).right.tolist())
    return under


def _chosen(on_dev: xr.Dataset) -> list[int]:
    """The layers that are best on dev, by every score."""
    return sorted({choice_on_dev(on_dev, score).at for score in SCORES})


def _provenance(model: HookedModel, plans: Sequence[_Plan], s: PromptSettings) -> dict:
    return {
        "method": "layer_scan (Hendel et al. 2023, arXiv 2310.15916)",
        **model.provenance(),
        **vars(s),
        "sink_token": model.to_string(plans[0].encoder.sink),
        "tasks": {
            plan.task.name: {
                "category": plan.task.category,
                "n_pairs": len(plan.task),
                "n_test_queries": plan.split.n_test_queries,
                "n_dev_queries": plan.split.n_dev_queries,
                "other_task": plan.other.name,
                "leading_space": plan.encoder.template.leading_space,
            }
            for plan in plans
        },
        "filters": "none: every prompt counts, also those whose answer takes several tokens",
    }
