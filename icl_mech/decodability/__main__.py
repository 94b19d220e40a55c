"""`python -m icl_mech.decodability`: where can the task be read, and what does writing it do?"""

from dataclasses import dataclass, field

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.decodability.settings import LeaveOut, Metric, Normalise, Settings, plan
from icl_mech.errors import InputError
from icl_mech.modes import refuse_unread
from icl_mech.patch.means_plan import MODES, Mode, plan_patching
from icl_mech.prompts import check_counts
from icl_mech.results import Result

#: Which options only one of the two modes reads.
_READING = ("k", "metric", "normalise", "leave_out", "no_probe", "no_controls")
_WRITING = ("n_mean", "layers", "modes")
_BELONGS: dict[str, tuple[str, ...]] = dict.fromkeys(_READING, ())
_BELONGS |= dict.fromkeys(_WRITING, ("mean_patching",))


@dataclass(frozen=True, kw_only=True)
class Options:
    """Task decodability (Han et al. 2024): do a prompt's nearest neighbours know its task?

    --mean-patching asks instead what every task's mean activation does when it is written into
    every task's prompts.
    """

    mean_patching: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write means into prompts instead of reading tasks from them."""
    n_points: int | None = None
    """Prompts per task: 100, or 20 with --mean-patching."""
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
    n_mean: int = 50
    """--mean-patching: prompts per task over which its mean is taken."""
    layers: tuple[int, ...] | None = None
    """--mean-patching: blocks after which is written; by default six, evenly spaced."""
    modes: tuple[Mode, ...] = MODES
    """--mean-patching: write over the residual stream, add to it, or both."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("verbs",)))
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.decodability", Options, _main, argv)


def _main(options: Options) -> None:
    what = "mean_patching" if options.mean_patching else "decodability"
    measure = _mean_patching if options.mean_patching else _decodability
    # What the run would refuse is refused before a model is loaded.
    _check(options)
    out = target(options, what, what)
    deliver(measure(options), out, options.output)


def _check(o: Options) -> None:
    refuse_unread(o, "mean_patching" if o.mean_patching else None, _BELONGS)
    if o.mean_patching:
        counts = {"n_points": _n_points(o), "n_mean": o.n_mean, "n_shots": _one_shot_count(o)}
        n_points, n_mean, n_shots = check_counts(counts, o.tasks.seed)
        plan_patching(o.tasks.names, n_points, n_mean, n_shots, o.tasks.seed, o.modes)
        return
    settings = Settings(
        n_points=_n_points(o),
        n_shots=o.n_shots,
        seed=o.tasks.seed,
        k=o.k,
        role="final_arrow",
        metric=o.metric,
        normalise=o.normalise,
        leave_out=o.leave_out,
        template=o.tasks.template,
        leading_space=None,
    )
    plan(o.tasks.names, settings)


def _n_points(o: Options) -> int:
    return (20 if o.mean_patching else 100) if o.n_points is None else o.n_points


def _one_shot_count(o: Options) -> int:
    if len(o.n_shots) != 1:
        raise InputError(f"n_shots {list(o.n_shots)}; expected one number with --mean-patching")
    return o.n_shots[0]


def _decodability(o: Options) -> Result:
    model = load(o.models)
    from icl_mech.decodability import task_decodability

    return task_decodability(
        model,
        o.tasks.names,
        _n_points(o),
        o.n_shots,
        o.tasks.seed,
        k=o.k,
        metric=o.metric,
        normalise=o.normalise,
        leave_out=o.leave_out,
        probe=not o.no_probe,
        controls=not o.no_controls,
        template=o.tasks.template,
        progress=not o.output.no_progress,
    )


def _mean_patching(o: Options) -> Result:
    model = load(o.models)
    from icl_mech.patch import mean_patching

    return mean_patching(
        model,
        o.tasks.names,
        _n_points(o),
        _one_shot_count(o),
        o.tasks.seed,
        n_mean=o.n_mean,
        layers=o.layers,
        modes=o.modes,
        template=o.tasks.template,
        progress=not o.output.no_progress,
    )


if __name__ == "__main__":
    main()
