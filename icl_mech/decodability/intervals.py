"""Intervals of shares of votes: wider than those of independent points, and over a choice."""

from collections.abc import Sequence
from dataclasses import replace

from scipy.stats import t

from icl_mech.stats import ENDS, Estimate

#: Two points that are each other's neighbours vote for one another, so that chance gives both the
#: right vote or neither: resampling queries in a fixed pool does not see that. Where every
#: neighbour is mutual, each pair counts twice, which doubles the variance; it cannot do more.
#: `tests/slow/test_decodability_noise.py` measures a ratio of standard deviations of 1.15 to 1.35.
MUTUAL = 2**0.5


def widened(estimates: Sequence[Estimate], n_queries: int, n_choices: int = 1) -> list[Estimate]:
    """Intervals of TD (shares of 1, or their differences), from intervals over queries.

    Args:
        estimates: with intervals that take the votes as independent between queries.
        n_queries: how many different ones there are.
        n_choices: of how many estimates one is picked after looking; then all of the intervals
            together hold with 95 % (Bonferroni).

    >>> print(widened([Estimate(0.5, 0.4, 0.6, 50)], 50)[0])
    0.50 [0.36, 0.64]
    >>> print(widened([Estimate(0.5, 0.4, 0.6, 50)], 50, n_choices=18)[0])
    0.50 [0.28, 0.72]
    """
    df = max(n_queries - 1, 1)
    factor = MUTUAL * t.ppf(ENDS[0] / n_choices, df) / t.ppf(ENDS[0], df)
    return [
        replace(
            e,
            low=e.value - factor * (e.value - e.low),
            high=e.value + factor * (e.high - e.value),
        )
        for e in estimates
    ]


def within_1(estimates: Sequence[Estimate]) -> list[Estimate]:
    """Ends of shares cut to 0 and 1; NaN stays."""
    return [replace(e, low=_cut(e.low), high=_cut(e.high)) for e in estimates]


def _cut(end: float) -> float:
    # In this order a NaN is kept: max(NaN, 0) is NaN.
    return min(max(end, 0.0), 1.0)
