"""Intervals. The one home of every statistic that figures and tables show."""

from icl_mech.stats.bootstrap import (
    crossed,
    mean,
    means,
    paired_difference,
    rank_correlation,
    ratio_of_means,
    resampled_means,
)
from icl_mech.stats.clusters import cluster_means, cluster_weights, repeated, share, shares
from icl_mech.stats.estimate import CONFIDENCE, ENDS, Estimate, Estimates
from icl_mech.stats.exact import few_mean, median, proportion, proportions
from icl_mech.stats.pairs import FEWEST_GROUPS, nearer_than_chance, pair_means
from icl_mech.stats.regression import r_squared, r_squared_estimate
from icl_mech.stats.resampling import N_RESAMPLES, N_RESAMPLES_SLOW, Clusters

__all__ = [
    "CONFIDENCE",
    "ENDS",
    "FEWEST_GROUPS",
    "N_RESAMPLES",
    "N_RESAMPLES_SLOW",
    "Clusters",
    "Estimate",
    "Estimates",
    "cluster_means",
    "cluster_weights",
    "crossed",
    "few_mean",
    "mean",
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
]
