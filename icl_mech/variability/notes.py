"""What to keep in mind when reading the variability of vectors, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icl_mech.stats import CONFIDENCE, FEWEST_GROUPS

if TYPE_CHECKING:
    from icl_mech.variability.result import VectorVariability

#: Mean distance between tasks below which vectors are told apart by little of their length.
SMALL = 0.2
#: Share of demonstrations that two sets have in common from which it is worth a line.
NOTED = 0.05


def notes(result: VectorVariability) -> list[str]:
    """Caveats that this result's own numbers call for."""
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
    found += choice.caveat(result.layers[choice.at])
    undefined = _undefined(result)
    if undefined:
        return [*found, *undefined]
    return [*found, *_small(result), _centred(result), *_shuffled(result)]


def _undefined(result: VectorVariability) -> list[str]:
    """Where vectors have no direction, and so no distance."""
    by_layer = result.data["distance"].isnull().any(("shots", "form", "pair"))
    layers = [str(layer) for layer in by_layer["layer"].values[by_layer.values]]
    if not layers:
        return []
    return [
        f"after block {', '.join(layers)} some vectors are 0, or all are the same: the distances "
        "of what has no direction are undefined, and shown as a dash"
    ]


def _small(result: VectorVariability) -> list[str]:
    layer = result.best_layer()
    between = result.distances(None, "other", layers=[layer]).at(0).value
    if between >= SMALL:
        return []
    return [
        f"after block {layer} all vectors point nearly the same way (mean distance between tasks "
        f"{between:.3f}): read the centred distances, from which what they share is subtracted"
    ]


def _centred(result: VectorVariability) -> str:
    layer, n = result.best_layer(), len(result.tasks)
    pushed = (
        f"centred: subtracting the mean of {n} tasks pushes them away from one another, so that "
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
        f"{pushed}; nearer than chance would have the nearest pair (block {layer}, p corrected for "
        f"all {len(table)} pairs): {', '.join(near) or 'none'}"
    )


def _shuffled(result: VectorVariability) -> list[str]:
    """Whether what the labels say moves theta more than other demonstrations do."""
    if max(result.shots) == 1:
        return []
    layer = result.best_layer()
    i = result.layers.index(layer)
    moved = result.controls("shuffled", form="centred").at(i)
    within = result.distances(layers=[layer], form="centred").at(0)
    if moved.high < within.low:
        return [
            f"shuffling the labels moves θ less than other demonstrations do (block {layer}, "
            f"centred: {moved.value:.2f} against {within.value:.2f}): what is near or far is more "
            "the words shown than the mapping"
        ]
    return []
