"""The caveats of a variability result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icl_mech.stats import CONFIDENCE, FEWEST_GROUPS

if TYPE_CHECKING:
    from icl_mech.variability.result import VectorVariability

#: If the mean distance between tasks is below this, a caveat points to centred distances.
SMALL = 0.2
#: If two sets share at least this part of their demonstrations, a caveat says so.
NOTED = 0.05


def notes(result: VectorVariability) -> list[str]:
    """One line per caveat."""
    p, found = result.provenance, []
    n = result.data.sizes["vector"]
    for task, about in p["tasks"].items():
        if about["overlap"] >= NOTED:
            found.append(
                f"{task}: its pairs make {about['n_disjoint_sets']} disjoint demonstration sets, "
                f"for {n} vectors (two share {about['overlap']:.0%} of their demonstrations on "
                "average): distances within it are too small"
            )
        if about["n_queries"] < n:
            found.append(
                f"{task}: {about['n_queries']} different queries for {n} vectors; intervals of "
                "accuracy are over queries"
            )
    if not p["shared_inputs"]:
        found.append(
            "the tasks show different inputs, so their words alone may set their vectors apart "
            "(a family shares inputs)"
        )
    if 1 in result.shots:
        found.append("with one shot there are no labels to shuffle: that control is θ itself")
    choice = result.choice()
    layer = result.layers[choice.at]
    found += choice.caveat(layer)
    undefined = result.data["distance"].isnull().any(("shots", "form", "pair"))
    if undefined.any():
        layers = ", ".join(str(at) for at in undefined["layer"].values[undefined.values])
        return [
            *found,
            f"after block {layers} some vectors are 0, or all are the same: they have no "
            "direction, so their distances are undefined and shown as a dash",
        ]
    between = result.distances(None, "other", layers=[layer]).at(0).value
    if between < SMALL:
        found.append(
            f"after block {layer} all vectors point nearly the same way (mean distance between "
            f"tasks {between:.3f}): read the centred distances, from which what they share is "
            "subtracted"
        )
    return [*found, _centred(result, layer), *_shuffled(result, layer)]


def _centred(result: VectorVariability, layer: int) -> str:
    n = len(result.tasks)
    pushed = (
        f"centred: subtracting the mean of {n} tasks pushes them away from one another, so "
        "the mean distance between all tasks says nothing"
    )
    if n < FEWEST_GROUPS:
        return (
            f"{pushed}; nor do single pairs: {n} tasks are too few to say that two are near "
            f"(expected at least {FEWEST_GROUPS})"
        )
    table = result.pairs_of_tasks(layer)
    near = [f"{one} and {other}" for one, other in table.index[table["p"] <= 1 - CONFIDENCE]]
    return (
        f"{pushed}; pairs of tasks that are nearer than chance would make the nearest pair (block "
        f"{layer}, p corrected for all {len(table)} pairs): {', '.join(near) or 'none'}"
    )


def _shuffled(result: VectorVariability, layer: int) -> list[str]:
    """Whether shuffled labels move theta less than other demonstrations do."""
    if max(result.shots) == 1:
        return []
    moved = result.controls("shuffled", form="centred").at(result.layers.index(layer))
    within = result.distances(layers=[layer], form="centred").at(0)
    if moved.high >= within.low:
        return []
    return [
        f"shuffling the labels moves θ less than other demonstrations do (block {layer}, "
        f"centred: {moved.value:.2f} against {within.value:.2f}): distances depend more on the "
        "words shown than on the mapping"
    ]
