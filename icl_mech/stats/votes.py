"""Intervals of shares of neighbours' votes, which are wider than those of independent points."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from icl_mech.stats.estimate import ENDS, Estimate
from icl_mech.stats.quantiles import student_t

#: Factor on the width of an interval over queries. Two points that are each other's neighbours vote
#: for one another, so their votes are correlated: both get the right vote or neither does.
#: Resampling queries misses this correlation. If all neighbours are mutual, each pair counts twice
#: and the variance doubles, which is the most that is possible.
#: `tests/slow/test_decodability_noise.py` measures a ratio of standard deviations of 1.15 to 1.35.
MUTUAL = 2**0.5


def widened(estimates: Sequence[Estimate], n_queries: int, n_choices: int = 1) -> list[Estimate]:
    """Intervals of TD (shares of 1, or their differences), from intervals over queries.

    Args:
        estimates: with intervals that take the votes as independent between queries.
        n_queries: how many different queries there are.
        n_choices: the number of estimates among which one is chosen by its value; the intervals
            then cover all of them together with 95 % (Bonferroni).

    >>> print(widened([Estimate(0.5, 0.4, 0.6, 50)], 50)[0])
    0.50 [0.36, 0.64]
    >>> print(widened([Estimate(0.5, 0.4, 0.6, 50)], 50, n_choices=18)[0])
    0.50 [0.28, 0.72]
    """
    df = max(n_queries - 1, 1)
    factor = MUTUAL * student_t(df, ENDS[0] / n_choices) / student_t(df, ENDS[0])
    return [
        replace(
            e,
            low=e.value - factor * (e.value - e.low),
            high=e.value + factor * (e.high - e.value),
        )
        for e in estimates
    ]


def within_1(estimates: Sequence[Estimate]) -> list[Estimate]:
    """The same with the ends of each interval cut to 0 and 1; NaN stays.

    >>> print(within_1([Estimate(0.9, 0.7, 1.1, 50)])[0])
    0.90 [0.70, 1.00]
    """
    return [
        replace(e, low=float(np.clip(e.low, 0, 1)), high=float(np.clip(e.high, 0, 1)))
        for e in estimates
    ]
