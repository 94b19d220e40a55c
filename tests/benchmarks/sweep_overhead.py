"""What a sweep adds to its cells: time and memory per cell, planning and resuming. Prints tables.

The measure does nothing, on a random model of four blocks. `make bench-sweep` runs it.
"""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import tyro
from sweep_measures import MARKS
from tiny_models import random_model, saved

from icl_mech.sweep import MEASURES, CellFolder, plan_sweep, sweep
from icl_mech.tasks import list_tasks

MEASURES["nothing"] = MARKS


@dataclass(frozen=True)
class Options:
    """What a sweep adds to its cells."""

    n_cells: int = 1000
    """Cells that are run in each place."""
    grid: int = 10_000
    """Cells that are planned, and taken up again."""
    ray: bool = True
    """Run them on a Ray cluster of this machine, too."""


def per_cell(folder: Path, model: Path, n: int, **where: Any) -> dict[str, float]:
    """Milliseconds from one result to the next, and how the driver's memory grew over them.

    What is needed once (loading the model, starting workers) comes before the first result.
    """
    process, out = psutil.Process(), folder / "out"
    options: dict[str, Any] = {"folder": out, "progress": False, **where}
    sweep(model, "nothing", "to_upper", [n], **options)  # imports
    memory, used = process.memory_info().rss, time.process_time()
    sweep(model, "nothing", "to_upper", list(range(n)), **options)
    grown, used = process.memory_info().rss - memory, time.process_time() - used
    written = sorted(file.stat().st_mtime for file in out.glob("*.nc"))[1:]
    steps = sorted(b - a for a, b in pairwise(written))
    return {
        "ms a cell (mean)": (written[-1] - written[0]) / (len(written) - 1) * 1000,
        "median": steps[len(steps) // 2] * 1000,
        "ms of this process's processor time": used / n * 1000,
        "MB more of the driver": grown / 1e6,
    }


def large_grid(folder: Path, model: Path, n: int) -> dict[str, float]:
    """Seconds to plan a grid, and to find that all of it is finished."""
    models = {f"m{i}": model for i in range(10)}
    tasks = list_tasks()[:10]
    measures = {"nothing": None, "scan": {"n_prompts": 5}, "lens": {"n_prompts": 5}}
    seeds = list(range(n // (len(models) * len(tasks) * len(measures)) + 1))

    def plan() -> Any:
        grid = plan_sweep(models, measures, tasks, seeds)
        return grid, grid.recorded

    planning, (grid, recorded) = timed(plan)
    kept, cells = CellFolder(folder / "large"), {c.name: c.recorded() for c in grid.cells}
    with kept.writing(recorded, cells):
        for cell in grid.cells:
            kept.keep(cell.name, cell.made_of, os.urandom(30_000), **cell.recorded())
    resuming, _ = timed(
        lambda: sweep(models, measures, tasks, seeds, folder=folder / "large", progress=False)
    )
    return {"cells": len(grid.cells), "s to plan": planning, "s to plan and resume": resuming}


def timed(run: Any) -> tuple[float, Any]:
    """Median of three runs, in seconds, and what the last one returned."""
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        found = run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times), found


def main(options: Options) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = saved(random_model("llama"), folder / "model")
        places: dict[str, dict[str, Any]] = {"this process": {}, "one process": {"workers": 1}}
        if options.ray:
            places["Ray, one actor"] = {"ray": "local", "workers": 1}
        for place, where in places.items():
            (folder / place).mkdir()
            found = per_cell(folder / place, model, options.n_cells, **where)
            print(place, {n: round(v, 1) for n, v in found.items()}, flush=True)
        found = large_grid(folder, model, options.grid)
        print("grid", {n: round(v, 1) for n, v in found.items()}, flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
