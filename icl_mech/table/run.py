"""The main table: runs a sweep of layer scans on one model, and joins them to one table."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import xarray as xr

from icl_mech.errors import InputError, choose
from icl_mech.model import HookedModel, check_model
from icl_mech.patch import ControlLayers, LayerScan
from icl_mech.patch.scan_plan import ScanPlan
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES
from icl_mech.sweep import Grid, Sweep, plan_sweep
from icl_mech.sweep.models import ModelEntry
from icl_mech.sweep.run import run_grid
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
    *regular* the few-shot prompt. Each task is a `layer_scan` with its controls. The table also has
    the published numbers.

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


def table_grid(model: HookedModel | ModelEntry, plan: ScanPlan) -> Grid:
    """The cells of a table: a scan of every task of a plan of `plan_table`.

    Raises:
        InputError: where there is no such model.
    """
    s = plan.settings
    options = {name: value for name, value in vars(s).items() if name != "seed"}
    return plan_sweep(model, {"scan": options}, [of.task for of in plan.tasks], s.seed)


def measure_table(
    model: HookedModel | ModelEntry,
    plan: ScanPlan,
    folder: str | Path | None = None,
    progress: bool = True,
) -> TaskTable:
    """Run a plan of `plan_table`, as `task_table` does after it has drawn the prompts.

    Raises:
        InputError: where the model cannot read a prompt, or the folder was made with other
            settings.
        ModelError: where the model cannot be loaded, or returns numbers that are not finite.
    """
    grid = table_grid(model, plan)
    with ExitStack() as at_end:
        if folder is None:
            folder = at_end.enter_context(TemporaryDirectory())
        resumed = run_grid(grid, folder, progress=progress, stop=True)
        done = Sweep(folder)
        scans = [done.folder.result(cell.name) for cell in grid.cells]
    names = [cell.subject.name for cell in grid.cells if cell.name in resumed]
    return joined([s for s in scans if isinstance(s, LayerScan)], plan.settings.recorded(), names)


def read_table(folder: str | Path, model: str | None = None, entry: str = "scan") -> TaskTable:
    """The table of the layer scans in a sweep's folder, for one model and its first seed.

    Args:
        folder: of the sweep.
        model: its name in the sweep; by default the first.
        entry: the name of the scans in the sweep.

    Raises:
        InputError: where there is no such sweep, measure or model, or no scan is finished.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> few = {"n_prompts": 2, "n_shots": 2, "control_layers": "chosen"}
        >>> done = icl_mech.sweep(
        ...     model, {"scan": few}, "to_upper", folder=folder, progress=False)
        >>> read_table(folder).tasks
        ['to_upper']
    """
    found = [(of, result) for of, result in Sweep(folder).results(entry)]
    if not found:
        raise InputError(f"{folder}: no {entry} is finished; expected at least one")
    name = found[0][0]["model"] if model is None else model
    choose(name, dict.fromkeys(of["model"] for of, _ in found), "model of the sweep")
    of_model = [(of, result) for of, result in found if of["model"] == name]
    first = of_model[0][0]["seed"]
    scans = [r for of, r in of_model if of["seed"] == first and isinstance(r, LayerScan)]
    if not scans:
        raise InputError(f"{entry} is {of_model[0][0]['measure']}; expected layer scans")
    return joined(scans, {}, [])


def joined(
    scans: Sequence[LayerScan], settings: Mapping[str, Any], resumed: Sequence[str]
) -> TaskTable:
    """One table from several scans of different tasks.

    Args:
        scans: with the same settings, on one model.
        settings: entries that are added to the provenance.
        resumed: the tasks that were read from a folder and not run.
    """
    first = {n: v for n, v in scans[0].provenance.items() if n != "cell"}
    return TaskTable(
        xr.concat([scan.data for scan in scans], dim="task"),
        {
            **first,
            "method": "task_table (Hendel et al. 2023, arXiv 2310.15916): a layer scan per task",
            **settings,
            "tasks": {name: of for scan in scans for name, of in scan.provenance["tasks"].items()},
            "token_texts": {
                token: text
                for scan in scans
                for token, text in scan.provenance.get("token_texts", {}).items()
            },
            "resumed": list(resumed),
            "devices": sorted({scan.provenance["device"] for scan in scans}),
        },
    )
