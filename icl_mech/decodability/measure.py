"""Decode the task from representations, layer by layer."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from icl_mech.decodability.neighbours import credit, distances, vote_shares
from icl_mech.decodability.plan import Plan, half_of
from icl_mech.decodability.probe import probe

Rows = Float[np.ndarray, "row layer d_model"]

#: The values that the sensitivity table tries, one setting at a time.
KS = (1, 3, 5, 10, 20)
SIZES = (25, 50, 100)
VIEWS = tuple((m, n) for m in ("cosine", "euclidean") for n in ("none", "standardise"))


def measure(rows: Rows, plan: Plan, pairs: bool = False) -> xr.Dataset:
    """Votes and credit of every point at every layer.

    Args:
        rows: representations, task by task as in `plan.labels`.
        plan: tasks, points and settings.
        pairs: add `pair_credit`, the vote in a pool of the point's task and one other; and
            `half_td`, the TD of each half of the queries without the other half in the pool, by
            which the layer is chosen.
    """
    s, shape = plan.settings, plan.queries.shape
    layers = []
    for layer in range(rows.shape[1]):
        between = distances(rows[:, layer], s.metric, s.normalise)
        (shares,) = vote_shares(between, plan.labels, plan.groups, [s.k])
        found = {
            "votes": (("task", "point", "voted"), shares.reshape(*shape, -1)),
            "credit": (("task", "point"), credit(shares, plan.labels).reshape(shape)),
        }
        if pairs:
            found["pair_credit"] = (("task", "other", "point"), _pair_credit(between, plan))
            found["half_td"] = (
                ("half",),
                half_td(between, plan.labels, plan.groups, plan.halves, s.k),
            )
        layers.append(xr.Dataset(found))
    return xr.concat(layers, dim="layer").astype(np.float32)


def knn_credit(
    rows: Rows,
    labels: Int[np.ndarray, "row"],
    groups: Int[np.ndarray, "row"],
    k: int = 10,
    metric: str = "cosine",
    normalise: str = "none",
) -> Float[np.ndarray, "row layer"]:
    """Leave-one-out TD of representations that were captured elsewhere, per row and layer.

    Args:
        rows: representations.
        labels: the task of every row: 0, 1, ...
        groups: rows with the same number are never neighbours. A number of its own for every row
            leaves out the row alone.
        k: how many neighbours vote.
        metric, normalise: as in `task_decodability`.

    Example:
        >>> rows = np.eye(2, dtype=np.float32)[[0, 0, 1, 1], None]  # [row, layer, d_model]
        >>> labels = np.array([0, 0, 1, 1])
        >>> knn_credit(rows, labels, np.arange(4), k=1)[:, 0].tolist()
        [1.0, 1.0, 1.0, 1.0]
    """
    layers = []
    for layer in range(rows.shape[1]):
        between = distances(rows[:, layer], metric, normalise)
        (shares,) = vote_shares(between, labels, groups, [k])
        layers.append(credit(shares, labels))
    return np.stack(layers, axis=1)


def _pair_credit(
    between: Float[np.ndarray, "row row"], plan: Plan
) -> Float[np.ndarray, "task other point"]:
    """Credit of every point if the pool holds its task and one other; NaN for its own task."""
    s, names = plan.settings, plan.pool.names
    found = np.full((len(names), len(names), s.n_prompts), np.nan)
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            members = np.flatnonzero(np.isin(plan.labels, (i, j)))
            labels = (plan.labels[members] == j).astype(int)
            groups = plan.groups[members]
            (shares,) = vote_shares(between[np.ix_(members, members)], labels, groups, [s.k])
            found[i, j], found[j, i] = credit(shares, labels).reshape(2, s.n_prompts)
    return found


def half_td(
    between: Float[np.ndarray, "row row"],
    labels: Int[np.ndarray, "row"],
    groups: Int[np.ndarray, "row"],
    halves: Int[np.ndarray, "row"],
    k: int,
) -> Float[np.ndarray, "half"]:
    """TD of each half of the queries in a pool of that half alone, with half the votes.

    A layer that is chosen on one half then does not depend on the other half's points. In a common
    pool it would: neighbours in different halves vote for each other, and a layer that is best by
    chance for one half would be above chance for the other too. TD is 0 for a half without enough
    neighbours to vote.

    Args:
        between: distances.
        labels: the task of every row: 0, 1, ...
        groups: rows with the same number are never neighbours.
        halves: 0 or 1 for every row (`half_of`).
        k: how many neighbours vote in the pool of all.
    """
    found = np.zeros(2)
    for half in (0, 1):
        rows = np.flatnonzero(halves == half)
        _, sizes = np.unique(groups[rows], return_counts=True)
        votes = min(max(1, k // 2), len(rows) - int(sizes.max(initial=0)))
        if votes > 0:
            pool = between[np.ix_(rows, rows)]
            (shares,) = vote_shares(pool, labels[rows], groups[rows], [votes])
            found[half] = credit(shares, labels[rows]).mean()
    return found


def knn_half_td(
    rows: Rows,
    labels: Int[np.ndarray, "row"],
    groups: Int[np.ndarray, "row"],
    k: int = 10,
) -> Float[np.ndarray, "half layer"]:
    """`half_td` at every layer, of representations that were captured elsewhere.

    Args:
        rows, labels, k: as in `knn_credit`.
        groups: the query of every row, counted from 0.

    Example:
        >>> rows = np.eye(2, dtype=np.float32)[[0, 0, 1, 1, 0, 0, 1, 1], None]
        >>> knn_half_td(rows, np.array([0, 0, 1, 1] * 2), np.arange(8), k=1)[:, 0].tolist()
        [1.0, 1.0]
    """
    return np.stack(
        [
            half_td(distances(rows[:, layer], "cosine", "none"), labels, groups, half_of(groups), k)
            for layer in range(rows.shape[1])
        ],
        axis=1,
    )


def probed(rows: Rows, plan: Plan) -> xr.DataArray:
    """The task (its index in `task`) that the linear probe gives every point, by layer."""
    layers = [
        probe(of_layer, plan.labels, plan.queries.ravel()) for of_layer in rows.swapaxes(0, 1)
    ]
    said = np.stack(layers).astype(np.int16).reshape(-1, *plan.queries.shape)
    return xr.DataArray(said, dims=("layer", "task", "point"))


def sensitivity(rows: Rows, plan: Plan) -> xr.DataArray:
    """Credit under other settings, `[setting, layer, task, point]`; NaN for points left out."""
    s = plan.settings
    ks = sorted({k for k in (*KS, s.k) if k < s.n_prompts})
    found = dict(zip([f"k = {k}" for k in ks], _varied(rows, plan, ks=ks), strict=True))
    for n in SIZES:
        if s.k < n <= s.n_prompts:
            (found[f"{n} points per task"],) = _varied(rows, plan, n_points=n)
    for metric, normalise in VIEWS:
        name = f"{metric}, {normalise}"
        (found[name],) = _varied(rows, plan, metric=metric, normalise=normalise)
    (found["left out: the query"],) = _varied(rows, plan, groups=plan.queries.ravel())
    (found["left out: the point"],) = _varied(rows, plan, groups=np.arange(plan.queries.size))
    return xr.DataArray(
        np.stack(list(found.values())),
        dims=("setting", "layer", "task", "point"),
        coords={"setting": list(found)},
    )


def _varied(
    rows: Rows,
    plan: Plan,
    *,
    ks: Sequence[int] = (),
    n_points: int = 0,
    groups: Int[np.ndarray, "row"] | None = None,
    metric: str = "",
    normalise: str = "",
) -> Float[np.ndarray, "k layer task point"]:
    """Credit with some settings changed; those that are not given are the plan's."""
    s = plan.settings
    ks = ks or [s.k]
    groups = plan.groups if groups is None else groups
    kept = np.flatnonzero(np.arange(len(rows)) % s.n_prompts < (n_points or s.n_prompts))
    labels = plan.labels[kept]
    cells = np.full((len(ks), rows.shape[1], len(rows)), np.nan, dtype=np.float32)
    for layer in range(rows.shape[1]):
        between = distances(rows[kept, layer], metric or s.metric, normalise or s.normalise)
        for i, shares in enumerate(vote_shares(between, labels, groups[kept], ks)):
            cells[i, layer, kept] = credit(shares, labels)
    return cells.reshape(len(ks), -1, *plan.queries.shape)
