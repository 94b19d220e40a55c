"""Representations -> what is decoded from them, layer by layer."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from icl_mech.decodability.neighbours import credit, distances, vote_shares
from icl_mech.decodability.plan import Plan, half_of
from icl_mech.decodability.probe import probe

Rows = Float[np.ndarray, "row layer d_model"]

#: What the sensitivity table varies, one setting at a time.
KS = (1, 3, 5, 10, 20)
SIZES = (25, 50, 100)
VIEWS = tuple((m, n) for m in ("cosine", "euclidean") for n in ("none", "standardise"))


def measure(rows: Rows, plan: Plan, prefix: str = "", pairs: bool = False) -> xr.Dataset:
    """Votes and credit of every point at every layer; with `pairs`, also what a choice needs.

    Args:
        rows: task by task, as `plan.labels` says.
        plan: tasks, points and settings.
        prefix: of the variables' names.
        pairs: add `pair_credit`: the vote where only one other task's points are in the pool; and
            `half_td`: TD of every half of the queries, with the other half out of the pool.
    """
    s, n_tasks = plan.settings, len(plan.pool.tasks)
    found: dict[str, list[np.ndarray]] = {
        "votes": [],
        "credit": [],
        "pair_credit": [],
        "half_td": [],
    }
    for layer in range(rows.shape[1]):
        between = distances(rows[:, layer], s.metric, s.normalise)
        (shares,) = vote_shares(between, plan.labels, plan.groups, [s.k])
        found["votes"].append(shares.reshape(n_tasks, s.n_prompts, n_tasks))
        found["credit"].append(credit(shares, plan.labels).reshape(n_tasks, s.n_prompts))
        if pairs:
            found["pair_credit"].append(_pair_credit(between, plan))
            found["half_td"].append(half_td(between, plan.labels, plan.groups, plan.halves, s.k))
    dims = {
        "votes": ("layer", "task", "point", "voted"),
        "credit": ("layer", "task", "point"),
        "pair_credit": ("layer", "task", "other", "point"),
        "half_td": ("layer", "half"),
    }
    return xr.Dataset(
        {
            prefix + name: (dims[name], np.stack(layers).astype(np.float32))
            for name, layers in found.items()
            if layers
        }
    )


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
        groups: rows with the same number are never neighbours (each its own: leave one out).
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
    """Credit of every point where the pool holds its task and one other; NaN for its own."""
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
    """TD of each half of the queries, as if the other half did not exist, with half the votes.

    A layer chosen by it owes nothing to the other half's points. In a pool of all, it would: two
    neighbours vote for each other, so that the layer that is best by chance for one half is
    better than chance for the other, too. 0 where a half has no neighbours that could vote.

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
    """Which task the linear probe gives every point (its index in `task`), by layer."""
    shape = plan.queries.shape
    layers = [
        probe(rows[:, layer], plan.labels, plan.queries.ravel()).reshape(shape)
        for layer in range(rows.shape[1])
    ]
    return xr.DataArray(np.stack(layers).astype(np.int16), dims=("layer", "task", "point"))


def sensitivity(rows: Rows, plan: Plan) -> xr.DataArray:
    """Credit under other settings, `[setting, layer, task, point]`; NaN past a smaller number."""
    names, found = [], []
    for v in _variations(plan):
        labels, shape = plan.labels[v.index], (len(plan.pool.tasks), -1)
        cells = np.full((len(v.ks), rows.shape[1], *plan.queries.shape), np.nan, dtype=np.float32)
        for layer in range(rows.shape[1]):
            between = distances(rows[v.index, layer], v.metric, v.normalise)
            for i, shares in enumerate(vote_shares(between, labels, v.groups[v.index], v.ks)):
                right = credit(shares, labels).reshape(shape)
                cells[i, layer, :, : right.shape[1]] = right
        names += [v.name.format(k=k) for k in v.ks]
        found.append(cells)
    return xr.DataArray(
        np.concatenate(found),
        dims=("setting", "layer", "task", "point"),
        coords={"setting": names},
    )


@dataclass(frozen=True)
class _Variation:
    """One thing done otherwise.

    Attributes:
        name: with a place for `k`.
        index: which rows are in the pool.
        groups: of all rows.
        ks: numbers of neighbours, a setting each.
    """

    name: str
    index: Int[np.ndarray, "row"]
    groups: Int[np.ndarray, "every"]
    metric: str
    normalise: str
    ks: list[int]


def _variations(plan: Plan) -> Iterator[_Variation]:
    s = plan.settings
    everything = np.arange(plan.queries.size)
    usual = _Variation("", everything, plan.groups, s.metric, s.normalise, [s.k])
    ks = sorted({k for k in (*KS, s.k) if k < s.n_prompts})
    yield replace(usual, name="k = {k}", ks=ks)
    for n in SIZES:
        if s.k < n <= s.n_prompts:
            index = np.flatnonzero(everything % s.n_prompts < n)
            yield replace(usual, name=f"{n} points per task", index=index)
    for metric, normalise in VIEWS:
        name = f"{metric}, {normalise}"
        yield replace(usual, name=name, metric=metric, normalise=normalise)
    yield replace(usual, name="left out: the query", groups=plan.queries.ravel())
    yield replace(usual, name="left out: the point", groups=everything)
