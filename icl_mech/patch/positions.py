"""Which tokens and layers carry the difference between two prompts?"""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from icl_mech.errors import InputError
from icl_mech.model import HookedModel, check_model
from icl_mech.patch.cells import Grid, grid_of, patch_batch
from icl_mech.patch.contrasts import Contrast, encode_contrast
from icl_mech.patch.positions_plan import (
    Corruption,
    Direction,
    PositionPlan,
    PositionSettings,
    Roles,
    check_direction,
    check_sites,
    plan_positions,
)
from icl_mech.patch.positions_result import PositionScan
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE
from icl_mech.results import over_tasks
from icl_mech.tasks import Task, Tasks

#: Prompts that are patched together; memory holds the activations of this many prompts.
BATCH = 8


def patch_positions(
    model: HookedModel,
    tasks: Tasks,
    n_prompts: int = 16,
    n_shots: int = 5,
    seed: int = 0,
    *,
    corruption: Corruption = "labels",
    direction: Direction = "both",
    sites: str | Sequence[str] = ("resid_pre",),
    roles: str | Roles | None = None,
    head_roles: str | Roles | None = None,
    other_task: Task | str | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    instruction: str = "none",
    progress: bool = True,
) -> PositionScan:
    """Patch one activation at a time between clean and corrupted few-shot prompts.

    *Denoise*: run the corrupted prompt, and overwrite one site at one token and layer with the
    activation of the clean prompt. That activation carries the share of the answer that is
    restored. *Noise*: the reverse. The answer depends on that activation for the share that is
    lost (Meng et al. 2022, arXiv 2202.05262, section 2; the terms as in Heimersheim and Nanda 2024,
    arXiv 2404.15255). The answer is scored by the logit difference of a `Contrast`.

    A role stands for its *last* token: of an answer of three tokens, the last is patched. This
    allows averages over prompts of different lengths. Two prompts have the same activations up to
    the first token in which they differ; patches there change nothing, and are not run.

    Args:
        model: from `load_model`.
        tasks: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: pairs of prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        corruption: how the corrupted prompt differs: in the `"labels"` of its demonstrations
            (shuffled), in the `"task"` of its demonstrations, or in its `"query"`.
        direction: `"denoise"`, `"noise"` or `"both"`.
        sites: as in `Edit`; at `"z"` every head is patched by itself.
        roles: which tokens are patched. By default x, arrow and y of every demonstration, the
            query and the final arrow; `"all"`: every role that the prompts have; `"tokens"`: every
            token of a single pair of prompts of equal length; or a list of roles and token indices.
        head_roles: which tokens are patched at `"z"`; by default the same as `roles`.
        other_task: the task of the corrupted demonstrations if `corruption` is `"task"`; by default
            antonyms, or, for a linguistic task, country_capital.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        instruction: a line before the demonstrations: `"none"`, `"true"` (it names the task),
            `"other"` (it names another), `"irrelevant"`, or the line itself.
        progress: show a progress bar.

    Raises:
        InputError: if a task, count, site or role cannot work, the prompts do not line up, or an
            answer has no rival to be compared with.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> scan = icl_mech.patch_positions(
        ...     model, "antonyms", n_prompts=2, n_shots=2, direction="denoise",
        ...     roles=("query", "final_arrow"), progress=False)
        >>> dict(scan.data["logit_difference"].sizes)
        {'task': 1, 'site': 1, 'direction': 1, 'prompt': 2, 'role': 2, 'layer': 18}
    """
    check_model(model)
    settings = PositionSettings(
        n_prompts=n_prompts,
        n_shots=n_shots,
        seed=seed,
        corruption=corruption,
        direction=direction,
        sites=check_sites(sites),
        template=template,
        leading_space=leading_space,
        instruction=instruction,
    )
    plan = plan_positions(tasks, settings, other_task, roles, head_roles)
    return measure_positions(model, plan, progress)


def measure_positions(
    model: HookedModel, plan: PositionPlan, progress: bool = True
) -> PositionScan:
    """Run a plan of `plan_positions`: what `patch_positions` does after it has drawn the prompts.

    Raises:
        InputError: if the model cannot read a prompt, the prompts do not line up, or an answer has
            no rival to be compared with.
        ModelError: if the model returns numbers that are not finite.
    """
    s = plan.settings
    encoders = [
        model.encoder(s.template, [pair.y for pair in task.pairs], s.leading_space)
        for task in plan.tasks
    ]
    contrasts = {
        task.name: [encode_contrast(encoder, pair) for pair in pairs]
        for task, encoder, pairs in zip(plan.tasks, encoders, plan.pairs, strict=True)
    }
    grid = grid_of(model, contrasts, s.directions, s.sites, plan.roles, plan.head_roles)
    drawn = {
        **s.recorded(),
        "sink_token": model.to_string(encoders[0].sink),
        "tasks": {
            task.name: {
                "category": task.category,
                "n_pairs": len(task),
                "other_task": other.name if other else None,
                "leading_space": encoder.template.leading_space,
            }
            for task, other, encoder in zip(plan.tasks, plan.others, encoders, strict=True)
        },
    }
    return _run(model, contrasts, grid, drawn, progress)


def patch_contrasts(
    model: HookedModel,
    contrasts: Sequence[Contrast],
    *,
    direction: Direction = "both",
    sites: str | Sequence[str] = ("resid_pre",),
    roles: str | Roles | None = None,
    head_roles: str | Roles | None = None,
    name: str = "contrasts",
    progress: bool = True,
) -> PositionScan:
    """`patch_positions` with pairs of prompts that the caller made.

    Args:
        model: from `load_model`.
        contrasts: pairs of prompts, each with an answer and the rivals it is compared with.
        direction, sites, roles, head_roles, progress: as in `patch_positions`.
        name: name of the pairs; the result's task.

    Raises:
        InputError: if there are no pairs, they do not line up, or a site does not exist.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> from icl_mech.patch import Contrast
        >>> encoder = model.encoder("{x}->{y}", ["cold", "small"])
        >>> hot, big = (encoder.encode((), x) for x in ("hot", "big"))
        >>> cold, small = ((encoder.answer_tokens(hot, [y])[0][0]) for y in ("cold", "small"))
        >>> pair = Contrast(clean=hot, corrupted=big, answer=cold, rivals=(small,))
        >>> icl_mech.patch_contrasts(model, [pair], direction="noise", progress=False).directions
        ['noise']
    """
    check_model(model)
    if not contrasts:
        raise InputError("no contrasts; expected at least one")
    named = {name: list(contrasts)}
    directions = check_direction(direction)
    grid = grid_of(model, named, directions, check_sites(sites), roles, head_roles)
    settings = {"n_prompts": len(contrasts), "direction": direction}
    return _run(model, named, grid, settings, progress)


def _run(
    model: HookedModel,
    contrasts: Mapping[str, Sequence[Contrast]],
    grid: Grid,
    settings: dict[str, Any],
    progress: bool,
) -> PositionScan:
    parts = []
    n_prompts = sum(map(len, contrasts.values()))
    with progress_bar(n_prompts * grid.cells(model), "runs", progress) as bar:
        for name, of_task in contrasts.items():
            bar.set_description(name)
            batches = [of_task[i : i + BATCH] for i in range(0, len(of_task), BATCH)]
            parts.append(
                xr.concat(
                    [patch_batch(model, batch, grid, bar.update) for batch in batches], "prompt"
                )
            )
    data = over_tasks(parts, list(contrasts))
    provenance = {
        "method": "patch_positions: activation patching (Meng et al. 2022, arXiv 2202.05262)",
        **model.provenance(),
        **settings,
        "sites": [*grid.sites, *(["z"] if grid.head_roles else [])],
        "roles": list(grid.roles),
        "head_roles": list(grid.head_roles),
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return PositionScan(data, provenance)
