"""Measures a task map of every checkpoint, and keeps each one as soon as it is finished."""

import gc
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from icl_mech.checkpoints.plan import (
    Checkpoint,
    CheckpointSettings,
    Models,
    order_checkpoints,
)
from icl_mech.checkpoints.result import Checkpoints
from icl_mech.decodability.chance import chances
from icl_mech.errors import InputError
from icl_mech.localize import Rule, TaskMap
from icl_mech.localize.plan import N_NEIGHBOURS, MapPlan, plan_map
from icl_mech.localize.run import measure_map
from icl_mech.model import HookedModel, check_model, check_source, load_model
from icl_mech.model.sources import fingerprint
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES
from icl_mech.sweep.folder import CellFolder, as_content
from icl_mech.sweep.grid import hash_pairs
from icl_mech.tasks import Tasks

#: Arrays of a task map that describe the prompts, and so are the same for every checkpoint.
_OF_PROMPTS = ("query", "query_half", "prior")


def over_checkpoints(
    models: Models,
    tasks: Tasks,
    n_prompts: int = 25,
    n_shots: int = 4,
    seed: int = 0,
    *,
    steps: Sequence[int] | None = None,
    n_points: int = 100,
    n_dummies: int = N_DUMMIES,
    k: int = N_NEIGHBOURS,
    fraction: float = 0.5,
    min_rise: float = 0.1,
    min_found: float = 0.95,
    heads: bool = False,
    masking: bool = False,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    device: str | None = None,
    dtype: str | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> Checkpoints:
    """Follow a model over its training: when are tasks encoded, and when are they solved?

    Han et al. 2024 (arXiv 2412.12276), section 4 and figures 5 and 6: task decodability and
    accuracy of OLMo-7B, checkpoint by checkpoint. Every checkpoint is measured by `localize`, on
    the same prompts: task decodability after every block, few-shot and zero-shot accuracy, theta
    injected after every block, and the layers at which tasks are formed and decoded.

    Args:
        models: the checkpoints: names (`"org/name@step1000"`) or folders as `load_model` takes
            them, in any order, or a mapping from steps to these or to functions that load a
            model, `{500: lambda: icl_mech.load_model(...)}`. One is in memory at a time.
        tasks: as in `localize`. A family of tasks that share their inputs is the most informative;
            intervals over tasks need four tasks.
        n_prompts, n_shots, seed: as in `localize`.
        steps: of `models`, in their order; by default read from their names (`step1000`,
            `checkpoint-500`, `global_step143000`).
        n_points, n_dummies, k: as in `localize`.
        fraction, min_rise, min_found: as in `localize`, for its layers; onsets over checkpoints
            have a fraction of their own (`Checkpoints.onsets`).
        heads, masking, template, leading_space, instruction: as in `localize`.
        device, dtype: as in `load_model`, for models that are named.
        folder: where every finished checkpoint is kept. The next call with the same settings does
            not run it again, whatever interrupted this one; more checkpoints may be added.
        progress: show progress bars.

    Raises:
        InputError: where a step cannot be read or comes twice, the models differ in layers,
            vocabulary, first token or number format, a task, count or the rule cannot work, or the
            folder was made with other settings.
        ModelError: where a model cannot be loaded, or returns numbers that are not finite.

    Example:
        >>> found = icl_mech.over_checkpoints(
        ...     {0: lambda: model, 100: lambda: model}, ["letters/next", "letters/upper"],
        ...     n_prompts=1, n_shots=1, n_points=3, n_dummies=1, k=1, progress=False,
        ... )
        >>> found.steps, len(found.td_by_layer(100))
        ([0, 100], 18)
    """
    settings = CheckpointSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_points=n_points,
        n_dummies=n_dummies,
        k=k,
        rule=Rule(fraction, min_rise, min_found),
        heads=heads,
        masking=masking,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    ordered = order_checkpoints(models, steps)
    load = partial(load_model, device=device, dtype=dtype)
    plan, loaded = plan_map(tasks, settings), {"dtype": dtype or "float32"}
    return measure_checkpoints(ordered, plan, load, loaded, folder, progress)


def measure_checkpoints(
    checkpoints: Sequence[Checkpoint],
    plan: MapPlan,
    load: Callable[[Any], HookedModel],
    loaded: Mapping[str, Any],
    folder: str | Path | None = None,
    progress: bool = True,
) -> Checkpoints:
    """Run a plan of `plan_map` on every checkpoint: what `over_checkpoints` does after planning.

    Args:
        checkpoints: from `order_checkpoints`.
        plan: the prompts, the same for every checkpoint.
        load: loads a model by name or folder.
        loaded: the options of loading that the numbers depend on.
        folder, progress: as in `over_checkpoints`.

    Raises:
        InputError: where the models differ in layers, vocabulary, first token or number format, one
            cannot read a prompt, or the folder was made with other settings.
        ModelError: where a model cannot be loaded, or returns numbers that are not finite.
    """
    for checkpoint in checkpoints:
        if isinstance(checkpoint.source, str | Path):
            check_source(checkpoint.source)
    runs = None if folder is None else CellFolder(folder)
    maps: list[TaskMap] = []
    resumed: list[int] = []
    with ExitStack() as at_end:
        if runs is not None:
            at_end.enter_context(runs.writing({"checkpoints": _for_manifest(plan, loaded)}))
        bar = at_end.enter_context(progress_bar(len(checkpoints), "checkpoints", progress))
        for checkpoint in checkpoints:
            bar.set_description(f"step {checkpoint.step}")
            found, was_kept = _finished_or_measured(checkpoint, plan, load, runs, progress, maps)
            maps.append(found)
            resumed += [checkpoint.step] * was_kept
            _free()
            bar.update()
    return _stacked(checkpoints, maps, plan, resumed)


def _finished_or_measured(
    checkpoint: Checkpoint,
    plan: MapPlan,
    load: Callable[[Any], HookedModel],
    runs: CellFolder | None,
    progress: bool,
    earlier: Sequence[TaskMap],
) -> tuple[TaskMap, bool]:
    """The task map of one checkpoint, and whether it was read from the folder."""
    model: HookedModel | None = None
    made_of = _named(checkpoint)
    if runs is not None and made_of is None:  # only its weights tell what a function loads
        model = _loaded(checkpoint, load)
        made_of = model.weight_hash
    cell = f"step{checkpoint.step}"
    if runs is not None and runs.finished(cell, str(made_of)):
        kept = runs.result(cell)
        assert isinstance(kept, TaskMap)
        _check_alike(checkpoint, kept.provenance["shared"], earlier)
        return kept, True
    if model is None:
        model = _loaded(checkpoint, load)
    shared = _shared(model)
    _check_alike(checkpoint, shared, earlier)
    found = measure_map(model, plan, progress)
    found.provenance |= {"step": checkpoint.step, "shared": shared}
    if runs is not None:
        runs.keep(cell, str(made_of), as_content(found))
    return found, False


def _loaded(checkpoint: Checkpoint, load: Callable[[Any], HookedModel]) -> HookedModel:
    source = checkpoint.source
    model = load(source) if isinstance(source, str | Path) else source()
    check_model(model)
    return model


def _free() -> None:
    """Free the memory of the previous model, whose parts refer to one another."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _named(checkpoint: Checkpoint) -> str | None:
    """What identifies a checkpoint before it is loaded; None if only its weights do."""
    if not isinstance(checkpoint.source, str | Path):
        return None
    path = Path(checkpoint.source).expanduser()
    return fingerprint(path) if path.exists() else str(checkpoint.source)


def _for_manifest(plan: MapPlan, loaded: Mapping[str, Any]) -> dict[str, Any]:
    """What two runs must have in common to use one folder.

    This includes all tasks, because decodability of a task depends on the other tasks.
    """
    of = {t.task.name: hash_pairs(t.task) for t in plan.every}
    own = {"question": "checkpoints", "tasks": of}
    return {**own, **plan.settings.recorded(), **loaded}


def _shared(model: HookedModel) -> dict[str, Any]:
    """What the models must have in common, so that prompts and layers are the same for all."""
    vocabulary = json.dumps(model.tokenizer.get_vocab(), sort_keys=True)
    return {
        "layers": model.n_layers,
        "heads per layer": model.n_heads,
        "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(),
        "first token": model.to_string(model.sink.token),
        "number format": str(model.dtype).removeprefix("torch."),
    }


def _check_alike(
    checkpoint: Checkpoint, ours: Mapping[str, Any], earlier: Sequence[TaskMap]
) -> None:
    """Raise InputError if a checkpoint differs from the first one in what `_shared` returns."""
    if not earlier:
        return
    first = earlier[0].provenance
    for what, theirs in first["shared"].items():
        if ours[what] == theirs:
            continue
        if what == "vocabulary":
            differs = "another vocabulary than"
        else:
            differs = f"{what} {ours[what]!r}, not {theirs!r} as"
        raise InputError(
            f"{checkpoint}: has {differs} step {first['step']} ({first['model']}); expected "
            "checkpoints of one model, with the same layers, vocabulary and number format"
        )


def _stacked(
    checkpoints: Sequence[Checkpoint],
    maps: Sequence[TaskMap],
    plan: MapPlan,
    resumed: list[int],
) -> Checkpoints:
    """The arrays of all maps along a first axis, `step`."""
    steps = [checkpoint.step for checkpoint in checkpoints]
    axis = xr.DataArray(steps, dims="step", name="step")
    data = xr.concat([m.data.drop_vars(_OF_PROMPTS) for m in maps], dim=axis)
    data = data.assign({name: maps[0].data[name] for name in _OF_PROMPTS})
    by_task = chances(*plan.labels_and_groups(), plan.settings.k)[: len(plan.tasks)]
    data["chance"] = ("task", by_task)
    first = maps[0].provenance
    read = [m.provenance["readouts"] for m in maps]
    own = ("model", "weights_sha256", "step", "shared", "seconds")
    return Checkpoints(
        data,
        {
            **{name: value for name, value in first.items() if name not in own},
            "method": "over_checkpoints (Han et al. 2024, arXiv 2412.12276): a task map per step",
            "model": f"{len(maps)} checkpoints, {first['model']} to {maps[-1].provenance['model']}",
            "readouts": {name: sum(r[name] for r in read) for name in ("n", "tied")},
            "resumed": resumed,
            "runs": [m.provenance for m in maps],
        },
    )
