"""A median with its distribution-free interval."""

import numpy as np
from jaxtyping import Float

from icl_mech.stats.estimate import CONFIDENCE, Estimate


def median(values: Float[np.ndarray, "n"]) -> Estimate:
    """Median with its distribution-free interval (order statistics, ends from the binomial).

    Values may be infinite (a waiting time of "never"); then the median or an end of the interval
    may be infinite, too. There is no interval (NaN) for fewer than 6 values: none of 95 % exists.

    >>> print(median(np.array([3.0, 1.0, 2.0, 5.0, 4.0, 6.0, 7.0])))
    4.00 [1.00, 7.00]
    """
    from scipy.stats import binom  # takes half a second to import

    n, ordered = len(values), np.sort(values)
    value = float(np.median(ordered)) if n else float("nan")
    k = int(binom.ppf((1 - CONFIDENCE) / 2, n, 0.5)) if n else 0
    if k < 1:
        return Estimate(value, float("nan"), float("nan"), n)
    return Estimate(value, float(ordered[k - 1]), float(ordered[n - k]), n)
