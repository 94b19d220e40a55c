"""Intervals. The one home of every statistic that figures and tables show."""

from icl_mech.stats.estimate import CONFIDENCE, ENDS, Estimate, Estimates
from icl_mech.stats.means import few_mean, mean, means, resampled_means
from icl_mech.stats.medians import median
from icl_mech.stats.multiple import holm, sign_flip_p
from icl_mech.stats.pairings import (
    crossed,
    mean_change,
    paired_difference,
    rank_correlation,
    ratio_of_means,
)
from icl_mech.stats.pairs import FEWEST_GROUPS, nearer_than_chance, pair_means
from icl_mech.stats.regression import r_squared, r_squared_estimate
from icl_mech.stats.resampling import (
    MIN_CLUSTERS,
    N_RESAMPLES,
    N_RESAMPLES_SLOW,
    Clusters,
    draw_weights,
)
from icl_mech.stats.shares import proportion, proportions, repeated, share, shares
from icl_mech.stats.votes import MUTUAL, widened, within_1

__all__ = [
    "CONFIDENCE",
    "ENDS",
    "FEWEST_GROUPS",
    "MIN_CLUSTERS",
    "MUTUAL",
    "N_RESAMPLES",
    "N_RESAMPLES_SLOW",
    "Clusters",
    "Estimate",
    "Estimates",
    "crossed",
    "draw_weights",
    "few_mean",
    "holm",
    "mean",
    "mean_change",
    "means",
    "median",
    "nearer_than_chance",
    "pair_means",
    "paired_difference",
    "proportion",
    "proportions",
    "r_squared",
    "r_squared_estimate",
    "rank_correlation",
    "ratio_of_means",
    "repeated",
    "resampled_means",
    "share",
    "shares",
    "sign_flip_p",
    "widened",
    "within_1",
]
