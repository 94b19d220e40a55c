"""Where does what differs between two prompts sit, token by token and layer by layer?"""

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from icl_mech.errors import InputError
from icl_mech.model import HookedModel, check_model
from icl_mech.patch.cells import patch_batch
from icl_mech.patch.contrasts import Contrast, draw_pairs, encode_contrast
from icl_mech.patch.grid import Grid, Roles, grid_of
from icl_mech.patch.positions_result import DIRECTIONS, PositionScan
from icl_mech.progress import progress_bar
from icl_mech.prompts import DEFAULT_TEMPLATE
from icl_mech.results import over_tasks
from icl_mech.tasks import Task, Tasks, load_other, load_tasks

#: Prompts that are patched together; the activations of no others are in memory.
BATCH = 8


def patch_positions(
    model: HookedModel,
    task: Tasks,
    n_prompts: int = 16,
    n_shots: int = 5,
    seed: int = 0,
    *,
    corruption: str = "labels",
    direction: str | Sequence[str] = DIRECTIONS,
    sites: str | Sequence[str] = ("resid_pre",),
    roles: str | Roles | None = None,
    head_roles: str | Roles | None = None,
    other_task: Task | str | None = None,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> PositionScan:
    """Patch one activation at a time between clean and corrupted few-shot prompts.

    *Denoise*: run the corrupted prompt, and overwrite one site at one token and layer by what
    stands there in the clean prompt; what comes back of the answer was carried there. *Noise*:
    the reverse; what is lost had to pass there (Meng et al. 2022, arXiv 2202.05262, section 2;
    the terms as in Heimersheim and Nanda 2024, arXiv 2404.15255). The answer is judged by the
    logit difference of a `Contrast`.

    A role stands for its *last* token: of an answer of three tokens, one is patched. So prompts
    of different lengths are averaged over the same things. Up to the first token in which two
    prompts differ, they are the same run, and patching is not computed: nothing can change.

    Args:
        model: from `load_model`.
        task: a task, its name, a path to pairs, a family, or several of these.
        n_prompts: pairs of prompts per task.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        corruption: in what the corrupted prompt differs: `"labels"`, `"task"` or `"query"`.
        direction: `"denoise"`, `"noise"`, or both.
        sites: as in `Edit`; at `"z"` every head is patched by itself.
        roles: which tokens. By default x, arrow and y of every demonstration, the query and the
            final arrow; `"tokens"`: every token of a single pair of prompts of equal length; or
            roles and token indices.
        head_roles: which tokens at `"z"`; by default the same as `roles`.
        other_task: whose demonstrations corrupt (`"task"`); by default antonyms, or, for a
            linguistic task, country_capital.
        template: how a pair is written; holds `{x}` and `{y}`.
        leading_space: write words with a space before them; by default whichever way the
            tokenizer needs fewer tokens.
        progress: show a progress bar.

    Raises:
        InputError: where a task, count, site or role cannot work, the prompts do not line up, or
            the answer has nothing to be compared with.
        ModelError: where the model returns numbers that are not finite.
    """
    check_model(model)
    tasks = load_tasks(task)
    others = [load_other(t, other_task) if corruption == "task" else t for t in tasks]
    # Drawn before anything runs: a task with too few pairs fails at once.
    drawn = [
        draw_pairs(t, other, n_prompts, n_shots, seed, corruption)
        for t, other in zip(tasks, others, strict=True)
    ]
    encoders = [model.encoder(template, [pair.y for pair in t.pairs], leading_space) for t in tasks]
    contrasts = {
        t.name: [encode_contrast(encoder, d) for d in of_task]
        for t, encoder, of_task in zip(tasks, encoders, drawn, strict=True)
    }
    settings = {
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "seed": seed,
        "corruption": corruption,
        "template": template,
        "leading_space": leading_space,
        "sink_token": model.to_string(encoders[0].sink),
        "tasks": {
            t.name: {
                "category": t.category,
                "n_pairs": len(t),
                "other_task": other.name if corruption == "task" else None,
                "leading_space": encoder.template.leading_space,
            }
            for t, other, encoder in zip(tasks, others, encoders, strict=True)
        },
    }
    grid = grid_of(model, contrasts, direction, sites, roles, head_roles)
    return _run(model, contrasts, grid, settings, progress)


def patch_contrasts(
    model: HookedModel,
    contrasts: Sequence[Contrast],
    *,
    direction: str | Sequence[str] = DIRECTIONS,
    sites: str | Sequence[str] = ("resid_pre",),
    roles: str | Roles | None = None,
    head_roles: str | Roles | None = None,
    name: str = "contrasts",
    progress: bool = True,
) -> PositionScan:
    """`patch_positions` between prompts of one's own.

    Args:
        model: from `load_model`.
        contrasts: pairs of prompts, each with an answer and what it is compared with.
        direction, sites, roles, head_roles, progress: as in `patch_positions`.
        name: what the result calls them (its task).

    Raises:
        InputError: where there are none, they do not line up, or a site does not exist.
        ModelError: where the model returns numbers that are not finite.
    """
    check_model(model)
    if not contrasts:
        raise InputError("no contrasts; expected at least one")
    named = {name: list(contrasts)}
    grid = grid_of(model, named, direction, sites, roles, head_roles)
    return _run(model, named, grid, {"n_prompts": len(contrasts)}, progress)


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
        "directions": list(grid.directions),
        "sites": [*grid.sites, *(["z"] if grid.head_roles else [])],
        "roles": list(grid.roles),
        "head_roles": list(grid.head_roles),
        "filters": "none: every prompt counts, also those that the model answers wrong",
    }
    return PositionScan(data, provenance)
