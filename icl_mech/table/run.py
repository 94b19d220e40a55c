"""A layer scan of task after task, each kept as soon as it is finished."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from icl_mech.model import HookedModel, check_model
from icl_mech.patch import ControlLayers, LayerScan
from icl_mech.patch.scan import measure_scan
from icl_mech.patch.scan_plan import ScanPlan
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES
from icl_mech.table.folder import RunFolder
from icl_mech.table.plan import TableSettings, plan_table
from icl_mech.table.result import TaskTable
from icl_mech.tasks import Tasks


def task_table(
    model: HookedModel,
    tasks: Tasks | None = None,
    n_prompts: int = 100,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    control_layers: ControlLayers = "chosen",
    folder: str | Path | None = None,
    progress: bool = True,
) -> TaskTable:
    """Zero-shot, task vector and few-shot accuracy on every task: how much does a vector keep?

    Hendel et al. 2023 (arXiv 2310.15916), section 4 and its main table: *baseline* is the
    zero-shot prompt, *hypothesis* the same with theta at the layer that is best on dev prompts,
    *regular* the few-shot prompt. Each task is a `layer_scan`, controls included; the published
    numbers stand beside.

    Args:
        model: from `load_model`.
        tasks: tasks, their names, families or paths to pairs; by default all 18 built-in ones.
        n_prompts: test prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_dev: dev prompts per task; half of `n_prompts` by default.
        n_dummies: dummy queries per demonstration set.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        control_layers: as in `layer_scan`; the table shows controls at the chosen layer only.
        folder: where every finished task is kept. The next call with the same model and settings
            does not run it again, whatever interrupted this one; more tasks may be added.
        progress: show progress bars.

    Raises:
        InputError: where a task, template or count cannot work, or the folder was made with
            other settings.
        ModelError: where the model returns numbers that are not finite.

    Example:
        >>> table = icl_mech.task_table(
        ...     model, ["to_upper"], n_prompts=2, n_shots=2, n_dev=2, progress=False)
        >>> list(table.table().index)
        ['to_upper', 'mean']
    """
    check_model(model)
    settings = TableSettings(
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
    return measure_table(model, plan_table(tasks, settings), folder, progress)


def measure_table(
    model: HookedModel, plan: ScanPlan, folder: str | Path | None = None, progress: bool = True
) -> TaskTable:
    """Run a plan of `plan_table`: what `task_table` does after it has drawn the prompts.

    Raises:
        InputError: where the model cannot read a prompt, or the folder was made with other
            settings.
        ModelError: where the model returns numbers that are not finite.
    """
    assert isinstance(plan.settings, TableSettings)
    settings = plan.settings.for_manifest()
    runs = None
    finished: dict[str, LayerScan] = {}
    if folder is not None:
        runs = RunFolder(folder, {**settings, **_identity(model)}, model.provenance())
        kept = {of.task.name: runs.finished(of.task) for of in plan.tasks}
        finished = {name: scan for name, scan in kept.items() if isinstance(scan, LayerScan)}
    resumed = list(finished)
    with progress_bar(len(plan.tasks) - len(finished), "tasks", progress) as bar:
        for of in plan.tasks:
            if of.task.name in finished:
                continue
            bar.set_description(of.task.name)
            scan = measure_scan(model, ScanPlan([of], plan.settings), progress)
            if runs is not None:
                runs.keep(of.task, scan)
            finished[of.task.name] = scan
            bar.update()
    scans = [finished[of.task.name] for of in plan.tasks]
    data = xr.concat([scan.data for scan in scans], dim="task")
    return TaskTable(data, _provenance(scans, plan.settings, resumed))


def _identity(model: HookedModel) -> dict[str, Any]:
    """What tells models apart, whatever they are called and wherever they run."""
    provenance = model.provenance()
    return {name: provenance[name] for name in ("weights_sha256", "architecture", "dtype")}


def _provenance(
    scans: Sequence[LayerScan], settings: TableSettings, resumed: list[str]
) -> dict[str, Any]:
    return {
        **scans[0].provenance,
        "method": "task_table (Hendel et al. 2023, arXiv 2310.15916): a layer scan per task",
        **settings.recorded(),
        "tasks": {name: of for scan in scans for name, of in scan.provenance["tasks"].items()},
        "token_texts": {
            token: text
            for scan in scans
            for token, text in scan.provenance.get("token_texts", {}).items()
        },
        "resumed": resumed,
        "devices": sorted({scan.provenance["device"] for scan in scans}),
    }
