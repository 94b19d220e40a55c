"""How far a changed prediction follows regression on its own basis, and on another basis."""

import numpy as np
from jaxtyping import Float

from icl_mech.stats import ENDS, N_RESAMPLES, Estimates, resampled_means

Row = Float[np.ndarray, "sequence"]


def followed(predicted: Row, own: Row, target: Row, seed: int = 0) -> Estimates:
    """Coefficients a and b of `predicted = a own + b target`, by least squares.

    (a, b) is (1, 0) if the prediction uses the sequence's own basis, (0, 1) if it uses the target
    basis, and (0, 0) if it depends on neither.

    Args:
        predicted: for every sequence, after a change.
        own: what ridge regression on the coordinates of the sequence's basis predicts.
        target: the same on those of the target basis.
        seed: of the bootstrap over sequences.

    Returns:
        a and b, with 95 % intervals; NaN where `own` and `target` are the same.
    """
    # Least squares needs only the means of these products.
    columns = (own * own, own * target, target * target, own * predicted, target * predicted)
    products = np.stack(columns, axis=1)
    drawn = resampled_means(products, seed, N_RESAMPLES)
    low, high = np.quantile(_solved(drawn), ENDS, axis=0)
    return Estimates(_solved(products.mean(axis=0)), low, high, len(predicted))


def _solved(means: Float[np.ndarray, "*draw product"]) -> Float[np.ndarray, "*draw coefficient"]:
    oo, ot, tt, op, tp = np.moveaxis(means, -1, 0)
    determinant = oo * tt - ot**2
    determinant = np.where(determinant > 1e-9 * oo * tt, determinant, np.nan)
    return np.stack([tt * op - ot * tp, oo * tp - ot * op], axis=-1) / determinant[..., None]


def followed_by_pair(
    after: Float[np.ndarray, "basis sequence target"],
    as_if: Float[np.ndarray, "basis sequence target"],
) -> Estimates:
    """`followed` for every basis and target: `[basis, target, coefficient]`.

    Args:
        after: predictions after a change to each target basis.
        as_if: what regression on each basis' coordinates predicts.
    """
    bases = range(len(after))
    rows = [
        [followed(after[k, :, t], as_if[k, :, k], as_if[k, :, t]) for t in bases] for k in bases
    ]
    return Estimates.stacked([Estimates.stacked(row) for row in rows])
