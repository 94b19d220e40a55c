"""`python -m icl_mech.failures`: what can one task vector not do?"""

from dataclasses import dataclass, field

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.modes import refuse_unread
from icl_mech.prompts import half
from icl_mech.tasks import list_failures

#: Stands for all failure tasks where tasks are named.
ALL = "failures"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What one task vector cannot do: look up, copy, go both ways, bind fresh labels.

    Accuracy of the few-shot prompt, of one vector with its controls, and of several vectors
    written at once, on tasks whose answer depends on the prompt's own demonstrations; and which
    error each makes. Ordinary tasks can be named beside them.
    """

    n_prompts: int = 50
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt of ordinary tasks; failure tasks have their own number."""
    n_dev: int | None = None
    """Prompts on which layers are chosen; half of --n-prompts by default."""
    repairs: tuple[str, ...] = ("layers", "arrows", "labels", "demonstrations")
    """Several vectors instead of one: some of these."""
    no_repairs: tyro.conf.FlagCreatePairsOff[bool] = False
    """The vector alone; much faster."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=(ALL,)))
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.failures", Options, _main, argv)


def _main(options: Options) -> None:
    from icl_mech.failures.plan import Settings, check, load_any
    from icl_mech.failures.repair import check_repairs

    o = options
    if o.no_repairs:
        refuse_unread(o, "no_repairs", {"repairs": ()})
    names = [n for name in o.tasks.names for n in (list_failures() if name == ALL else [name])]
    tasks = load_any(names)
    repairs = () if o.no_repairs else check_repairs(o.repairs)
    # What would be refused, before a model is loaded.
    settings = Settings(
        o.n_prompts,
        half(o.n_prompts, o.n_dev),
        o.n_shots,
        seed=o.tasks.seed,
        template=o.tasks.template,
        repairs=repairs,
    )
    check(tasks, settings)
    out = target(o, "failures")
    model = load(o.models)
    from icl_mech.failures import task_vector_failures

    result = task_vector_failures(
        model,
        tasks,
        o.n_prompts,
        o.n_shots,
        o.tasks.seed,
        n_dev=o.n_dev,
        repairs=repairs,
        template=o.tasks.template,
        progress=not o.output.no_progress,
    )
    deliver(result, out, o.output)


if __name__ == "__main__":
    main()
