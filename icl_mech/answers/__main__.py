"""`python -m icl_mech.answers`: whole answers, and whether conclusions change with the score."""

from dataclasses import dataclass
from typing import Literal

from icl_mech.answers.settings import Settings, check
from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.prompts import half


@dataclass(frozen=True, kw_only=True)
class Options:
    """Score whole answers, also those of several tokens.

    Zero-shot, zero-shot with the task vector at the layer chosen on dev prompts, and few-shot
    prompts go on greedily until the answer ends; first token, prefix, exact text and the
    probability of the whole answer are compared. Writes an interactive figure, with the data
    beside it.
    """

    n_prompts: int = 50
    """Test prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    n_dev: int | None = None
    """Prompts on which the layer is chosen; half of --n-prompts by default."""
    layer: int | None = None
    """Inject after this block instead of choosing one."""
    by: Literal["first_token", "begins", "accepted", "strict"] = "accepted"
    """Score on dev prompts that chooses the layer."""
    max_new_tokens: int | None = None
    """A text that has not ended after these is cut; by default 3 more than the longest answer."""
    n_rivals: int = 7
    """Other answers of the task with which the right one is compared."""
    tasks: Flat[TaskOptions]
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.answers", Options, _main, argv)


def _main(options: Options) -> None:
    o = options
    tasks = o.tasks.load()
    n_dev = half(o.n_prompts, o.n_dev)
    # What would be refused, before a model is loaded.
    check(
        tasks,
        Settings(
            o.n_prompts,
            n_dev,
            o.n_shots,
            seed=o.tasks.seed,
            template=o.tasks.template,
            layer=o.layer,
            max_new_tokens=o.max_new_tokens,
            n_rivals=o.n_rivals,
        ),
    )
    out = target(o, "answers")
    from icl_mech.model import check_layer_of

    check_layer_of(o.models.model, o.layer)
    model = load(o.models)
    from icl_mech.answers import answer_scores

    result = answer_scores(
        model,
        tasks,
        n_prompts=o.n_prompts,
        n_shots=o.n_shots,
        n_dev=n_dev,
        seed=o.tasks.seed,
        layer=o.layer,
        by=o.by,
        max_new_tokens=o.max_new_tokens,
        n_rivals=o.n_rivals,
        template=o.tasks.template,
        progress=not o.output.no_progress,
    )
    deliver(result, out, o.output)


if __name__ == "__main__":
    main()
