"""When do encoding and decoding emerge in training? Onset steps of curves."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_mech.errors import InputError, choose
from icl_mech.stats import paired_difference

if TYPE_CHECKING:
    from icl_mech.synthetic.emergence import Emergence

Encoding = Literal["td", "probe"]
FRACTION = 0.5


def onset(
    steps: Sequence[int], curve: Float[np.ndarray, "step"], fraction: float = FRACTION
) -> float:
    """The step at which a curve has gone a fraction of the way from its start to its end, for good.

    Between two checkpoints the curve is taken as straight. The crossing is the last one: a peak
    that is lost again is no onset. NaN for a curve that ends where it began.

    Args:
        steps: of the checkpoints, rising.
        curve: a value at each.
        fraction: of the whole change, between 0 and 1.

    Raises:
        InputError: where the fraction is not between 0 and 1, or there are not two checkpoints.

    >>> onset([0, 10, 20, 30], np.array([1.0, 1.0, 0.0, 0.0]))
    15.0
    """
    if not 0 < fraction < 1:
        raise InputError(f"fraction is {fraction}; expected between 0 and 1")
    if len(steps) < 2:
        raise InputError(f"{len(steps)} checkpoints; expected at least 2")
    change = curve[-1] - curve[0]
    if change == 0 or np.isnan(change):
        return float("nan")
    gone = (curve - curve[0]) / change
    before = int(np.flatnonzero(gone < fraction)[-1])
    share = (fraction - gone[before]) / (gone[before + 1] - gone[before])
    return float(steps[before] + share * (steps[before + 1] - steps[before]))


def onsets(run: "Emergence", fraction: float = FRACTION, encoding: Encoding = "td") -> pd.DataFrame:
    """Onset of encoding and of performance for every basis of a run, and how far they are apart.

    Encoding is how often sequences of the basis are decoded right, at the layer that is best on
    dev sequences at the end; performance the mean squared error of the query's prediction.

    Args:
        run: its checkpoints, measured.
        fraction: of the whole change of a curve, as in `onset`.
        encoding: `"td"`, task decodability (nearest neighbours), or `"probe"`, the linear probe.

    Returns:
        A row per basis: `encoding`, `performance` (updates), and `lead` = performance - encoding:
        positive where encoding comes first. NaN where the last checkpoint is not better than the
        first beyond the 95 % interval of their difference: nothing has emerged.

    Raises:
        InputError: where the fraction or the encoding is not a valid one.
    """
    choose(encoding, get_args(Encoding), "encoding")
    right = run.data["credit" if encoding == "td" else "basis_probe"]
    right = right.isel(layer=run.best_layer()).transpose("step", "basis", "sequence")
    error = run.data["squared_error"].isel(n_seen=-1).transpose("step", "basis", "sequence")
    rows = []
    for k in range(run.data.sizes["basis"]):
        found = {
            "encoding": _emerged(run.steps, right.values[:, k].astype(float), fraction),
            "performance": _emerged(run.steps, -error.values[:, k].astype(float), fraction),
        }
        rows.append({"basis": k, **found, "lead": found["performance"] - found["encoding"]})
    return pd.DataFrame(rows).set_index("basis")


def _emerged(
    steps: Sequence[int], values: Float[np.ndarray, "step sequence"], fraction: float
) -> float:
    """The onset of a mean that rises; NaN where it does not."""
    found = onset(steps, values.mean(axis=1), fraction)
    return found if paired_difference(values[-1], values[0]).low > 0 else float("nan")
