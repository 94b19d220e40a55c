"""At which layer does a task vector work? (Hendel et al. 2023, sections 3 and 4.)"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from icl_mech.model import HookedModel, Mode, check_model
from icl_mech.patch.scan_plan import ControlLayers, ScanPlan, ScanSettings, ScanTask, plan_scan
from icl_mech.patch.scan_result import REFERENCES, VECTORS, LayerScan, choice_on_dev
from icl_mech.progress import READING, dear, progress_bar
from icl_mech.prompts import (
    DEFAULT_TEMPLATE,
    N_DUMMIES,
    Answers,
    Encoder,
    Prompt,
    accepted,
    few_shot,
    zero_shot,
)
from icl_mech.results import over_tasks
from icl_mech.scores import SCORES, Scored, score
from icl_mech.task_vectors import TaskVector
from icl_mech.tasks import Task, Tasks
from icl_mech.token_texts import token_texts
from icl_mech.vectors import dummy_residuals, inject, random_like, theta

Vectors = Float[Tensor, "prompt layer d_model"]
#: The number of prompts on which a doubtful sink token is compared with its rival.
N_SINK_PROMPTS = 16
#: The values of layers at which a vector was not injected.
_UNMEASURED = {
    "measured": False,
    "top": -1,
    "first_token": False,
    "two_way_prefix": False,
    "logprob": np.nan,
    "rank": -1,
}


def layer_scan(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 50,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    other_task: Task | str | None = None,
    control_layers: ControlLayers = "all",
    vector: TaskVector | None = None,
    progress: bool = True,
) -> LayerScan:
    """Inject task vectors into zero-shot prompts at every layer and score the answers.

    Hendel et al. 2023: theta is the residual stream after block `l` at the last token of a
    few-shot prompt whose query is a dummy (the mean over `n_dummies`). It overwrites the residual
    stream at the last token of the zero-shot prompt, after the same block. *Baseline* is the
    zero-shot prompt alone, *regular* the few-shot prompt, *hypothesis* the zero-shot prompt with
    theta at the layer that is best on the dev prompts. Each prompt gets the theta of its own
    demonstrations. Dev queries, test queries and demonstrations are disjoint. The controls are
    injected into the same test prompts: theta from demonstrations with shuffled labels, theta of
    another task, and random vectors of the same norm.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: test prompts per task. If the task has too few pairs, queries are repeated with
            other demonstrations (the result says how many differ).
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_dev: dev prompts per task; half of `n_prompts` by default.
        n_dummies: dummy queries per demonstration set.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        other_task: the task whose theta is a control; by default antonyms, or, for a linguistic
            task, country_capital.
        control_layers: inject the controls after every block (`"all"`), or only after the blocks
            where theta is best on the dev prompts (`"chosen"`, by either score), which takes less
            than half the time.
        vector: a vector to scan instead of every prompt's own theta. After each block, its vector
            of that layer is written with its `mode` and `scale`; the controls are written in the
            same way. Inputs that it was shown are not asked.
        progress: show a progress bar.

    Raises:
        InputError: if a task, template or count cannot work, or the vector is of another model or
            lacks a layer.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> scan = icl_mech.layer_scan(model, "to_upper", n_prompts=4, n_shots=2, progress=False)
        >>> scan.curve("to_upper")[0].n
        4
        >>> tv = icl_mech.task_vector(model, "to_upper", 4, 2, layer=9, progress=False)
        >>> held = icl_mech.layer_scan(
        ...     model, "to_upper", 4, 2, vector=tv, control_layers="chosen", progress=False
        ... )
        >>> held.provenance["vector"]["name"]
        'to_upper'
    """
    check_model(model)
    settings = ScanSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_dev=n_dev,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
        control_layers=control_layers,
    )
    known: Collection[str] = ()
    if vector is not None:
        vector.check_fits(model)
        vector.check_one_block("layer_scan")
        vector.check_layers(range(model.n_layers))
        known = vector.shown
    plan = plan_scan(tasks, settings, other_task, known)
    return measure_scan(model, plan, progress, vector)


def measure_scan(
    model: HookedModel, plan: ScanPlan, progress: bool = True, vector: TaskVector | None = None
) -> LayerScan:
    """Run a plan of `plan_scan`: what `layer_scan` does after it has drawn the prompts.

    Raises:
        InputError: if the model cannot read a prompt.
        ModelError: if the model returns numbers that are not finite.
    """
    s = plan.settings
    # Every task is encoded before the first forward pass: bad input fails at once.
    encoded = [(task, *_encoders(model, task, s)) for task in plan.tasks]
    everywhere = s.control_layers == "all"
    injections = (s.n_prompts + s.dev) * model.n_layers
    injections += s.n_prompts * (len(VECTORS) - 1) * (model.n_layers if everywhere else 1)
    injections += s.n_prompts  # without a vector
    readings = s.n_prompts * (1 + 3 * s.n_dummies) + s.dev * (1 + s.n_dummies)
    with progress_bar((injections + READING * readings) * len(encoded), "runs", progress) as bar:
        parts = [_scan(model, *task, everywhere, vector, bar) for task in encoded]
    data = over_tasks(parts, [task.task.name for task in plan.tasks])
    encoders = [encoder for _, encoder, _ in encoded]
    top = [data[name].values for name in ("top", "reference_top")]
    said = _provenance(model, plan, encoders, vector)
    return LayerScan(data, said | {"token_texts": token_texts(model.to_string, *top)})


def _encoders(model: HookedModel, plan: ScanTask, s: ScanSettings) -> tuple[Encoder, Encoder]:
    """The encoders of the task's prompts and of the other task's prompts."""
    own, other = (
        model.encoder(s.template, [pair.y for pair in task.pairs], s.leading_space)
        for task in (plan.task, plan.other)
    )
    return own, other


def _scan(
    model: HookedModel,
    plan: ScanTask,
    encoder: Encoder,
    other_encoder: Encoder,
    everywhere: bool,
    held: TaskVector | None,
    bar: tqdm,
) -> xr.Dataset:
    """Read the vectors of one task, inject them, and score the answers.

    The controls are injected after every block (`everywhere`), or only after the blocks where
    theta is best on the dev prompts. The vector `held` replaces theta if it is given.
    """
    test, dev = plan.split.test, plan.split.dev
    bar.set_description(f"{plan.task.name}: reading vectors")
    few = few_shot(encoder, test + dev)
    resid = model.final_residuals(few, dear(bar.update))
    own = theta(resid[:, 1:])
    mode: Mode = "replace"
    scale = 1.0
    if held is not None:
        mode, scale = held.mode, held.scale
        own = (held.values * scale).to(resid).expand(len(few), -1, -1)
    rows_test, rows_dev = slice(len(test)), slice(len(test), None)
    controls = {
        "shuffled": theta(dummy_residuals(model, encoder, plan.shuffled, dear(bar.update))) * scale,
        "other_task": theta(
            dummy_residuals(model, other_encoder, plan.other_episodes, dear(bar.update))
        )
        * scale,
        "random": random_like(own[rows_test], deepcopy(plan.rng)),
    }
    bar.set_description(f"{plan.task.name}: injecting")
    zero = zero_shot(encoder, test + dev)
    answers = accepted(encoder, zero[rows_test], test)
    dev_answers = accepted(encoder, zero[rows_dev], dev)
    few_answers = accepted(encoder, [group[0] for group in few[rows_test]], test)

    def scored(
        vectors: dict[str, Vectors], layers: Sequence[int], choosing: bool = False
    ) -> xr.Dataset:
        """Scores with vectors injected after blocks, on test prompts or (to choose) dev prompts."""
        rows, right = (rows_dev, dev_answers) if choosing else (rows_test, answers)
        several = torch.stack(list(vectors.values()), dim=1)
        readout = inject(model, zero[rows], several, right.first_tokens, bar.update, layers, mode)
        coords = {"vector": list(vectors), "layer": layers}
        return _score_arrays(score(model, readout, right), coords)

    every = range(model.n_layers)
    on_dev = scored({"theta": own[rows_dev]}, every, choosing=True).isel(vector=0, drop=True)
    on_dev = _prefixed("dev_", on_dev.rename(prompt="dev_prompt"))
    on_dev = on_dev.assign(dev_query=("dev_prompt", [e.query.x for e in dev]))
    vectors = _with_controls(
        scored({"theta": own[rows_test]}, every),
        scored(controls, every if everywhere else _chosen(on_dev)),
    )
    plain = model.predict(zero[rows_test], answers.first_tokens, bar.update)
    asked = model.read(resid[rows_test, 0, -1], few_answers.first_tokens)
    references = xr.concat(
        [
            _score_arrays(score(model, plain, answers)),
            _score_arrays(score(model, asked, few_answers)),
        ],
        dim=xr.DataArray(list(REFERENCES), dims="reference", name="reference"),
    )
    return xr.Dataset(
        {
            **vectors,
            **_prefixed("reference_", references),
            **on_dev,
            "prior_right": ("prompt", [plan.split.prior in e.query.answers for e in test]),
            "query": ("prompt", [e.query.x for e in test]),
            "answer": ("prompt", [e.query.y for e in test]),
            "n_tokens": ("prompt", list(answers.n_tokens)),
            "prior_answer": ((), plan.split.prior),
            "collisions": ((), _count_collisions(encoder, plan.task, zero[0], answers)),
            "n_queries": ((), plan.split.n_test_queries),
            **_under_both_sinks(model, [group[0] for group in few[rows_test]], few_answers),
        }
    )


def _score_arrays(scored: Scored, coords: Mapping[str, Sequence[Any]] | None = None) -> xr.Dataset:
    """Scores as arrays over `prompt` and the dimensions of `coords`, in order."""
    coords = coords or {}
    dims = ("prompt", *coords)
    return xr.Dataset(
        {
            name: (dims, values, {"units": "nats"} if name == "logprob" else {})
            for name, values in vars(scored).items()
        },
        coords={name: list(values) for name, values in coords.items()},
    )


def _with_controls(theta: xr.Dataset, controls: xr.Dataset) -> xr.Dataset:
    """Theta and controls along one axis `vector`; `measured` says where each was injected."""
    parts = []
    for part in (theta, controls):
        there = np.ones((part.sizes["vector"], part.sizes["layer"]), dtype=bool)
        part = part.assign(measured=(("vector", "layer"), there))
        parts.append(part.reindex(layer=theta["layer"].values, fill_value=_UNMEASURED))
    return xr.concat(parts, dim="vector")


def _prefixed(prefix: str, arrays: xr.Dataset) -> xr.Dataset:
    """The same arrays, with a prefix to the name of each."""
    return arrays.rename({str(name): f"{prefix}{name}" for name in arrays.data_vars})


def _count_collisions(encoder: Encoder, task: Task, prompt: Prompt, answers: Answers) -> int:
    """In how many prompts an accepted first token also begins another answer of the task."""
    begins: dict[int, set[str]] = defaultdict(set)
    for label in {answer for pair in task.pairs for answer in pair.answers}:
        ((first, *_),) = encoder.answer_tokens(prompt, [label])
        begins[first].add(label)
    return sum(
        any(begins[token] - set(texts) for token in tokens)
        for tokens, texts in zip(answers.first_tokens, answers.texts, strict=True)
    )


def _under_both_sinks(
    model: HookedModel, prompts: Sequence[Prompt], right: Answers
) -> dict[str, tuple[str, list[bool]]]:
    """Whether few-shot prompts are answered right under the sink token and under its rival.

    Empty if the sink token has no rival.
    """
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
    """The layers that are best on the dev prompts, by each score."""
    return sorted({choice_on_dev(on_dev, score).at for score in SCORES})


def _provenance(
    model: HookedModel, plan: ScanPlan, encoders: Sequence[Encoder], held: TaskVector | None
) -> dict:
    return {
        "method": "layer_scan (Hendel et al. 2023, arXiv 2310.15916)",
        **model.provenance(),
        **plan.settings.recorded(),
        "sink_token": model.to_string(encoders[0].sink),
        "vector": None if held is None else held.recorded(),
        "tasks": {
            task.task.name: {
                "category": task.task.category,
                "n_pairs": len(task.task),
                "n_test_queries": task.split.n_test_queries,
                "n_dev_queries": task.split.n_dev_queries,
                "other_task": task.other.name,
                "leading_space": encoder.template.leading_space,
            }
            for task, encoder in zip(plan.tasks, encoders, strict=True)
        },
        "filters": "none: every prompt counts, also those whose answer takes several tokens",
    }
