"""`python -m icl_mech.decodability`: where can the task be read?"""

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, deliver, load, run, target
from icl_mech.decodability.settings import LeaveOut, Metric, Normalise, Settings, plan


@dataclass(frozen=True, kw_only=True)
class Options:
    """Task decodability (Han et al. 2024): do a prompt's nearest neighbours know its task?"""

    tasks: tuple[str, ...] = ("verbs",)
    """A family (verbs, english_words, countries, letters, pos, bitwise), or two or more tasks."""
    n_points: int = 100
    """Prompts per task."""
    n_shots: tuple[int, ...] = (4,)
    """Demonstrations per prompt; several numbers are measured on the same queries."""
    k: int = 10
    """How many neighbours vote."""
    metric: Metric = "cosine"
    """Distance between residual streams."""
    normalise: Normalise = "none"
    """Scale every dimension to mean 0 and standard deviation 1 first, or not."""
    leave_out: LeaveOut = "query"
    """With the point, every other point with its query; or the point alone."""
    no_probe: tyro.conf.FlagCreatePairsOff[bool] = False
    """No linear probe."""
    no_controls: tyro.conf.FlagCreatePairsOff[bool] = False
    """No prompts with shuffled labels, no queries alone."""
    seed: int = 0
    """Of every random draw."""
    template: str = "{x}->{y}"
    """How a pair is written."""
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.decodability", Options, _main, argv)


def _main(options: Options) -> None:
    o = options
    tasks: str | tuple[str, ...] = o.tasks[0] if len(o.tasks) == 1 else o.tasks
    settings = Settings(
        o.n_points,
        o.n_shots,
        o.seed,
        o.k,
        "final_arrow",
        o.metric,
        o.normalise,
        o.leave_out,
        o.template,
        None,
    )
    planned = plan(tasks, settings)  # what the run would refuse, before a model is loaded
    output = o.output
    if output.out is None and len(o.tasks) == 1:  # named after the family
        name = f"decodability-{Path(o.tasks[0]).stem}-{Path(o.models.model).name}.html"
        output = replace(output, out=Path("figures") / name.replace("@", "-"))
    out = target(output, "decodability", list(planned.pool.tasks), o.models.model)
    model = load(o.models)
    from icl_mech.decodability import task_decodability

    result = task_decodability(
        model,
        tasks,
        o.n_points,
        o.n_shots,
        o.seed,
        k=o.k,
        metric=o.metric,
        normalise=o.normalise,
        leave_out=o.leave_out,
        probe=not o.no_probe,
        controls=not o.no_controls,
        template=o.template,
        progress=not o.output.no_progress,
    )
    deliver(result, out, output)


if __name__ == "__main__":
    main()
