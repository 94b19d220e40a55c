"""Task decodability (Han et al. 2024): can the task be read from the last prompt token?"""

from collections.abc import Sequence
from importlib.metadata import version

import xarray as xr

from icl_mech.decodability.plan import (
    DecodabilitySettings,
    LeaveOut,
    Metric,
    Normalise,
    Plan,
    plan,
)
from icl_mech.decodability.reading import Run
from icl_mech.decodability.result import TaskDecodability
from icl_mech.layers import check_layers
from icl_mech.model import HookedModel, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, shot_counts
from icl_mech.tasks import Tasks


def task_decodability(
    model: HookedModel,
    tasks: Tasks = "verbs",
    n_prompts: int = 100,
    n_shots: int | Sequence[int] = 4,
    seed: int = 0,
    *,
    k: int = 10,
    layers: Sequence[int] | None = None,
    role: str | int = "final_arrow",
    metric: Metric = "cosine",
    normalise: Normalise = "none",
    leave_out: LeaveOut = "query",
    probe: bool = True,
    controls: bool = True,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    keep: bool = False,
    progress: bool = True,
) -> TaskDecodability:
    """Let the nearest neighbours of every prompt vote for its task, at every layer.

    Han et al. 2024 (arXiv 2412.12276, section 4): represent a few-shot prompt by the residual
    stream at the token just before the answer, after block `l`; pool `n_prompts` prompts of every
    task; leave one out, let its `k` nearest neighbours vote for the task. TD is the share of
    points whose vote is right. The paper does not state distance, normalisation or ties:

    - *Distance*: cosine by default, because it does not depend on the length of a vector, which
      grows from block to block and differs between prompts.
    - *Normalisation*: none by default, because the paper mentions none. Every result has a
      sensitivity table with the other choices.
    - *Ties*: tasks with equally many votes share the credit, which is the average of breaking ties
      at random. Neighbours that are equally far share the last places, each with a fraction of a
      vote. Within a family, a representation without information about the task has a TD of
      exactly 1 / (number of tasks).

    One difference from the paper is deliberate: together with the point, every other point with the
    same query is left out (`leave_out="query"`); the paper leaves out the point alone (`"point"`).
    Within a family every task asks the same queries, and prompts with the same query are near one
    another. If only the point is left out, its query stays in the pool for every task but its own.
    This lowers TD, even below chance: for the query alone, to 0. So TD in early blocks is higher
    with `"query"` than with `"point"`. On translations into Spanish, French and Italian
    (`gemma-3-270m`, 5 shots, chance .33) TD after block 0 is .73 with `"query"` and .59 with
    `"point"`; after block 12 it is .46 and .19.

    Beyond the paper: point `i` of every task has the same query and demonstration inputs, if the
    tasks share inputs. Intervals come from resampling queries. The layer is chosen on other queries
    than TD is reported on, in a pool of their own (`held_out`). Controls are prompts with shuffled
    labels and the zero-shot query alone; a cross-validated linear probe and the accuracy on the
    same prompts are measured too. No query is ever among the demonstrations.

    Args:
        model: from `load_model`.
        tasks: a family or its name; or a list of tasks and names. A family's null task is left
            out, because its answers are random.
        n_prompts: prompts per task. If the tasks have too few inputs, queries are asked again with
            other demonstrations (the result says how many queries differ).
        n_shots: demonstrations per prompt; several numbers are measured on the same queries, and
            smaller numbers use the first demonstrations of the larger ones.
        seed: of every random draw.
        k: number of neighbours that vote.
        layers: the blocks whose outputs are read; all by default.
        role: the part of the prompt whose last token represents it; in the paper `"final_arrow"`.
        metric: `"cosine"` or `"euclidean"`.
        normalise: `"standardise"`: every dimension has mean 0 and standard deviation 1 over the
            pool; or `"none"`.
        leave_out: `"query"`, or as in the paper `"point"`; see above.
        probe: fit the linear probe.
        controls: run prompts with shuffled labels, and queries alone.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way needs fewer
            tokens over all tasks' answers.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself (Han et al., table 1).
            Its words may give the task away, so the query after the instruction, without any
            demonstration, is a further control (`control="instruction"`).
        keep: store the representations too, as `data["representation"]`: n_prompts x tasks x
            shots x layers x d_model numbers.
        progress: show a progress bar.

    Raises:
        InputError: if a task, name or count cannot work; a single task cannot be decoded.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.task_decodability(
        ...     model, "verbs", 12, 2, k=3, layers=[9], probe=False, controls=False, progress=False
        ... )
        >>> found.layers, found.tasks[:2]
        ([9], ['verbs/gerund', 'verbs/past'])
    """
    check_model(model)
    settings = DecodabilitySettings(
        n_prompts=n_prompts,
        n_shots=shot_counts(n_shots),
        seed=seed,
        k=k,
        role=role,
        metric=metric,
        normalise=normalise,
        leave_out=leave_out,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    planned = plan(tasks, settings)
    return measure(
        model, planned, progress, layers=layers, probe=probe, controls=controls, keep=keep
    )


def measure(
    model: HookedModel,
    plan: Plan,
    progress: bool = True,
    *,
    layers: Sequence[int] | None = None,
    probe: bool = True,
    controls: bool = True,
    keep: bool = False,
) -> TaskDecodability:
    """Run a plan: what `task_decodability` does after it has drawn the prompts.

    Raises:
        InputError: if a layer does not exist.
        ModelError: if the model returns numbers that are not finite.
    """
    settings, pool, chosen = plan.settings, plan.pool, check_layers(layers, model.n_layers)
    shuffles = sum(n > 1 for n in settings.n_shots) if controls else 0
    alone = settings.instruction != "none"
    total = plan.queries.size * (len(settings.n_shots) + shuffles + bool(controls) + alone)
    with progress_bar(total, "prompts", progress) as bar:
        run = Run(model, plan, chosen, bar)
        parts = [run.few_shot(n, probe, controls, keep) for n in settings.n_shots]
        data = xr.concat(parts, dim=xr.DataArray(list(settings.n_shots), dims="shots"))
        if controls:
            data["input_credit"] = run.input_only()
        if alone:
            data = data.merge(run.instruction_only())
    data = data.assign_coords(
        shots=list(settings.n_shots),
        task=pool.names,
        other=pool.names,
        voted=pool.names,
        half=[0, 1],
        layer=chosen,
    )
    data["query"] = (("task", "point"), [[e.query.x for e in r] for r in plan.points.episodes])
    data["query_id"] = (("task", "point"), plan.queries)
    data = data.transpose(
        "shots", "setting", "half", "task", "other", "point", "layer", "voted", ...
    )
    return TaskDecodability(data, _provenance(run, plan))


def _provenance(run: Run, plan: Plan) -> dict:
    pool = plan.pool
    model = run.model.provenance()
    model["versions"]["scikit-learn"] = version("scikit-learn")
    return {
        "method": "task_decodability (Han et al. 2024, arXiv 2412.12276)",
        **model,
        **plan.settings.recorded(),
        "n_shots": list(plan.settings.n_shots),
        "sink_token": run.model.to_string(run.encoder.sink),
        "written_with_leading_space": run.encoder.template.leading_space,
        "tasks": {
            t.name: {"category": t.category, "n_pairs": len(t), "description": t.description}
            for t in pool.tasks
        },
        "shared_inputs": pool.shared,
        "share_of_distinct_inputs": pool.distinct,
        "n_queries": plan.points.n_queries,
        "accuracy": "exact: every token of an accepted answer is the most probable after those "
        "before it; first_token: the first is",
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
