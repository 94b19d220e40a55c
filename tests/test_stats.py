"""Intervals, against closed formulas and published numbers."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from icl_mech.stats import Estimate, median, paired_difference, proportion, proportions

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
