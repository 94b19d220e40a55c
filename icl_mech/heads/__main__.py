"""`python -m icl_mech.heads`: which attention heads carry the task?"""

from dataclasses import dataclass

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.prompts import draw_split


@dataclass(frozen=True, kw_only=True)
class Options:
    """Average indirect effect of every attention head (Todd et al. 2023), as a map of heads."""

    n_prompts: int = 25
    """Prompts with shuffled labels, per task."""
    n_shots: int = 10
    """Demonstrations per prompt."""
    n_clean: int = 50
    """Clean prompts over which a head's output is averaged."""
    tasks: Flat[TaskOptions]
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.heads", Options, _main, argv)


def _main(options: Options) -> None:
    tasks = options.tasks.load()
    for task in tasks:  # what the attribution would refuse, before a model is loaded
        draw_split(task, options.n_prompts, options.n_clean, options.n_shots, 1, options.tasks.seed)
    out = target(options.output, "heads", tasks, options.models.model)
    model = load(options.models)
    from icl_mech.heads import head_attribution

    result = head_attribution(
        model,
        tasks,
        n_prompts=options.n_prompts,
        n_shots=options.n_shots,
        n_clean=options.n_clean,
        seed=options.tasks.seed,
        template=options.tasks.template,
        progress=not options.output.no_progress,
    )
    deliver(result, out, options.output)


if __name__ == "__main__":
    main()
