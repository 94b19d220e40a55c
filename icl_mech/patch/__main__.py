"""`python -m icl_mech.patch --layer-scan`: the task vector, layer by layer."""

from dataclasses import dataclass

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.errors import InputError
from icl_mech.prompts import draw_split


@dataclass(frozen=True, kw_only=True)
class Options:
    """Activation patching on in-context learning.

    --layer-scan injects task vectors into zero-shot prompts at every layer (Hendel et al. 2023)
    and writes an interactive figure, with the data beside it.
    """

    layer_scan: tyro.conf.FlagCreatePairsOff[bool] = False
    """Scan layers for the task vector."""
    n_prompts: int = 50
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    n_dev: int | None = None
    """Prompts on which the layer is chosen; half of --n-prompts by default."""
    tasks: Flat[TaskOptions]
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.patch", Options, _main, argv)


def _main(options: Options) -> None:
    if not options.layer_scan:
        raise InputError("nothing to do; expected --layer-scan (see --help)")
    tasks = options.tasks.load()
    n_dev = options.n_dev if options.n_dev is not None else max(1, options.n_prompts // 2)
    for task in tasks:  # what the scan would refuse, before a model is loaded
        draw_split(task, options.n_prompts, n_dev, options.n_shots, 2, options.tasks.seed)
    out = target(options.output, "layer_scan", tasks, options.models.model)
    model = load(options.models)
    from icl_mech.patch import layer_scan

    scan = layer_scan(
        model,
        tasks,
        n_prompts=options.n_prompts,
        n_shots=options.n_shots,
        n_dev=n_dev,
        seed=options.tasks.seed,
        template=options.tasks.template,
        progress=not options.output.no_progress,
    )
    deliver(scan, out, options.output)


if __name__ == "__main__":
    main()
