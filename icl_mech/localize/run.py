"""Run the read-outs and put them on one axis."""

from collections.abc import Sequence
from typing import Any

import xarray as xr

from icl_mech.decodability import task_decodability
from icl_mech.heads import head_attribution
from icl_mech.lens import logit_lens
from icl_mech.localize.curves import Rule
from icl_mech.localize.result import TaskMap
from icl_mech.model import HookedModel
from icl_mech.patch import layer_scan
from icl_mech.prompts import DEFAULT_TEMPLATE
from icl_mech.results import Result
from icl_mech.tasks import Family, Task, list_families, load_family, load_other, load_tasks


def localize(
    model: HookedModel,
    task: Family | Task | str | Sequence[Task | str],
    n_prompts: int = 25,
    n_shots: int = 5,
    seed: int = 0,
    *,
    n_points: int = 50,
    k: int = 10,
    fraction: float = 0.5,
    min_rise: float = 0.1,
    heads: bool = True,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    progress: bool = True,
) -> TaskMap:
    """Where does the model encode the task, and where does it decode it?

    Runs, on the same tasks: task decodability (Han et al. 2024), a layer scan of theta (Hendel et
    al. 2023), the logit lens, and heads' AIE (Todd et al. 2023); and names a formation and a
    decoding layer by each, with bootstrap intervals over prompts. See `TaskMap` for the
    definitions.

    Args:
        model: from `load_model`.
        task: a family of tasks that share their inputs (its name or a `Family`), a task, its
            name, a path to pairs, or several of these. Decodability needs at least two: a single
            task is told apart from one other, and the result says so.
        n_prompts: prompts per task for transfer, lens and heads.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        n_points: prompts per task for decodability.
        k: neighbours that vote.
        fraction, min_rise: when a curve counts as risen, see `Rule`.
        heads: also measure heads' AIE.
        template: how a pair is written.
        leading_space: write words with a space before them; by default as the tokenizer likes.
        progress: show progress bars.

    Raises:
        InputError: where a task, a count or the rule cannot work.
        ModelError: where the model returns numbers that are not finite.
    """
    rule = Rule(fraction, min_rise)
    tasks = expand(task)
    shared: dict[str, Any] = {
        "seed": seed,
        "template": template,
        "leading_space": leading_space,
        "progress": progress,
    }
    pool = tasks if len(tasks) > 1 else [*tasks, load_other(tasks[0])]
    decoded = task_decodability(
        model, pool, n_points, n_shots, k=k, controls=False, probe=False, **shared
    )
    scan = layer_scan(model, tasks, n_prompts, n_shots, **shared)
    lens = logit_lens(model, tasks, n_prompts, n_shots, **shared)
    names = [t.name for t in tasks]
    arrays = {
        "encoding": decoded.data["credit"].sel(shots=n_shots, task=names, drop=True),
        "transfer": scan.data["first_token"].sel(vector="theta", drop=True),
        "lens": _answer_probability(lens.data, scan.data["layer"]),
        "regular": scan.data["reference_first_token"].sel(reference="regular", drop=True),
        "prior": scan.data["prior_right"],
        "query": scan.data["query"],
    }
    notes = [note for part in (decoded, scan, lens) for note in part.caveats()]
    if len(tasks) == 1:
        notes.insert(0, f"{names[0]}: decodability only tells it from {pool[1].name}")
    parts: dict[str, Result] = {"encoding": decoded, "transfer": scan, "lens": lens}
    if heads:
        found = head_attribution(
            model, tasks, n_prompts, max(2, n_shots), methods=("aie",), n_clean=n_prompts, **shared
        )
        arrays["aie"] = found.data["aie"].rename(prompt="aie_prompt")
        notes += found.caveats()
        parts["heads"] = found
    data = xr.Dataset({name: _plain(array) for name, array in arrays.items()})
    provenance = {
        "method": "localize: encoding, transfer, lens and heads on one axis",
        **model.provenance(),
        "rule": vars(rule),
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "n_points": n_points,
        "seed": seed,
        "template": template,
        "notes": list(dict.fromkeys(notes)),
        "parts": {name: part.provenance["method"] for name, part in parts.items()},
    }
    return TaskMap(data, provenance)


def expand(task: Family | Task | str | Sequence[Task | str]) -> list[Task]:
    """The tasks that are meant: those of a family (without its null task), or as named."""
    if isinstance(task, str) and task in list_families():
        task = load_family(task)
    if isinstance(task, Family):
        return [t for t in task.tasks if t.name != task.null]
    return load_tasks(task)


def _answer_probability(lens: xr.Dataset, layers: xr.DataArray) -> xr.DataArray:
    """Probability of the answer at the last token, after every block."""
    logprob = lens["logprob"].sel(target="answer", role="final_arrow", drop=True)
    probability: xr.DataArray = xr.ufuncs.exp(logprob.sel(layer=layers))
    return probability


def _plain(array: xr.DataArray) -> xr.DataArray:
    """Only what the map keeps: dimensions, and names of tasks and layers."""
    kept = {"task", "layer", "head"}
    return array.drop_vars([c for c in array.coords if c not in kept])
