"""Intervals, against closed formulas and published numbers."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from scipy.stats import bootstrap

from icl_mech.stats import (
    Estimate,
    cluster_means,
    cluster_weights,
    mean,
    median,
    paired_difference,
    proportion,
    proportions,
    r_squared,
    r_squared_estimate,
)

Z = NormalDist().inv_cdf(0.975)


def outcomes(k: int, n: int) -> np.ndarray:
    return np.arange(n) < k


def wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson 1927: the p for which |k/n - p| = z sqrt(p (1 - p) / n)."""
    share = k / n
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    half = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n**2))
    return middle - half, middle + half


@pytest.mark.parametrize(
    ("k", "n"), [(3, 4), (1, 2), (25, 50), (49, 50), (1, 50), (0, 50), (50, 50), (333, 1000)]
)
def test_wilson_interval_is_the_closed_formula(k: int, n: int) -> None:
    estimate = proportion(outcomes(k, n))
    assert (estimate.value, estimate.n) == (k / n, n)
    assert (estimate.low, estimate.high) == pytest.approx(wilson(k, n), abs=1e-12)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_interval_as_published(k: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998, table I, method 3."""
    estimate = proportion(outcomes(k, n))
    assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("n", [1, 2, 10, 50, 1000])
def test_all_right_and_all_wrong(n: int) -> None:
    right, wrong = proportion(outcomes(n, n)), proportion(outcomes(0, n))
    assert (right.value, right.high) == (1, pytest.approx(1, abs=1e-12))
    assert (wrong.value, wrong.low) == (0, pytest.approx(0, abs=1e-12))
    assert right.low == pytest.approx(n / (n + Z**2), abs=1e-12)
    assert wrong.high == pytest.approx(Z**2 / (n + Z**2), abs=1e-12)


def test_order_does_not_matter_to_a_proportion() -> None:
    right = np.array([True, False, False, True, True])
    assert proportion(right) == proportion(right[::-1]) == proportion(outcomes(3, 5))


def test_proportions_takes_rows() -> None:
    right = np.array([[True, True, True, True], [True, True, False, False]])
    assert proportions(right) == [proportion(outcomes(4, 4)), proportion(outcomes(2, 4))]


def test_estimate_reads_as_text() -> None:
    assert str(proportion(outcomes(3, 4))) == "0.75 [0.30, 0.95]"
    assert str(Estimate(-0.5, -1.0, 0.25, 4)) == "-0.50 [-1.00, 0.25]"


def test_estimate_as_columns_of_a_table() -> None:
    estimate = Estimate(0.5, 0.25, 0.75, 4)
    assert estimate.columns("r2") == {"r2": 0.5, "r2_low": 0.25, "r2_high": 0.75}


# --- means -----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1])
def test_bootstrap_of_a_mean_is_scipys(seed: int) -> None:
    """Other resamples, the same distribution: ends within the error of 2,000 draws."""
    values = np.random.default_rng(seed).gamma(1.0, size=30)
    theirs = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=seed)
    ours = mean(values, seed)
    ends = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    assert (ours.low, ours.high) == pytest.approx(ends, abs=0.2 * values.std() / 30**0.5)
    assert ours.value == pytest.approx(values.mean())
    assert not math.isclose(*ends)


# --- paired differences ---------------------------------------------------------------------


@pytest.mark.parametrize("difference", [0.0, 0.5, -0.25])
def test_constant_difference_has_no_spread(difference: float) -> None:
    second = np.linspace(0, 4, 9)
    estimate = paired_difference(second + difference, second)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((difference,) * 3)
    assert estimate.n == 9


def test_same_outcomes_differ_by_nothing() -> None:
    right = outcomes(3, 7)
    assert paired_difference(right, right) == Estimate(0.0, 0.0, 0.0, 7)


def test_one_prompt_has_no_interval() -> None:
    estimate = paired_difference(np.array([True]), np.array([False]))
    assert (estimate.value, estimate.n) == (1, 1)
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_difference_is_first_minus_second() -> None:
    better, worse = outcomes(9, 10), outcomes(2, 10)
    gain, loss = paired_difference(better, worse), paired_difference(worse, better)
    assert (gain.value, loss.value) == pytest.approx((0.7, -0.7))
    assert gain.low > 0 > loss.high
    assert (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low), abs=0.11)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (outcomes(2, 4), outcomes(1, 4)),
        (outcomes(2, 4).astype(np.float32), outcomes(1, 4)),
        (outcomes(2, 4).astype(float), outcomes(1, 4).astype(np.float32)),
    ],
)
def test_right_or_wrong_counts_as_one_or_nothing(first: np.ndarray, second: np.ndarray) -> None:
    assert paired_difference(first, second).value == 0.25


def test_pairing_matters() -> None:
    rng = np.random.default_rng(0)
    prompt = rng.normal(size=200)
    first, second = prompt + 0.3 + rng.normal(scale=0.05, size=200), prompt
    paired = paired_difference(first, second)
    unpaired = paired_difference(first, rng.permutation(second))
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.low > 0.28
    assert paired.high < 0.32
    assert unpaired.high - unpaired.low > 10 * (paired.high - paired.low)


def test_bootstrap_interval_is_near_the_normal_one() -> None:
    difference = np.random.default_rng(1).normal(loc=1, size=400)
    estimate = paired_difference(difference, np.zeros(400))
    half = Z * difference.std() / math.sqrt(400)
    assert estimate.low == pytest.approx(difference.mean() - half, abs=0.15 * half)
    assert estimate.high == pytest.approx(difference.mean() + half, abs=0.15 * half)


def test_bootstrap_repeats_with_its_seed() -> None:
    first, second = np.random.default_rng(2).normal(size=(2, 30))
    assert paired_difference(first, second, seed=5) == paired_difference(first, second, seed=5)
    assert paired_difference(first, second, seed=5) != paired_difference(first, second, seed=6)


# --- clusters -------------------------------------------------------------------------------


def test_clusters_are_drawn_whole() -> None:
    weights = cluster_weights(np.array([7, 7, 3, 3, 3, 5]))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert (weights[:, [0, 2, 5]].sum(axis=1) == 3).all()
    assert weights.mean(axis=0) == pytest.approx(1, abs=0.05)


def test_clustered_values_have_wider_intervals_than_independent_ones() -> None:
    """Ten copies of each value say no more than one."""
    values = np.random.default_rng(0).standard_normal(30)
    copies = values.repeat(10)[None]
    (alone,) = cluster_means(values[None], np.arange(30), shares=False)
    (clustered,) = cluster_means(copies, np.arange(30).repeat(10), shares=False)
    (naive,) = cluster_means(copies, np.arange(300), shares=False)
    assert (clustered.value, clustered.low, clustered.high) == pytest.approx(
        (alone.value, alone.low, alone.high)
    )
    assert naive.high - naive.low == pytest.approx((alone.high - alone.low) / 10**0.5, rel=0.2)
    assert (clustered.n, naive.n) == (30, 300)
    half = 1.96 * values.std() / 30**0.5
    assert (alone.low, alone.high) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=0.06
    )


def test_nothing_to_resample() -> None:
    ones = np.ones((1, 20))
    (share,) = cluster_means(ones, np.arange(20), shares=True)
    assert (share.low, share.high) == pytest.approx(wilson(20, 20))
    (difference,) = cluster_means(ones, np.arange(20), shares=False)
    assert (difference.low, difference.high) == (1, 1)
    (single,) = cluster_means(ones, np.zeros(20, dtype=int), shares=True)
    assert math.isnan(single.low)
    (empty,) = cluster_means(ones * np.nan, np.arange(20), shares=True)
    assert math.isnan(empty.value)


# --- R² -------------------------------------------------------------------------------------


def test_r_squared_is_that_of_the_fitted_line() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(25)
    y = 2 * x + rng.standard_normal(25)
    slope, intercept = np.polyfit(x, y, 1)
    unexplained = ((y - slope * x - intercept) ** 2).sum() / ((y - y.mean()) ** 2).sum()
    assert float(r_squared(x, y)) == pytest.approx(1 - unexplained)


def test_r_squared_within_groups_is_what_is_left() -> None:
    """Groups that differ alike in both, and nothing within: all between, nothing within."""
    groups = np.repeat([0, 1, 2], 4)
    x = groups + np.tile([0, 0, 0.1, 0.1], 3)
    y = groups + np.tile([0, 0.1, 0, 0.1], 3)
    assert float(r_squared(x, y)) > 0.9
    assert float(r_squared(x, y, groups.tolist())) == pytest.approx(0, abs=1e-12)
    # With a dummy per group, as regressions do it.
    y = y + x**2
    dummies = np.eye(3)[groups]
    residual = [v - dummies @ np.linalg.lstsq(dummies, v, rcond=None)[0] for v in (x, y)]
    expected = np.corrcoef(*residual)[0, 1] ** 2
    assert float(r_squared(x, y, groups.tolist())) == pytest.approx(expected)
    assert math.isnan(r_squared(np.ones(4), y[:4]))


def test_r_squared_of_many_draws_at_once() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 50, 8))
    groups = ["a", "b"] * 4
    each = [float(r_squared(a, b, groups)) for a, b in zip(x, y, strict=True)]
    assert r_squared(x, y, groups) == pytest.approx(each)
    e = r_squared_estimate(x[0], y[0], x, y, groups)
    assert e.value == pytest.approx(each[0])
    assert (e.low, e.high) == pytest.approx(tuple(np.quantile(each, [0.025, 0.975])))


def test_median_has_the_order_statistics_of_the_binomial() -> None:
    """Published table: of 25 values, the 8th and the 18th."""
    estimate = median(np.random.default_rng(0).permutation(25).astype(float) + 1)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (13, 8, 18, 25)


def test_median_of_few_or_of_none_has_no_interval() -> None:
    assert math.isnan(median(np.arange(5.0)).low)
    assert not math.isnan(median(np.arange(6.0)).low)
    assert math.isnan(median(np.array([])).value)


def test_median_of_what_never_happens() -> None:
    estimate = median(np.array([1.0, 2.0, *[np.inf] * 6]))
    assert estimate.value == estimate.high == np.inf
    assert estimate.low == 1
