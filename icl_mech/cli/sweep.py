"""Options of `icl-mech sweep`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from icl_mech.cli.options import Flag, Flat, PrintOptions
from icl_mech.cli.output import plain_rows, printing
from icl_mech.errors import InputError
from icl_mech.files import PlotlyJs
from icl_mech.sweep.grid import Grid, plan_sweep, read_specification
from icl_mech.sweep.models import Loading

if TYPE_CHECKING:
    from icl_mech.sweep import Sweep

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


@dataclass(frozen=True, kw_only=True)
class SweepCommand:
    """Learn how models differ: the same measures on many models, tasks and seeds, in one folder.

    What is finished is never run again: after an interrupt, a kill or a full disk the same command
    goes on. A cell that fails is noted and the others go on; exit code 1 at the end where any did.
    Example: icl-mech sweep --models gemma-3-270m org/name --measures scan localize --tasks verbs
    """

    spec: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="FILE")] = None
    """A YAML or TOML file with models, measures, tasks, seeds, settings and load; options replace
    what it says."""
    models: tuple[str, ...] = ()
    """The packaged model, hub names (org/name@revision), folders or .gguf files."""
    measures: tuple[str, ...] = ()
    """Names of commands: scan, heads, decodability, localize, answers, variability, ..."""
    tasks: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--task"])] = ()
    """Tasks, families, files of pairs, or all; by default every measure's own. A measure that
    compares tasks takes each family, and all single tasks together, as one cell."""
    seeds: tuple[int, ...] = ()
    """Of the random draws; 0 by default."""
    set: tuple[str, ...] = ()
    """Options of measures: n_prompts=20 for all that have it, scan.n_dev=5 for one."""
    folder: Path = Path("figures") / "sweep"
    """Where finished cells are kept; more of them may be added later."""
    load: Flat[Loading] = field(default_factory=Loading)
    workers: int | None = None
    """Processes on this machine, or actors on Ray; by default this process alone."""
    ray: str | None = None
    """A Ray cluster: local (of this machine), auto (one that runs here), or host:port."""
    gpus_per_worker: float = 0
    """GPUs of every actor on Ray."""
    max_memory: str | None = None
    """What every actor on Ray reserves, such as 20GB; with --dry-run, the memory of a device."""
    retries: int = 0
    """How often a cell that fails is tried again."""
    copy_to: str | None = None
    """Where results are copied to as well, as fsspec names it: s3://bucket/folder, gs://..."""
    dry_run: Flag = False
    """Only say what would run: cells, operations, memory and hours, from configurations alone."""
    flops_per_second: float = 1e12
    """With --dry-run: operations a second that the machine reaches in matrix products."""
    bytes_per_second: float = 1e11
    """With --dry-run: bytes a second that it reads from memory."""
    report_only: Flag = False
    """Run nothing: the report of what the folder holds by now."""
    out: Path | None = None
    """The report, a page (.html); tables go beside it. By default report.html in the folder."""
    plotlyjs: PlotlyJs = "inline"
    """Where the page has plotly.js from (4.8 MB): inside, plotly's server, or a file beside it."""
    output: Flat[PrintOptions] = field(default_factory=PrintOptions)

    def grid(self) -> Grid:
        """All cells, checked.

        Raises:
            InputError: as `plan_sweep`, and where nothing says which models and measures.
        """
        said = {} if self.spec is None else read_specification(self.spec)
        for name in ("models", "measures", "tasks", "seeds"):
            if getattr(self, name):
                said[name] = getattr(self, name)
        for name in ("models", "measures"):
            if not said.get(name):
                raise InputError(f"no {name} are named; expected --{name}, or a file that has them")
        changed = {
            f.name: value
            for f in fields(Loading)
            if (value := getattr(self.load, f.name)) != f.default
        }
        said["load"] = {**(said.get("load") or {}), **changed}
        return plan_sweep(**self._with_options(said))

    def _with_options(self, said: dict[str, Any]) -> dict[str, Any]:
        """The same with the options of `--set`."""
        settings, measures = dict(said.get("settings") or {}), said["measures"]
        if not isinstance(measures, dict):
            listed = [measures] if isinstance(measures, str) else list(measures)
            measures = dict.fromkeys(listed) if len(set(listed)) == len(listed) else listed
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals:
                raise InputError(f"--set {text}; expected option=value or measure.option=value")
            import yaml

            try:
                read = yaml.safe_load(value.replace("\\n", "\n"))
            except yaml.YAMLError:
                read = value
            entry, dot, option = name.rpartition(".")
            if not dot:
                settings[option] = read
            elif not isinstance(measures, dict) or entry not in measures:
                raise InputError(f"--set {text}: {entry!r} is no measure of this sweep")
            else:
                measures[entry] = {**(measures[entry] or {}), option: read}
        return {**said, "settings": settings, "measures": measures}

    def run(self) -> None:
        """Plan, run, and write and print what was found.

        Raises:
            SystemExit: with code 1, where a cell failed.
        """
        page = self.out or self.folder / "report.html"
        if page.suffix != ".html":
            raise InputError(f"{page}: a report is a page; expected a name that ends in .html")
        if self.report_only:
            self._refuse_grid()
        else:
            grid = self.grid()
            if self.dry_run:
                self._estimate(grid)
                return
            from icl_mech.plotting.export import check_writable
            from icl_mech.sweep.run import choose_place, run_grid

            check_writable(page)
            memory = None if self.max_memory is None else _bytes(self.max_memory)
            place = choose_place(self.workers, self.ray, self.gpus_per_worker, memory)
            progress = not self.output.no_progress
            run_grid(grid, self.folder, place, self.retries, self.copy_to, progress)
        from icl_mech.sweep import Sweep

        found = Sweep(self.folder)
        self._print(found, found.report(page, self.plotlyjs))
        if found.failed:
            n = len(found.failed)
            print(f"{n} {'cell' if n == 1 else 'cells'} failed:", file=sys.stderr)
            for name, error in found.failed.items():
                print(f"  {name}: {error}", file=sys.stderr)
            raise SystemExit(1)

    def _refuse_grid(self) -> None:
        if self.spec or self.models or self.measures or self.dry_run:
            raise InputError("--report-only beside what is to be run; expected one of both")

    def _print(self, found: Sweep, page: Path) -> None:
        with printing():
            if not self.output.json:
                print(f"{found}\n\nreport: {page.resolve()}")
                return
            cells = plain_rows(found.cells())
            print(json.dumps({"cells": cells, "failed": found.failed, "report": str(page)}))

    def _estimate(self, grid: Grid) -> None:
        """Print what the sweep would take."""
        from icl_mech.sweep.estimate import estimate

        found = estimate(grid, self.flops_per_second, self.bytes_per_second)
        large = {} if self.max_memory is None else found.too_large(_bytes(self.max_memory))
        notes = [
            *found.notes,
            *(
                f"{name} needs {memory / 1e9:,.1f} GB and does not fit {self.max_memory}"
                for name, memory in large.items()
            ),
        ]
        with printing():
            if self.output.json:
                print(json.dumps({"rows": plain_rows(found.rows), "notes": notes}))
                return
            print(f"{len(grid.cells):,} cells\n{found.table().to_string(index=False)}")
            for note in notes:
                print(f"note: {note}")


def _bytes(text: str) -> int:
    """A size as people write it.

    >>> _bytes("1.5GB")
    1500000000

    Raises:
        InputError: where it is none.
    """
    number = text.strip().upper().rstrip("KMGTB ")
    unit = text.strip().upper().removeprefix(number).strip()
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        raise InputError(f"{text!r} is no size; expected one such as 20GB") from None
