"""`python -m icl_mech.patch --layer-scan`: the task vector, layer by layer."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, run
from icl_mech.errors import InputError
from icl_mech.prompts import Template, draw_split
from icl_mech.tasks import Task, list_tasks, load_task


@dataclass(frozen=True, kw_only=True)
class Options:
    """Activation patching on in-context learning.

    --layer-scan injects task vectors into zero-shot prompts at every layer (Hendel et al. 2023)
    and writes an interactive figure, with the data beside it.
    """

    layer_scan: tyro.conf.FlagCreatePairsOff[bool] = False
    """Scan layers for the task vector."""
    task: tuple[str, ...] = ("country_capital",)
    """Tasks by name, files of pairs (.json, .jsonl, .csv, .tsv), or 'all'."""
    n_prompts: int = 50
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    n_dev: int | None = None
    """Prompts on which the layer is chosen; half of --n-prompts by default."""
    seed: int = 0
    """Of every random draw."""
    template: str = "{x}->{y}"
    """How a pair is written."""
    model_options: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.patch", Options, _main, argv)


def _main(options: Options) -> None:
    if not options.layer_scan:
        raise InputError("nothing to do; expected --layer-scan (see --help)")
    tasks = _tasks(options)
    from icl_mech.figures import check_target, export

    out = options.output.out or Path("figures") / _figure_name(options, [t.name for t in tasks])
    check_target(out)
    from icl_mech.model import load_model
    from icl_mech.patch import layer_scan

    chosen = options.model_options
    _say(f"loading {chosen.model}")
    model = load_model(
        chosen.model,
        device=chosen.device,
        dtype=chosen.dtype,
        trust_remote_code=chosen.trust_remote_code,
    )
    scan = layer_scan(
        model,
        tasks,
        n_prompts=options.n_prompts,
        n_shots=options.n_shots,
        n_dev=options.n_dev,
        seed=options.seed,
        template=options.template,
        progress=not options.output.no_progress,
    )
    data = scan.save(out.with_suffix(".nc"))
    figure = export(scan.plot(), out)
    if options.output.json:
        table = scan.summary().reset_index().astype(object)
        summary = table.where(table.notna(), None).to_dict(orient="records")
        files = {"figure": str(figure), "data": str(data)}
        print(json.dumps({"tasks": summary, "provenance": scan.provenance, **files}))
        return
    print(scan)
    for caveat in scan.caveats():
        print(f"note: {caveat}")
    print(f"\nfigure: {figure.resolve()}\ndata:   {data.resolve()}")


def _tasks(options: Options) -> list[Task]:
    """Load the tasks, and refuse before a model is loaded what the scan would refuse after."""
    names = [n for name in options.task for n in (list_tasks() if name == "all" else [name])]
    tasks = [load_task(name) for name in names]
    Template(options.template)
    n_dev = options.n_dev if options.n_dev is not None else max(1, options.n_prompts // 2)
    for task in tasks:
        draw_split(task, options.n_prompts, n_dev, options.n_shots, 2, options.seed)
    return tasks


def _figure_name(options: Options, tasks: list[str]) -> str:
    model = Path(options.model_options.model).name.replace("@", "-")
    what = tasks[0] if len(tasks) == 1 else f"{len(tasks)}_tasks"
    return f"layer_scan-{what}-{model}.html"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
