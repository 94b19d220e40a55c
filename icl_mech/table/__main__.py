"""`python -m icl_mech.table`: baseline, hypothesis and regular accuracy for all tasks."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target

Format = Literal["html", "csv", "tex", "md"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The main table: what does a task vector keep of few-shot accuracy?

    A layer scan of every task, controls included, with the published numbers beside it. Every
    finished task is kept in a folder: run the same command again after an interrupt, and it goes
    on where it stopped.
    """

    n_prompts: int = 100
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    n_dev: int | None = None
    """Prompts on which the layer is chosen; half of --n-prompts by default."""
    control_layers: Literal["chosen", "all"] = "chosen"
    """Inject controls where theta is best on dev prompts, or after every block (twice as long)."""
    folder: Path | None = None
    """Where finished tasks are kept; by default beside the figure."""
    formats: tuple[Format, ...] = get_args(Format)
    """The table, beside the figure: a page, numbers, LaTeX (booktabs), Markdown."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("all",)))
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.table", Options, _main, argv)


def _main(options: Options) -> None:
    o = options
    tasks = o.tasks.load()
    from icl_mech.table.folder import MANIFEST, check_folder
    from icl_mech.table.settings import run_settings

    # What would be refused, before a model is loaded.
    settings = run_settings(
        tasks,
        o.n_prompts,
        o.n_shots,
        o.tasks.seed,
        o.n_dev,
        template=o.tasks.template,
        control_layers=o.control_layers,
    )
    out = target(o, "table")
    folder = o.folder or out.with_name(f"{out.stem}-runs")
    check_folder(folder, settings)
    from icl_mech.plotting.export import check_writable

    check_writable(folder / MANIFEST)
    tables = {kind: out.with_name(f"{out.stem}-table.{kind}") for kind in dict.fromkeys(o.formats)}
    for path in tables.values():
        check_writable(path)
    model = load(o.models)
    from icl_mech.table import task_table, write_table

    table = task_table(
        model,
        tasks,
        n_prompts=o.n_prompts,
        n_shots=o.n_shots,
        seed=o.tasks.seed,
        n_dev=o.n_dev,
        template=o.tasks.template,
        control_layers=o.control_layers,
        folder=folder,
        progress=not o.output.no_progress,
    )
    writers: dict[str, Callable[[], Path]] = {
        f"table_{kind}": partial(write_table, table, path) for kind, path in tables.items()
    }
    deliver(table, out, o.output, also={**writers, "runs": lambda: folder})


if __name__ == "__main__":
    main()
