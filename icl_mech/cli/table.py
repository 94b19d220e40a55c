"""Options of `icl-mech table`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from icl_mech.cli.options import Command, Flat, TaskOptions, target
from icl_mech.cli.output import deliver
from icl_mech.patch.scan_plan import ScanPlan
from icl_mech.sweep.models import Loading, ModelEntry, plan_models
from icl_mech.table.plan import TableSettings, plan_table

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.table import TaskTable

Format = Literal["html", "csv", "tex", "md"]


@dataclass(frozen=True, kw_only=True)
class TableCommand(Command):
    """Learn how much of few-shot accuracy task vectors keep, beside published numbers.

    A sweep of layer scans, controls included (Hendel et al. 2023). Every finished task is kept in a
    folder: after an interrupt, the same command goes on where it stopped.
    Example: icl-mech table --n-prompts 50 --out figures/table.html
    """

    what = "table"
    settings: Flat[TableSettings] = field(default_factory=TableSettings)
    folder: Path | None = None
    """Where finished tasks are kept; by default beside the figure."""
    formats: tuple[Format, ...] = get_args(Format)
    """The table, beside the figure: a page, numbers, LaTeX (booktabs), Markdown."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("all",)))

    def plan(self) -> ScanPlan:
        return plan_table(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> TaskTable:
        from icl_mech.table.run import measure_table

        return measure_table(model, plan, self.folder, self.progress)

    def run(self) -> None:
        plan = self.plan()
        out = target(self)
        folder = self.folder or out.with_name(f"{out.stem}-runs")
        from icl_mech.plotting.export import check_writable
        from icl_mech.sweep.folder import MANIFEST, CellFolder
        from icl_mech.table.files import write_table
        from icl_mech.table.run import measure_table, table_grid

        entry = self._model()
        CellFolder(folder).check(table_grid(entry, plan).recorded)
        kinds = dict.fromkeys(self.formats)
        tables = {kind: out.with_name(f"{out.stem}-table.{kind}") for kind in kinds}
        for path in (folder / MANIFEST, *tables.values()):
            check_writable(path)
        table = measure_table(entry, plan, folder, self.progress)
        writers: dict[str, Callable[[], Path]] = {
            f"table_{kind}": partial(write_table, table, path, self.output.plotlyjs)
            for kind, path in tables.items()
        }
        deliver(table, out, self.output, also={**writers, "runs": lambda: folder})

    def _model(self) -> ModelEntry:
        """The model as a sweep loads it, when a task is left to be measured."""
        given = vars(self.models)
        adapter = None if self.models.adapter is None else str(self.models.adapter)
        names = ("device", "dtype", "trust_remote_code", "sink", "engine")
        loading = Loading(adapter=adapter, **{name: given[name] for name in names})
        (entry,) = plan_models(self.models.model, loading)
        return entry
