"""`python -m icl_mech.conflict`: the prompt shows one task, the vector is another's."""

from dataclasses import dataclass, field, replace

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.conflict.pairs import as_pairs, parse_pair
from icl_mech.conflict.settings import Settings, defined
from icl_mech.errors import InputError
from icl_mech.prompts import Template


@dataclass(frozen=True, kw_only=True)
class Options:
    """Conflicting tasks (Hendel et al. 2023): few-shot prompts of one task with another's vector.

    By default the five pairs of the paper, its numbers beside ours. --pairs takes others, --task
    all ordered pairs of several tasks (those without a conflict are left out, with the reason).
    """

    pairs: tuple[str, ...] = ()
    """Pairs, each the prompt's task, a colon, and the injected task: next_letter:to_upper."""
    n_prompts: int = 50
    """Prompts per pair."""
    n_shots: int = 4
    """Demonstrations per prompt and per vector."""
    n_dev: int = 25
    """Prompts per pair on which the layer is chosen."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=()))
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.conflict", Options, _main, argv)


def _main(options: Options) -> None:
    o = options
    if o.pairs and o.tasks.task:
        raise InputError("--pairs and --task at once; expected one of them (see --help)")
    Template(o.tasks.template)
    asked, matrix = _asked(o)
    # What would be refused, before a model is loaded.
    defined(
        asked,
        matrix,
        Settings(o.n_prompts, o.n_dev, o.n_shots, seed=o.tasks.seed, template=o.tasks.template),
    )
    tasks = list({task.name: task for pair in asked for task in pair}.values())
    named = replace(o.tasks, task=tuple(task.name for task in tasks))
    out = target(o if matrix else replace(o, tasks=named), "conflict")
    model = load(o.models)
    from icl_mech.conflict import conflicting_tasks

    result = conflicting_tasks(
        model,
        tasks if matrix else asked,
        o.n_prompts,
        o.n_shots,
        o.tasks.seed,
        n_dev=o.n_dev,
        template=o.tasks.template,
        progress=not o.output.no_progress,
    )
    deliver(result, out, o.output)


def _asked(o: Options) -> tuple[list, bool]:
    if o.pairs:
        return as_pairs([parse_pair(text) for text in o.pairs])
    return as_pairs(o.tasks.load() if o.tasks.task else None)


if __name__ == "__main__":
    main()
