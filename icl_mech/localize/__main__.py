"""`python -m icl_mech.localize`: where is the task encoded, and where is it decoded?"""

from dataclasses import dataclass, field
from pathlib import Path

import tyro

from icl_mech.cli import (
    Flat,
    ModelOptions,
    OutputOptions,
    TaskOptions,
    load,
    rows,
    run,
    show,
    target,
)
from icl_mech.errors import InputError
from icl_mech.localize.curves import Rule
from icl_mech.prompts import N_DUMMIES, check_counts, draw_matched


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
    tasks = options.tasks.load()
    Rule(options.fraction)
    # What would be refused, before a model is loaded.
    counts = {"n_prompts": options.n_prompts, "n_shots": options.n_shots}
    check_counts(counts, options.tasks.seed)
    n_points = {"n_points": options.n_points}
    draw_matched(tasks, n_points, options.n_shots + N_DUMMIES, options.tasks.seed)
    page = _page(options)
    from icl_mech.model import check_source

    names = (options.models.model, *options.also)
    for name in names:  # all of them, before the first is measured
        check_source(name)
    from icl_mech.figures import task_map_report
    from icl_mech.localize import TaskMap, localize

    maps: list[TaskMap] = []
    files: dict[str, Path] = {}
    for name in names:
        model = load(ModelOptions(**{**vars(options.models), "model": name}))
        found = localize(
            model,
            tasks,
            options.n_prompts,
            options.n_shots,
            options.tasks.seed,
            n_points=options.n_points,
            fraction=options.fraction,
            heads=not options.no_heads,
            template=options.tasks.template,
            progress=not options.output.no_progress,
        )
        other = f"-{name.strip('/').replace('/', '-')}" if maps else ""
        what = f"data_{name}" if maps else "data"
        files[what] = found.save(page.with_name(f"{page.stem}{other}.nc"))
        maps.append(found)
    files = {"report": task_map_report(maps, page), **files}
    summary = [{"model": m.provenance["model"], **row} for m in maps for row in rows(m)]
    show(maps, summary, files, options.output)


def _page(options: Options) -> Path:
    """Where the report goes; refused now if it could not be written later."""
    models = "-".join(Path(name).name for name in (options.models.model, *options.also))
    page = target(options.output, "task_map", options.tasks, models, spelled=True)
    if page.suffix != ".html":
        raise InputError(f"{page}: a report is a page; expected a name that ends in .html")
    return page


if __name__ == "__main__":
    main()
