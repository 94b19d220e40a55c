"""Onsets of curves: the steps at which encoding and decoding emerge in training."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from icl_mech.errors import InputError, choose
from icl_mech.stats import Estimate, paired_difference

if TYPE_CHECKING:
    from icl_mech.synthetic.emergence import Emergence

Encoding = Literal["td", "probe"]
FRACTION = 0.5


def onset(
    steps: Sequence[int], curve: Float[np.ndarray, "step"], fraction: float = FRACTION
) -> float:
    """The step at which a curve has gone a fraction of the way from its start to its end, for good.

    Between two checkpoints the curve is taken as straight. If the curve crosses the level several
    times, the last crossing counts. NaN for a curve that ends where it began.

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
    # Divided by NaN, a curve without a change has no onset.
    change = curve[-1] - curve[0] or np.nan
    return crossing(steps, (curve - curve[0]) / change, fraction)


def crossing(steps: Sequence[int], curve: Float[np.ndarray, "step"], level: float) -> float:
    """The step at which a curve rises above a level for good, linear between checkpoints.

    NaN for a curve that does not end above it, or was never below.

    Raises:
        InputError: where there are not two checkpoints.
    """
    if len(steps) < 2:
        raise InputError(f"{len(steps)} checkpoints; expected at least 2")
    below = np.flatnonzero(curve < level)
    if not len(below) or below[-1] == len(curve) - 1:
        return float("nan")
    before = int(below[-1])
    share = (level - curve[before]) / (curve[before + 1] - curve[before])
    return float(steps[before] + share * (steps[before + 1] - steps[before]))


def lead_in_words(lead: Estimate | float) -> str:
    """A lead in updates as words: positive leads, negative lags.

    >>> lead_in_words(1886.6), lead_in_words(-624.0)
    ('leads by 1,887', 'lags by 624')
    >>> lead_in_words(Estimate(-624.0, -803.0, -445.0, 3))
    'lags by 624 [445, 803]'
    """
    if not isinstance(lead, Estimate):
        return (
            "no onset" if lead != lead else f"{'lags' if lead < 0 else 'leads'} by {abs(lead):,.0f}"
        )
    low, high = (-lead.high, -lead.low) if lead.value < 0 else (lead.low, lead.high)
    interval = "" if low != low else f" [{low:,.0f}, {high:,.0f}]"
    return lead_in_words(lead.value) + interval


def onsets(run: "Emergence", fraction: float = FRACTION, encoding: Encoding = "td") -> pd.DataFrame:
    """Onset of encoding and of performance for every basis of a run, and how far they are apart.

    *Encoding* is the share of the basis' sequences that are decoded right, at the layer that is
    best on dev sequences at the end; *performance* is the mean squared error of the query's
    prediction; *use* is where that error falls below ridge regression's, which does not know the
    bases, so that from there on the prediction must use the basis.

    Args:
        run: its checkpoints, measured.
        fraction: of the whole change of encoding and performance, as in `onset`.
        encoding: `"td"`, task decodability (nearest neighbours), or `"probe"`, the linear probe.

    Returns:
        A row per basis: `encoding`, `performance` and `use` (updates); `lead` = performance -
        encoding and `lead_of_use` = use - encoding, which are positive where encoding comes first.
        NaN where the last checkpoint is not better than the first (for use: than ridge regression),
        as the 95 % interval of their difference holds 0.

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
    """The step, or NaN where the one mean is not larger beyond the interval of the difference."""
    return step if paired_difference(larger, smaller).low > 0 else float("nan")
