"""Intervals, against closed formulas and published numbers."""

import math

import numpy as np
import pytest
from plain import Z, wilson
from scipy.stats import t

from icl_mech.stats import (
    Estimate,
    crossed,
    draw_weights,
    mean,
    means,
    median,
    nearer_than_chance,
    paired_difference,
    proportion,
    proportions,
    r_squared,
    r_squared_estimate,
    rank_correlation,
    ratio_of_means,
    repeated,
    share,
    shares,
)


def outcomes(k: int, n: int) -> np.ndarray:
    return np.arange(n) < k


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


def test_interval_of_a_mean_holds_students_and_follows_the_skew() -> None:
    values = np.random.default_rng(0).exponential(size=20)
    e = mean(values)
    half = t.ppf(0.975, 19) * values.std(ddof=1) / 20**0.5
    assert e.low <= values.mean() - half + 1e-12
    assert e.high > values.mean() + 1.1 * half  # longer on the side of the tail
    assert (e.n, e.n_clusters) == (20, 20)


def test_cells_are_means_of_their_own() -> None:
    values = np.random.default_rng(1).normal(size=(12, 3, 2)) * [1, 100]
    every = means(values)
    for cell in np.ndindex(3, 2):
        one, same = mean(values[:, *cell]), every.at(*cell)
        assert (same.value, same.low, same.high) == pytest.approx((one.value, one.low, one.high))


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_values_have_no_interval(n: int) -> None:
    assert math.isnan(mean(np.arange(float(n))).low)
    assert math.isnan(paired_difference(outcomes(1, n), outcomes(0, n)).low)
    clusters = np.arange(12) % n
    if n < 12:
        assert math.isnan(share(outcomes(6, 12), clusters).low)
        assert math.isnan(mean(np.arange(12.0), clusters=clusters).low)


def test_a_nan_stays_where_it_is() -> None:
    values = np.random.default_rng(2).normal(size=(8, 2))
    values[3, 0] = np.nan
    e = means(values)
    assert np.isnan([e.value[0], e.low[0], e.high[0]]).all()
    assert e.low[1] < e.value[1] < e.high[1]


# --- paired differences ---------------------------------------------------------------------


@pytest.mark.parametrize("difference", [0.0, 0.5, -0.25])
def test_constant_difference_has_no_spread(difference: float) -> None:
    second = np.linspace(0, 4, 9)
    estimate = paired_difference(second + difference, second)
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((difference,) * 3)
    assert estimate.n == 9


def test_arms_that_agree_on_every_prompt_may_still_differ() -> None:
    """Where both are always right, as far as Wilson's interval (with t) of either reaches."""
    e = paired_difference(outcomes(20, 20), outcomes(20, 20))
    z = t.ppf(0.975, 19)
    assert (e.value, e.low, e.high) == pytest.approx((0, -(z**2) / (20 + z**2), z**2 / (20 + z**2)))
    some = paired_difference(outcomes(3, 7), outcomes(3, 7))
    assert some.low < 0 < some.high


def test_paired_shares_as_published() -> None:
    """Newcombe 1998, table II, method 10 without its correction of phi, at large samples.

    36 of 50 prompts agree on right, 14 differ: b = 12, c = 2 of n = 50.
    """
    first = np.array([1.0] * 36 + [1] * 12 + [0] * 2)
    second = np.array([1.0] * 36 + [0] * 12 + [1] * 2)
    e = paired_difference(first, second)
    assert e.value == pytest.approx(0.2)
    assert (e.low, e.high) == pytest.approx((0.0569, 0.3404), abs=0.02)


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
    weights = draw_weights(6, clusters=np.array([7, 7, 3, 3, 3, 5]))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 4]).all()
    assert weights.sum(axis=1) == pytest.approx(1)
    assert draw_weights(6).mean(axis=0) == pytest.approx(1 / 6, rel=0.05)


def test_clustered_values_have_wider_intervals_than_independent_ones() -> None:
    """Ten copies of each value say no more than one."""
    values = np.random.default_rng(0).standard_normal(30)
    alone, naive = mean(values), mean(values.repeat(10))
    clustered = mean(values.repeat(10), clusters=np.arange(30).repeat(10))
    assert (clustered.value, clustered.low, clustered.high) == pytest.approx(
        (alone.value, alone.low, alone.high)
    )
    assert naive.high - naive.low == pytest.approx((alone.high - alone.low) / 10**0.5, rel=0.2)
    assert (clustered.n, clustered.n_clusters, naive.n_clusters) == (300, 30, 300)


def test_shares_of_prompts_that_all_differ_are_trials() -> None:
    right = np.array([outcomes(3, 5), outcomes(0, 5)])
    expected = proportions(right)
    assert shares(right, np.array(list("abcde"))) == expected
    assert shares(right.astype(float), None) == expected
    assert share(right[0], np.array(list("edcba"), dtype=object)) == expected[0]


def test_shares_of_prompts_that_share_queries_are_over_queries() -> None:
    """They hold the truth, where Wilson's for as many prompts hold it in 65 %."""
    rng, queries = np.random.default_rng(0), np.arange(50) % 10
    held = {"shares": 0, "wilson": 0}
    n = 400
    for _ in range(n):
        right = (rng.random(10) < 0.5)[queries]  # a query is right always, or never
        for name, e in (("shares", share(right, queries)), ("wilson", proportion(right))):
            held[name] += e.low <= 0.5 <= e.high
    assert held["shares"] / n > 0.93
    assert held["wilson"] / n < 0.75


@pytest.mark.parametrize("k", [0, 1, 25, 49, 50])
def test_prompts_that_share_queries_never_say_more_than_others(k: int) -> None:
    queries = np.arange(50) % 10
    right = np.isin(np.arange(50), np.arange(50)[np.argsort(queries, kind="stable")][:k])
    ours, trials = share(right, queries), proportion(right)
    assert ours.low <= trials.low
    assert ours.high >= trials.high
    assert (ours.value, ours.n) == (k / 50, 50)
    assert ours.n_clusters == 10
    if k in (0, 50):  # ten trials, with Student's t
        z = t.ppf(0.975, 9)
        width = z**2 / (10 + z**2)
        assert (ours.low, ours.high) == pytest.approx((1 - width, 1) if k else (0, width))


def test_chances_of_being_right_are_no_trials() -> None:
    values = np.array([0.5, 0.25, 1.0, 0.0] * 5)
    assert share(values, None) == mean(values)
    near = share(np.array([1.0] * 9 + [0.5]), None)
    assert near.high == 1  # cut where shares end


def test_one_query_has_no_interval() -> None:
    assert math.isnan(share(outcomes(2, 4), np.full(4, "q")).low)
    assert share(outcomes(1, 1), np.array(["q"])) == proportion(outcomes(1, 1))


def test_every_bootstrap_draws_queries_whole() -> None:
    """Five copies of each prompt say no more than one; queries that differ change nothing."""
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 30, 4)) + 1
    copies = [values.repeat(5, axis=0) for values in (first, second)]
    queries = np.array([f"q{i:02}" for i in range(30)])

    def found(a: np.ndarray, b: np.ndarray, clusters: np.ndarray | None) -> list[Estimate]:
        return [
            mean(a[:, 0], clusters=clusters),
            means(a, clusters=clusters).at(1),
            paired_difference(a[:, 0], b[:, 0], clusters=clusters),
            ratio_of_means(a, b[:, 0], clusters=clusters).at(2),
            rank_correlation(a, b, clusters=clusters),
        ]

    alone, naive = found(first, second, None), found(*copies, None)
    assert found(first, second, queries) == alone
    for whole, one, many in zip(found(*copies, queries.repeat(5)), alone, naive, strict=True):
        assert (whole.value, whole.low, whole.high) == pytest.approx((one.value, one.low, one.high))
        assert whole.high - whole.low >= many.high - many.low
    for e in found(*copies, np.full(150, "q")):
        assert math.isnan(e.low)


def test_a_ratio_survives_a_resample_without_a_denominator() -> None:
    """4 of 50 are right: one resample in seventy has none of them, and 0 / 0 is no ratio."""
    below = outcomes(4, 50).astype(float)
    same = ratio_of_means(below, below).at()
    assert same.low < same.value == 1 < same.high
    above = below.copy()
    above[10] = 1
    more = ratio_of_means(above, below).at()
    assert more.low < 1.25 < more.high < math.inf
    noise = np.random.default_rng(0).normal(size=50)  # its own interval covers 0
    assert math.isnan(ratio_of_means(noise, noise).low[()])


def test_ratio_of_proportional_numbers_is_exact() -> None:
    below = np.random.default_rng(0).gamma(4.0, size=20)
    e = ratio_of_means(np.stack([3 * below, -2 * below, 0 * below], axis=1), below)
    assert e.value == pytest.approx([3, -2, 0])
    assert e.low == pytest.approx([3, -2, 0], abs=1e-6)
    assert e.high == pytest.approx([3, -2, 0], abs=1e-6)
    turned = ratio_of_means(3 * below + np.arange(20), -below).at()
    straight = ratio_of_means(3 * below + np.arange(20), below).at()
    assert (turned.low, turned.high) == pytest.approx((-straight.high, -straight.low))


def test_prompts_and_draws_both_count() -> None:
    every = crossed(np.ones((25, 10), bool))
    z = t.ppf(0.975, 24)
    sides = z**2 / (25 + z**2), 1 - wilson(10, 10)[0]
    assert (every.low, every.high) == pytest.approx((1 - math.hypot(*sides), 1))
    assert (every.n, every.n_clusters) == (25, 25)
    same = crossed(np.ones((25, 10), bool), minus=np.ones(25, bool))
    assert same.low < -0.1 < 0.1 < same.high
    draws = np.random.default_rng(0).random(10)
    some = np.random.default_rng(0).random((25, 10)) < draws  # draws differ, prompts hardly
    assert crossed(some).high - crossed(some).low > 0.2
    one_more = crossed(some, minus=np.zeros(25, bool))
    assert one_more.value == pytest.approx(some.mean())


def test_repeated_queries_are_said() -> None:
    (line,) = repeated(["a", "b"], [10, 50], 50)
    assert line.startswith("a: 10 different queries in 50 prompts")
    assert "intervals are over queries" in line


def test_only_a_pair_that_is_nearer_than_chance_is_told() -> None:
    rng = np.random.default_rng(0)
    means = rng.standard_normal((8, 50)) + 5 * rng.standard_normal(50)
    unrelated = nearer_than_chance(means @ means.T)
    assert (unrelated == unrelated.T)[~np.eye(8, dtype=bool)].all()
    assert np.isnan(unrelated.diagonal()).all()
    assert np.nanmin(unrelated) > 0.05
    means[3] = means[5] + 0.1 * rng.standard_normal(50)
    found = nearer_than_chance(means @ means.T)
    assert found[3, 5] < 0.05
    assert np.nanmin(np.delete(found, [3, 5], axis=0)) > 0.05
    # A common origin, a scale and a rotation change nothing.
    turned, _ = np.linalg.qr(rng.standard_normal((50, 50)))
    moved = 3 * (means + 7) @ turned
    assert nearer_than_chance(moved @ moved.T) == pytest.approx(found, nan_ok=True)


def test_what_is_near_needs_three_groups_that_differ() -> None:
    assert np.isnan(nearer_than_chance(np.eye(2))).all()
    assert np.isnan(nearer_than_chance(np.ones((5, 5)))).all()
    assert np.isnan(nearer_than_chance(np.zeros((5, 5)))).all()


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
