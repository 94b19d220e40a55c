"""`python -m icl_mech.localize`: where is the task encoded, and where is it decoded?"""

import json
from dataclasses import dataclass, field
from pathlib import Path

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, load, run
from icl_mech.errors import InputError
from icl_mech.localize.curves import Rule
from icl_mech.prompts import draw_matched


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
    draw_matched(tasks, [options.n_points], options.n_shots + 2, options.tasks.seed)
    page = _page(options)
    from icl_mech.figures import task_map_report
    from icl_mech.localize import TaskMap, localize

    maps: list[TaskMap] = []
    for name in (options.models.model, *options.also):
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
        stem = page.stem if not maps else f"{page.stem}-{name.strip('/').replace('/', '-')}"
        found.save(page.with_name(f"{stem}.nc"))
        maps.append(found)
    written = task_map_report(maps, page)
    if options.output.json:
        rows = [
            {"model": m.provenance["model"], **row}
            for m in maps
            for row in m.summary().reset_index().astype(object).to_dict(orient="records")
        ]
        clean = [{k: None if v != v else v for k, v in row.items()} for row in rows]
        print(json.dumps({"summary": clean, "report": str(written)}))
        return
    for m in maps:
        print(m)
        for caveat in m.caveats():
            print(f"note: {caveat}")
    print(f"\nreport: {written.resolve()}")


def _page(options: Options) -> Path:
    """Where the report goes; refused now if it could not be written later."""
    from icl_mech.figures import check_target

    name = "-".join(Path(t).stem for t in options.tasks.task[:2]).replace("/", "-")
    page = options.output.out or Path("figures") / f"task_map-{name}.html"
    if page.suffix != ".html":
        raise InputError(f"{page}: a report is a page; expected a name that ends in .html")
    check_target(page)
    return page


if __name__ == "__main__":
    main()
