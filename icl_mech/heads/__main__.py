"""`python -m icl_mech.heads`: which attention heads carry the task?"""

from dataclasses import dataclass
from typing import Literal

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.errors import InputError
from icl_mech.heads.vectors import check_scales
from icl_mech.modes import refuse_unread
from icl_mech.prompts import check_counts, check_shots, draw_split
from icl_mech.results import Result
from icl_mech.tasks import Task

_DEFAULT = {"attribution": 25, "ablation": 50, "function_vectors": 50}
#: Options that not all modes read, with those that do; none: the map.
_BELONGS: dict[str, tuple[str, ...]] = {
    "off": ("ablation",),
    "n_heads": ("function_vectors",),
    "scale": ("function_vectors",),
    "output_bias": ("function_vectors",),
    "methods": (),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Attention heads (Todd et al. 2023).

    By default a map of all heads by three methods: exact average indirect effect, attribution
    patching, direct logit attribution. --ablation switches the top heads off together;
    --function-vectors injects their mean output into prompts that do not show the task.
    """

    ablation: tyro.conf.FlagCreatePairsOff[bool] = False
    """Few-shot accuracy without the top k heads, and without k random ones."""
    function_vectors: tyro.conf.FlagCreatePairsOff[bool] = False
    """Function vectors beside theta and controls, at every layer."""
    n_prompts: int | None = None
    """Test prompts per task: 25 for the map, 50 for the others."""
    n_shots: int = 10
    """Demonstrations per prompt."""
    n_clean: int | None = None
    """Other prompts: those over which outputs are averaged (50 for the map), or on which heads
    are ranked and layers chosen (25)."""
    off: Literal["other_tasks", "shuffled_labels", "zero"] = "other_tasks"
    """--ablation: what stands in for a head's output, its mean over prompts of other tasks or over
    prompts with shuffled labels, or nothing."""
    n_heads: tuple[int, ...] = (1, 2, 5, 10)
    """--function-vectors: heads in a vector; of several numbers the best on dev prompts."""
    scale: tuple[float, ...] = (1.0, 2.0, 4.0)
    """--function-vectors: factor on vectors that are added; of several the best on dev prompts."""
    output_bias: tyro.conf.FlagCreatePairsOff[bool] = False
    """--function-vectors: add attention's output bias once per head, as the paper's code does."""
    methods: tuple[Literal["aie", "attribution", "direct"], ...] = ("aie", "attribution", "direct")
    """The map: which methods. Quantised models can only do with aie."""
    tasks: Flat[TaskOptions]
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.heads", Options, _main, argv)


def _main(options: Options) -> None:
    flags = [mode for mode in ("ablation", "function_vectors") if getattr(options, mode)]
    if len(flags) > 1:
        raise InputError("--ablation and --function-vectors at once; expected one of them")
    refuse_unread(options, flags[0] if flags else None, _BELONGS)
    kind = flags[0] if flags else "attribution"
    n_prompts = _DEFAULT[kind] if options.n_prompts is None else options.n_prompts
    n_other = 50 if kind == "attribution" else 25
    n_other = n_other if options.n_clean is None else options.n_clean
    tasks = options.tasks.load()
    # What would be refused, before a model is loaded.
    n_dummies = 2 if kind == "function_vectors" else 1
    check_counts({"n_prompts": n_prompts, "n_clean": n_other}, options.tasks.seed)
    for task in tasks:
        draw_split(task, n_prompts, n_other, options.n_shots, n_dummies, options.tasks.seed)
    if not options.methods:
        raise InputError("no methods; expected at least one of aie, attribution, direct")
    check_shots(options.n_shots)
    if kind == "function_vectors":
        check_scales(options.scale)
        if not (options.n_heads and min(options.n_heads) > 0):
            raise InputError(f"n_heads is {options.n_heads}; expected numbers of at least 1")
    name = "heads" if kind == "attribution" else kind
    out = target(options, name, flags[0] if flags else None)
    deliver(_result(options, kind, tasks, n_prompts, n_other), out, options.output)


def _result(options: Options, kind: str, tasks: list[Task], n_prompts: int, n_other: int) -> Result:
    model = load(options.models)
    from icl_mech.heads import function_vectors, head_ablation, head_attribution

    progress = not options.output.no_progress
    seed, template = options.tasks.seed, options.tasks.template
    if kind == "attribution":
        return head_attribution(
            model,
            tasks,
            n_prompts,
            options.n_shots,
            seed,
            n_clean=n_other,
            methods=options.methods,
            template=template,
            progress=progress,
        )
    if kind == "ablation":
        return head_ablation(
            model,
            tasks,
            None,
            n_prompts,
            options.n_shots,
            seed,
            off=options.off,
            n_dev=n_other,
            template=template,
            progress=progress,
        )
    return function_vectors(
        model,
        tasks,
        None,
        n_prompts,
        options.n_shots,
        seed,
        n_heads=options.n_heads,
        scale=options.scale,
        output_bias=options.output_bias,
        n_dev=n_other,
        template=template,
        progress=progress,
    )


if __name__ == "__main__":
    main()
