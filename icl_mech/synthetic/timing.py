"""When do encoding and decoding emerge in training? Onset steps of curves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_mech.errors import choose
from icl_mech.stats import paired_difference
from icl_mech.stats.onset import FRACTION, crossing, onset

if TYPE_CHECKING:
    from icl_mech.synthetic.emergence import Emergence

Encoding = Literal["td", "probe"]


def onsets(run: "Emergence", fraction: float = FRACTION, encoding: Encoding = "td") -> pd.DataFrame:
    """Onset of encoding and of performance for every basis of a run, and how far they are apart.

    *Encoding* is how often sequences of the basis are decoded right, at the layer that is best on
    dev sequences at the end; *performance* the mean squared error of the query's prediction; *use*
    is where that error falls below ridge regression's, which knows of no bases: from there on the
    prediction must use the basis.

    Args:
        run: its checkpoints, measured.
        fraction: of the whole change of encoding and performance, as in `onset`.
        encoding: `"td"`, task decodability (nearest neighbours), or `"probe"`, the linear probe.

    Returns:
        A row per basis: `encoding`, `performance` and `use` (updates); `lead` = performance -
        encoding and `lead_of_use` = use - encoding: positive where encoding comes first. NaN where
        the last checkpoint is not better than the first (for use: than ridge regression) beyond
        the 95 % interval of their difference: nothing has emerged.

    Raises:
        InputError: where the fraction or the encoding is not a valid one.

    Example:
        >>> run = icl_mech.load_result("analyses/data/small-seed0.nc")
        >>> onsets(run).index.tolist()
        [0, 1]
    """
    choose(encoding, get_args(Encoding), "encoding")
    right = run.data["credit" if encoding == "td" else "basis_probe"]
    right = right.isel(layer=run.best_layer()).transpose("step", "basis", "sequence")
    error = run.data["squared_error"].isel(n_seen=-1).transpose("step", "basis", "sequence")
    ridge = run.data["reference_squared_error"].sel(reference="ridge").isel(n_seen=-1)
    rows = []
    for k in range(run.data.sizes["basis"]):
        decoded, wrong = right.values[:, k].astype(float), error.values[:, k].astype(float)
        row: dict[str, float] = {
            "encoding": _emerged(run.steps, decoded, fraction),
            "performance": _emerged(run.steps, -wrong, fraction),
            "use": _better(run.steps, wrong, ridge.isel(basis=k).values.astype(float)),
        }
        row["lead"] = row["performance"] - row["encoding"]
        row["lead_of_use"] = row["use"] - row["encoding"]
        rows.append(row)
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="basis"))


def _emerged(
    steps: Sequence[int], values: Float[np.ndarray, "step sequence"], fraction: float
) -> float:
    """The onset of a mean that rises; NaN where it does not."""
    found = onset(steps, values.mean(axis=1), fraction)
    return found if paired_difference(values[-1], values[0]).low > 0 else float("nan")


def _better(
    steps: Sequence[int],
    wrong: Float[np.ndarray, "step sequence"],
    theirs: Float[np.ndarray, "sequence"],
) -> float:
    """Where a mean error falls below another's for good; NaN where it does not."""
    found = crossing(steps, (theirs - wrong).mean(axis=1), 0.0)
    return found if paired_difference(theirs, wrong[-1]).low > 0 else float("nan")
