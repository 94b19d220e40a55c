"""Does decodability predict accuracy? (Han et al. 2024, section 4.)"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Float

from icl_mech.decodability.result import SCORES, TaskDecodability
from icl_mech.errors import InputError, choose
from icl_mech.stats import draw_weights, r_squared_estimate

#: The differences that the line explains: all; only those between numbers of shots of one task; or
#: only those between tasks at one number of shots.
SCOPES = ("overall", "within task", "within shots")


def td_and_accuracy(
    results: TaskDecodability | Sequence[TaskDecodability], score: str = "exact"
) -> pd.DataFrame:
    """TD and accuracy of the same prompts: a row per (model, task, number of shots).

    TD is at the layer chosen on the other half of the queries (`held_out`).

    Raises:
        InputError: if there is no result, or the score is unknown.
    """
    rows = []
    for result in _listed(results, score):
        for shots in result.shots:
            for task in result.tasks:
                td, right = result.held_out(shots, task), result.accuracy(shots, task, score)
                names = {"model": result.provenance["model"], "task": task, "shots": shots}
                rows.append(names | td.columns("td") | right.columns("accuracy"))
    return pd.DataFrame(rows)


def td_predicts_accuracy(
    results: TaskDecodability | Sequence[TaskDecodability], score: str = "exact", seed: int = 0
) -> pd.DataFrame:
    """R² of a straight line from TD to accuracy, over tasks and numbers of shots.

    Han et al. 2024 fit one line through all tasks and shot counts (*overall*). But more shots raise
    both TD and accuracy. So R² is also given within a task (do more shots raise both?) and within a
    number of shots (are tasks with more TD answered better?): there the groups' lines share one
    slope, and each goes through its group's mean. Intervals resample queries; tasks and layers stay
    as they are. Resampling adds noise to both axes, which lowers R², so intervals lie too low.

    Args:
        results: one run or several, such as one per family.
        score: `"exact"` or `"first_token"`.
        seed: of the bootstrap.

    Returns:
        One row per scope: `r2`, `r2_low`, `r2_high`, `n_rows` (tasks x shots). NaN if TD or
        accuracy does not differ within the groups.

    Raises:
        InputError: if there is no result, or the score is unknown.

    Example:
        >>> found = icl_mech.task_decodability(
        ...     model, "verbs", 12, (1, 2), k=3, layers=[9], controls=False, progress=False
        ... )
        >>> td_predicts_accuracy(found).index.tolist()
        ['overall', 'within task', 'within shots']
    """
    listed = _listed(results, score)
    table = td_and_accuracy(listed, score)
    x, y = (table[name].to_numpy(dtype=float) for name in ("td", "accuracy"))
    resampled = [_resampled(result, score, seed + i) for i, result in enumerate(listed)]
    all_x, all_y = (np.concatenate(side, axis=1) for side in zip(*resampled, strict=True))
    of_task = list(zip(table["model"], table["task"], strict=True))
    groups = (None, of_task, table["shots"].tolist())
    rows = {}
    for scope, group in zip(SCOPES, groups, strict=True):
        e = r_squared_estimate(x, y, all_x, all_y, group)
        rows[scope] = e.columns("r2") | {"n_rows": e.n}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("scope")


def _listed(
    results: TaskDecodability | Sequence[TaskDecodability], score: str
) -> list[TaskDecodability]:
    choose(score, SCORES, "score")
    listed = [results] if isinstance(results, TaskDecodability) else list(results)
    if not listed:
        raise InputError("no results; expected at least one of task_decodability")
    return listed


def _resampled(
    result: TaskDecodability, score: str, seed: int
) -> tuple[Float[np.ndarray, "draw row"], Float[np.ndarray, "draw row"]]:
    """TD and accuracy of every (shots, task) in every bootstrap draw of queries."""
    queries = result.data["query_id"].transpose("task", "point").values
    weights = draw_weights(queries.size, seed, clusters=queries.ravel())
    weights = weights.reshape(-1, *queries.shape)
    # If a draw has none of a task's queries, the task keeps its plain mean.
    weights += 1e-12
    totals = weights.sum(axis=2)

    def means(values: xr.DataArray) -> Float[np.ndarray, "draw task"]:
        of_task = values.transpose("task", "point").values.astype(float)
        return np.einsum("rtp,tp->rt", weights, of_task) / totals

    td = [means(result.at_held_out(n)) for n in result.shots]
    right = [means(result.data[score].sel(shots=n)) for n in result.shots]
    return np.concatenate(td, axis=1), np.concatenate(right, axis=1)
