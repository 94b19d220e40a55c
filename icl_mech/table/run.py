"""A layer scan of task after task, each kept as soon as it is finished."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from icl_mech.model import HookedModel, check_model
from icl_mech.patch import ControlLayers, LayerScan, layer_scan
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES
from icl_mech.table.folder import RunFolder
from icl_mech.table.result import TaskTable
from icl_mech.table.settings import run_settings
from icl_mech.tasks import Tasks, list_tasks, load_tasks


def task_table(
    model: HookedModel,
    task: Tasks | None = None,
    n_prompts: int = 100,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    control_layers: ControlLayers = "chosen",
    folder: str | Path | None = None,
    progress: bool = True,
) -> TaskTable:
    """Zero-shot, task vector and few-shot accuracy on every task, and what is kept of the last.

    Hendel et al. 2023 (arXiv 2310.15916), section 4 and its main table: *baseline* is the
    zero-shot prompt, *hypothesis* the same with theta at the layer that is best on dev prompts,
    *regular* the few-shot prompt. Each task is a `layer_scan`, controls included; the published
    numbers stand beside.

    Args:
        model: from `load_model`.
        task: tasks, their names, families or paths to pairs; by default all 18 built-in ones.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_dev: dev prompts per task; half of `n_prompts` by default.
        n_dummies: dummy queries per demonstration set.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default as the tokenizer likes.
        control_layers: as in `layer_scan`; the table shows controls at the chosen layer only.
        folder: every finished task is kept there, and not run again by the next call with the
            same model and settings, whatever interrupted this one; more tasks may be added.
        progress: show progress bars.

    Raises:
        InputError: where a task, template or count cannot work, or the folder was made with
            other settings.
        ModelError: where the model returns numbers that are not finite.
    """
    check_model(model)
    tasks = load_tasks(list_tasks() if task is None else task)
    settings = run_settings(
        tasks, n_prompts, n_shots, seed, n_dev, n_dummies, template, leading_space, control_layers
    )
    runs = None
    if folder is not None:
        runs = RunFolder(folder, {**settings, **_identity(model)}, model.provenance())
    finished: dict[str, LayerScan] = {}
    if runs is not None:
        kept = {t.name: runs.finished(t) for t in tasks}
        finished = {name: scan for name, scan in kept.items() if isinstance(scan, LayerScan)}
    resumed = list(finished)
    with progress_bar(len(tasks) - len(finished), "tasks", progress) as bar:
        for t in tasks:
            if t.name in finished:
                continue
            bar.set_description(t.name)
            scan = layer_scan(
                model,
                t,
                n_prompts,
                n_shots,
                seed,
                n_dev=settings["n_dev"],
                n_dummies=n_dummies,
                template=template,
                leading_space=leading_space,
                control_layers=control_layers,
                progress=progress,
            )
            if runs is not None:
                runs.keep(t, scan)
            finished[t.name] = scan
            bar.update()
    scans = [finished[t.name] for t in tasks]
    data = xr.concat([scan.data for scan in scans], dim="task")
    return TaskTable(data, _provenance(scans, settings, resumed))


def _identity(model: HookedModel) -> dict[str, Any]:
    """What makes it the same model, whatever it is called and wherever it runs."""
    provenance = model.provenance()
    return {name: provenance[name] for name in ("weights_sha256", "architecture", "dtype")}


def _provenance(
    scans: Sequence[LayerScan], settings: dict[str, Any], resumed: list[str]
) -> dict[str, Any]:
    return {
        **scans[0].provenance,
        "method": "task_table (Hendel et al. 2023, arXiv 2310.15916): a layer scan per task",
        **{name: value for name, value in settings.items() if name != "icl_mech"},
        "tasks": {name: of for scan in scans for name, of in scan.provenance["tasks"].items()},
        "resumed": resumed,
        "devices": sorted({scan.provenance["device"] for scan in scans}),
    }
