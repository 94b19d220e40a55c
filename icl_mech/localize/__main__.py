"""`python -m icl_mech.localize`: where is the task encoded, and where is it decoded?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from icl_mech.cli import (
    Flat,
    ModelOptions,
    OutputOptions,
    TaskOptions,
    check_models,
    deliver_all,
    load,
    rows,
    run,
    target,
)
from icl_mech.errors import InputError
from icl_mech.localize.curves import Rule
from icl_mech.localize.settings import N_NEIGHBOURS, check_sizes
from icl_mech.prompts import draw_matched
from icl_mech.run_names import model_label
from icl_mech.tasks import Task

if TYPE_CHECKING:
    from icl_mech.localize import TaskMap


@dataclass(frozen=True, kw_only=True)
class Options:
    """Encoding, transfer, lens and heads on one axis of layers, as one page that opens offline.

    Names, by each read-out, the layer where the task is formed and the layer where it is decoded,
    with bootstrap intervals over prompts.
    """

    also: tuple[str, ...] = ()
    """More models to compare with on the same tasks, by relative depth."""
    n_prompts: int = 25
    """Prompts per task for transfer, lens and heads."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    n_points: int = 100
    """Prompts per task for decodability."""
    fraction: float = 0.5
    """How far from floor to peak a curve has to be to count as risen."""
    no_heads: tyro.conf.FlagCreatePairsOff[bool] = False
    """Leave out the heads' average indirect effect."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("countries",)))
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.localize", Options, _main, argv)


def _main(options: Options) -> None:
    o = options
    tasks = o.tasks.load()
    Rule(o.fraction)
    # What would be refused, before a model is loaded.
    check_sizes(o.n_prompts, o.n_shots, o.n_points, N_NEIGHBOURS, o.tasks.seed, not o.no_heads)
    draw_matched(tasks, {"n_points": o.n_points}, o.n_shots + 2, o.tasks.seed)
    page = _page(o)
    names = check_models(o.models, o.also)
    maps = [_measure(o, tasks, name, page) for name in names]
    from icl_mech.localize.page import task_map_report

    writers: dict[str, Callable[[], Path]] = {"report": lambda: task_map_report(maps, page)}
    for i, (name, found) in enumerate(zip(names, maps, strict=True)):
        what = f"data_{model_label(name)}" if i else "data"
        writers[what] = partial(found.save, _data(page, names, name))
    summary = [{"model": m.provenance["model"], **row} for m in maps for row in rows(m)]
    deliver_all(maps, summary, writers, o.output)


def _measure(o: Options, tasks: list[Task], name: str, page: Path) -> TaskMap:
    model = load(replace(o.models, model=name))
    from icl_mech.localize import localize

    found = localize(
        model,
        tasks,
        o.n_prompts,
        o.n_shots,
        o.tasks.seed,
        n_points=o.n_points,
        fraction=o.fraction,
        heads=not o.no_heads,
        template=o.tasks.template,
        progress=not o.output.no_progress,
    )
    if o.also:  # kept, whatever becomes of the others
        found.save(_data(page, (o.models.model, *o.also), name))
    return found


def _data(page: Path, names: tuple[str, ...], name: str) -> Path:
    """Where one model's data go: beside the page, the first's by the page's own name."""
    other = "" if name == names[0] else f"-{model_label(name)}"
    return page.with_name(f"{page.stem}{other}.nc")


def _page(options: Options) -> Path:
    """Where the report goes; refused now if it could not be written later."""
    page = target(options, "task_map")
    if page.suffix != ".html":
        raise InputError(f"{page}: a report is a page; expected a name that ends in .html")
    return page


if __name__ == "__main__":
    main()
