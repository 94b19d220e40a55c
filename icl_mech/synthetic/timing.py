"""Onsets of curves: the steps at which encoding and decoding emerge in training."""

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

    *Encoding* is the share of the basis' sequences that are decoded right, at the layer that is
    best on dev sequences at the end. *Performance* is the mean squared error of the query's
    prediction. The onset of *use* is the step at which this error falls below that of ridge
    regression. Ridge regression does not know the bases, so from there on the prediction must use
    the basis.

    Args:
        run: its checkpoints, measured.
        fraction: of the whole change of encoding and performance, as in `onset`.
        encoding: `"td"`, task decodability (nearest neighbours), or `"probe"`, the linear probe.

    Returns:
        A row per basis: `encoding`, `performance` and `use` (updates); `lead` = performance -
        encoding and `lead_of_use` = use - encoding, which are positive if encoding comes first.
        NaN if the last checkpoint is not better than the first (for use: than ridge regression):
        the 95 % interval of their difference contains 0.

    Raises:
        InputError: where the fraction or the encoding is invalid.

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
        theirs = ridge.isel(basis=k).values.astype(float)
        row: dict[str, float] = {
            "encoding": _if_better(
                decoded[-1], decoded[0], onset(run.steps, decoded.mean(axis=1), fraction)
            ),
            "performance": _if_better(
                wrong[0], wrong[-1], onset(run.steps, -wrong.mean(axis=1), fraction)
            ),
            "use": _if_better(
                theirs, wrong[-1], crossing(run.steps, (theirs - wrong).mean(axis=1), 0.0)
            ),
        }
        row["lead"] = row["performance"] - row["encoding"]
        row["lead_of_use"] = row["use"] - row["encoding"]
        rows.append(row)
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="basis"))


def _if_better(
    larger: Float[np.ndarray, "sequence"], smaller: Float[np.ndarray, "sequence"], step: float
) -> float:
    """The step, or NaN if the interval of the difference of the two means is not above 0."""
    return step if paired_difference(larger, smaller).low > 0 else float("nan")
