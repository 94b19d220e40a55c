"""`python -m icl_mech.lens`: what would each layer say, and what do task vectors say?"""

from dataclasses import dataclass
from typing import Literal

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.errors import InputError
from icl_mech.lens.targets import check_roles, check_vector
from icl_mech.modes import refuse_unread
from icl_mech.prompts import draw_split
from icl_mech.results import Result
from icl_mech.tasks import Task, load_other

#: Options that not both modes read, with the one that does; none: prompts.
_BELONGS: dict[str, tuple[str, ...]] = {
    "roles": (),
    "other_task": (),
    "vector": ("vectors",),
    "average": ("vectors",),
    "only_words": ("vectors",),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The logit lens.

    By default on few-shot prompts: the answer, the query, the most frequent answer and another
    task's answer at every layer. --vectors reads task vectors through the unembedding instead
    (Hendel et al. 2023): do their top tokens name the task?
    """

    vectors: tyro.conf.FlagCreatePairsOff[bool] = False
    """Read vectors instead of prompts."""
    n_prompts: int = 25
    """Prompts per task."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    top_k: int | None = None
    """Top tokens that are kept: 5 by default, 20 with --vectors."""
    roles: tuple[str, ...] = ("final_arrow",)
    """At which tokens: final_arrow, query, demo_0_x, demo_0_arrow, ..."""
    other_task: str | None = None
    """Whose answers are rivals; by default a task that shares most inputs, if there is one."""
    vector: Literal["theta", "function"] = "theta"
    """--vectors: theta at every layer, or function vectors from the heads with the largest AIE."""
    average: Literal["log_probability", "vector"] = "log_probability"
    """--vectors: of several vectors, average what they say, or average them and ask the mean."""
    only_words: tyro.conf.FlagCreatePairsOff[bool] = False
    """--vectors: leave out tokens that are not letters only (recorded in the result)."""
    tasks: Flat[TaskOptions]
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.lens", Options, _main, argv)


def _main(options: Options) -> None:
    o = options
    refuse_unread(o, "vectors" if o.vectors else None, _BELONGS)
    tasks = o.tasks.load()
    for task in tasks:  # what would be refused, before a model is loaded
        draw_split(task, o.n_prompts, 1, o.n_shots, 2 if o.vectors else 1, o.tasks.seed)
        if o.other_task is not None:
            load_other(task, o.other_task)
    if o.vectors:
        check_vector(o.vector, o.n_shots)
    check_roles(o.roles, o.tasks.template, o.n_shots)
    if o.top_k is not None and o.top_k < 1:
        raise InputError(f"top_k is {o.top_k}; expected at least 1")
    out = target(o, "vocabulary" if o.vectors else "lens", "vectors")
    deliver(_result(o, tasks), out, o.output)


def _result(o: Options, tasks: list[Task]) -> Result:
    model = load(o.models)
    from icl_mech.lens import logit_lens, vector_lens

    progress = not o.output.no_progress
    if o.vectors:
        return vector_lens(
            model,
            tasks,
            o.vector,
            o.n_prompts,
            o.n_shots,
            o.tasks.seed,
            top_k=20 if o.top_k is None else o.top_k,
            average=o.average,
            only_words=o.only_words,
            template=o.tasks.template,
            progress=progress,
        )
    return logit_lens(
        model,
        tasks,
        o.n_prompts,
        o.n_shots,
        o.tasks.seed,
        roles=o.roles,
        top_k=5 if o.top_k is None else o.top_k,
        other_task=o.other_task,
        template=o.tasks.template,
        progress=progress,
    )


if __name__ == "__main__":
    main()
