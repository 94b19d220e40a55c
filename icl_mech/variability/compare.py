"""Compares the vectors of several models, by relative depth."""

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from icl_mech.errors import InputError
from icl_mech.variability.result import VectorVariability

#: Properties in which compared results must agree.
MEASURED: dict[str, Callable[[VectorVariability], Any]] = {
    "tasks": lambda result: result.tasks,
    "numbers of shots": lambda result: result.shots,
    "number of vectors": lambda result: result.data.sizes["vector"],
}


def compare_variability(results: Sequence[VectorVariability], form: str = "raw") -> pd.DataFrame:
    """Distances, separation and accuracy of several models, over their common tasks' means.

    One row per model and layer. `depth` is the share of the model's blocks that have run: 1 is
    after the last block.

    Args:
        results: of the same tasks, numbers of vectors and numbers of shots.
        form: of the distances, `"raw"` or `"centred"`.

    Raises:
        InputError: if there are no results, or they differ in what they measured.

    Example:
        >>> tasks = ["antonyms", "country_capital"]
        >>> found = icl_mech.vector_variability(model, tasks, 3, 2, progress=False)
        >>> len(compare_variability([found]))
        18
    """
    if not results:
        raise InputError("no results; expected at least one")
    for result in results[1:]:
        for what, of in MEASURED.items():
            if of(result) != of(results[0]):
                raise InputError(
                    f"{what} {of(result)} of {result.provenance['model']} differ from "
                    f"{of(results[0])} of {results[0].provenance['model']}; expected the same for "
                    "every model"
                )
    rows = []
    for result in results:
        within, between = (result.distances(None, other, form=form) for other in (None, "other"))
        separation, accuracy = result.separation(form=form), result.accuracy()
        for i, layer in enumerate(result.layers):
            row = {
                "model": str(result.provenance["model"]),
                "layer": layer,
                "depth": (i + 1) / len(result.layers),
            }
            for name, e in (
                ("within", within.at(i)),
                ("between", between.at(i)),
                ("silhouette", separation.at(i)),
                ("accuracy", accuracy[i]),
            ):
                row |= e.columns(name)
            rows.append(row)
    return pd.DataFrame(rows)
