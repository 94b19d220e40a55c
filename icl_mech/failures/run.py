"""Where one task vector fails, which errors it makes, and whether several vectors repair them."""

from collections.abc import Sequence

import numpy as np

from icl_mech.failures.error_kinds import Encoders
from icl_mech.failures.measure import Measurement
from icl_mech.failures.plan import REPAIRS, AnyTask, FailurePlan, FailureSettings, plan
from icl_mech.failures.repair import BLANK
from icl_mech.failures.result import TaskVectorFailures
from icl_mech.layers import check_layers
from icl_mech.model import HookedModel, check_model
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES
from icl_mech.results import over_tasks

#: The default number of layers at which a repair is tried.
N_REPAIR_LAYERS = 6


def task_vector_failures(
    model: HookedModel,
    tasks: AnyTask | str | Sequence[AnyTask | str] | None = None,
    n_prompts: int = 50,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    repairs: Sequence[str] = tuple(REPAIRS),
    repair_layers: Sequence[int] | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> TaskVectorFailures:
    """Accuracy of prompt, vector and repairs on tasks that one vector may not be able to do.

    theta is read and injected as in Hendel et al. 2023 (section 3): it is read at the last token
    of few-shot prompts that ask a dummy query (mean over `n_dummies`), and written over the last
    token of the zero-shot prompt, at the layer that is best on dev prompts (see
    `vectors.choose_layer`; if no answer is ever right, the most probable answers decide). Controls
    on the same test prompts: theta from shuffled labels, theta of another task, and random vectors
    of the same norm.

    *Repairs* (`REPAIRS`) write several vectors of the same few-shot prompt at once. Dong et al.
    2025 (arXiv 2506.09048) propose several vectors; which ones is our choice. A repair that writes
    states of demonstrations asks the query after blank demonstrations, and overwrites their
    tokens. Its layer, too, is chosen on dev prompts. Each repair has two controls: the same states
    of another prompt of the task, and of the prompt with shuffled labels.

    Every wrong answer of every condition gets the name of an error (`KINDS`) by its first token.

    Args:
        model: from `load_model`.
        tasks: failure tasks and ordinary ones, as objects, names or paths; by default all failure
            tasks.
        n_prompts, n_shots, seed, n_dev, n_dummies: see `FailureSettings`.
        repairs: some of `REPAIRS`; without any, the run is much faster. `"layers"` needs attention
            in every block; if a block has none, it is left out, and a caveat says so.
        repair_layers: blocks after which repairs are tried; by default six, evenly spaced, from a
            third of the depth on. In the first blocks a token's state is little more than the
            token: writing it shows the demonstrations again.
        template, leading_space, instruction: see `FailureSettings`.
        progress: show a progress bar.

    Raises:
        InputError: if a task, template, repair, layer or count cannot work.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> found = icl_mech.task_vector_failures(
        ...     model, "constant", n_prompts=4, repairs=(), progress=False
        ... )
        >>> found.accuracy("constant").value
        1.0
    """
    check_model(model)
    settings = FailureSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        n_dev=n_dev,
        n_dummies=n_dummies,
        template=template,
        leading_space=leading_space,
        instruction=instruction,
        repairs=tuple(repairs),
    )
    return measure(model, plan(tasks, settings), progress, repair_layers)


def measure(
    model: HookedModel,
    plan: FailurePlan,
    progress: bool = True,
    repair_layers: Sequence[int] | None = None,
) -> TaskVectorFailures:
    """Run a plan, as `task_vector_failures` does after it has drawn the episodes."""
    s, n = plan.settings, model.n_layers
    if repair_layers is None:
        spaced = np.linspace(n // 3, n - 1, N_REPAIR_LAYERS).round()
        repair_layers = sorted({int(i) for i in spaced})
    layers = check_layers(repair_layers, n)
    # Every task is encoded before the first forward pass: bad input fails at once.
    encoders = [Encoders.of(model, task, s) for task in plan.tasks]
    repairs, notes = _possible(model, s.repairs)
    per_task = s.dev * (n + len(layers) * len(repairs))
    per_task += s.n_prompts * (4 + 3 * len(repairs))
    with progress_bar(per_task * len(plan.tasks), "runs", progress) as bar:
        parts = [
            Measurement(model, task, own, layers, repairs, bar).measure()
            for task, own in zip(plan.tasks, encoders, strict=True)
        ]
    data = over_tasks(parts, [task.task.name for task in plan.tasks])
    provenance = _provenance(model, plan, encoders, layers)
    return TaskVectorFailures(data, {**provenance, "repairs": repairs, "notes": notes})


def _possible(model: HookedModel, repairs: Sequence[str]) -> tuple[list[str], list[str]]:
    """The repairs that a model has the sites for, and why others are left out, a line each.

    Raises:
        InputError: if `"layers"` is the only repair asked for, and it is not possible.
    """
    why = model.why_no_site("attn_out")
    if "layers" not in repairs or not why:
        return list(repairs), []
    if len(repairs) == 1:
        model.check_site("attn_out")
    return [r for r in repairs if r != "layers"], [f"repair 'layers' was left out: {why}"]


def _provenance(
    model: HookedModel, plan: FailurePlan, encoders: Sequence[Encoders], layers: Sequence[int]
) -> dict:
    return {
        "method": "task_vector_failures (theta: Hendel et al. 2023, arXiv 2310.15916)",
        **model.provenance(),
        **plan.settings.recorded(),
        "repair_layers": list(layers),
        "blank": BLANK,
        "sink_token": model.to_string(encoders[0].own.sink),
        "tasks": {
            p.task.name: {
                "category": p.task.category,
                "description": p.task.description,
                "predicted": p.prediction.outcome,
                "prediction": p.prediction.text,
                "other_task": p.other.name,
                "n_test_queries": p.split.n_test_queries,
                "n_dev_queries": p.split.n_dev_queries,
                "leading_space": own.own.template.leading_space,
            }
            for p, own in zip(plan.tasks, encoders, strict=True)
        },
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
