"""Tables of a variability result."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from icl_mech.stats import Estimate
    from icl_mech.variability.result import VectorVariability

#: The name of a table's last row.
ALL = "all tasks"


def full_summary(result: VectorVariability, layer: int, shots: int) -> pd.DataFrame:
    """One row per task, then one over all tasks."""
    rows = [_row(result, task, layer, shots) for task in (*result.tasks, None)]
    return pd.DataFrame(rows).set_index("task")


def by_shots(result: VectorVariability, layer: int, task: str | None = None) -> pd.DataFrame:
    """One row per number of shots, over all tasks or of one."""
    rows = [_row(result, task, layer, shots) for shots in result.shots]
    return pd.DataFrame(rows).drop(columns="task").set_index("shots")


def _row(result: VectorVariability, task: str | None, layer: int, shots: int) -> dict[str, Any]:
    i = result.layers.index(layer)
    row: dict[str, Any] = {"task": ALL if task is None else task, "layer": layer, "shots": shots}
    estimates: dict[str, Estimate] = {}
    for form, prefix in (("raw", ""), ("centred", "centred_")):
        within = result.distances(task, None, shots, [layer], form)
        between = result.distances(task, "other", shots, [layer], form)
        control = result.controls("shuffled", task, shots, form)
        estimates |= {
            f"{prefix}within": within.at(0),
            f"{prefix}between": between.at(0),
            f"{prefix}silhouette": result.separation(task, shots, [layer], form).at(0),
            f"{prefix}shuffled_distance": control.at(i),
        }
    estimates |= {
        "accuracy": result.accuracy(task, "theta", shots)[i],
        "shuffled_accuracy": result.accuracy(task, "shuffled", shots)[i],
        "baseline": result.baseline(task),
        "random_distance": result.controls("random", task, shots).at(i),
    }
    for name, estimate in estimates.items():
        row |= estimate.columns(name)
    row["n_vectors"] = result.data.sizes["vector"]
    if task is not None:
        about = result.provenance["tasks"][task]
        row |= {name: about[name] for name in ("n_disjoint_sets", "overlap", "n_queries")}
    return row


def known_mean(values: np.ndarray, axis: int | tuple[int, ...]) -> np.ndarray:
    """Mean of the finite values; NaN if there are none."""
    known = np.isfinite(values).sum(axis=axis)
    total = np.nansum(values, axis=axis)
    return np.asarray(np.where(known > 0, total / np.maximum(known, 1), np.nan))


def per_vector(result: VectorVariability) -> pd.DataFrame:
    """One row per (shots, layer, task, vector), with mean raw distances to other vectors."""
    same = result.labels[:, None] == result.labels
    frames = []
    for shots in result.shots:
        for layer in result.layers:
            table = result.square(layer, shots)
            # The diagonal is NaN, so that no vector's distance to itself counts.
            means = {
                "within": known_mean(np.where(same, table, np.nan), axis=1),
                "between": known_mean(np.where(same, np.nan, table), axis=1),
                "silhouette": result.silhouettes(layer, shots).ravel(),
            }
            at = {"shots": shots, "layer": layer, "kind": "theta", "form": "raw"}
            own = result.data[["right", "shuffled_distance", "norm"]].sel(at, drop=True)
            frame = own.transpose("task", "vector").to_dataframe().reset_index()
            frames.append(frame.assign(**means, shots=shots, layer=layer))
    first = ["shots", "layer", "task", "vector"]
    whole = pd.concat(frames, ignore_index=True)
    return whole[[*first, *(column for column in whole.columns if column not in first)]]


def text(result: VectorVariability, layer: int) -> pd.DataFrame:
    """The summary as text."""
    i, at, rows = result.layers.index(layer), [layer], {}
    for task in (*result.tasks, None):
        centred = [result.distances(task, o, None, at, "centred").at(0) for o in (None, "other")]
        rows[ALL if task is None else task] = {
            "layer": str(layer),
            "within": _digits(result.distances(task, layers=at).at(0)),
            "between": _digits(result.distances(task, "other", layers=at).at(0)),
            "silhouette": _shown(result.separation(task, layers=at).at(0)),
            "centred: within": _shown(centred[0]),
            "centred: between": _shown(centred[1]),
            "accuracy": str(result.accuracy(task)[i]),
            "shuffled": f"{result.accuracy(task, 'shuffled')[i].value:.2f}",
        }
    return pd.DataFrame.from_dict(rows, orient="index")


def _digits(estimate: Estimate) -> str:
    """Three significant digits: raw distances may be far below 0.01."""
    if np.isnan(estimate.value):
        return _shown(estimate)
    return f"{estimate.value:.3g} [{estimate.low:.3g}, {estimate.high:.3g}]"


def _shown(estimate: Estimate) -> str:
    """The estimate, or a dash if it is undefined."""
    return "–" if np.isnan(estimate.value) else str(estimate)
