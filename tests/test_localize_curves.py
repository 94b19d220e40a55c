"""Formation and decoding layers: definitions by hand, and recovered from noisy profiles."""

from collections.abc import Callable

import numpy as np
import pytest

from icl_mech.errors import InputError
from icl_mech.stats.curves import (
    MIN_QUERIES,
    Rule,
    consumed,
    formed,
    gathered,
    locate,
    settled,
)

RULE = Rule()


def curve(*values: float) -> np.ndarray:
    return np.array([values], dtype=float)


def test_a_plateau_is_formed_and_consumed() -> None:
    plateau = curve(0.0, 0.1, 0.0, 0.7, 0.8, 0.75, 0.1, 0.0)
    up, down = formed(plateau, RULE), consumed(plateau, RULE)
    assert (up.layer[0], down.layer[0]) == (3, 6)
    assert up.rise[0] == pytest.approx(0.75 - 0.1 / 3)  # mean on it, minus mean before it
    assert down.rise[0] == pytest.approx(0.75 - 0.05)  # and minus mean after it


def test_half_way_depends_on_the_fraction() -> None:
    slope = curve(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    # From .2 (mean of the lower half) to .8.
    assert [formed(slope, Rule(f)).layer[0] for f in (0.1, 0.5, 0.9)] == [2, 3, 4]
    assert np.isnan(consumed(slope, RULE).layer[0])  # it still works at the end


def test_a_single_layer_above_half_way_is_no_rise() -> None:
    """Half-way is .35 and .5 here; what is above it at layer 1 (or 3) falls back at once."""
    early = curve(0.0, 0.45, 0.2, 0.0, 0.7, 0.8, 0.75, 0.0)
    assert formed(early, RULE).layer[0] == 4
    late = curve(0.0, 1.0, 0.2, 0.6, 0.0, 0.0)
    assert consumed(late, RULE).layer[0] == 2
    lens = curve(0.0, 0.9, 0.1, 0.4, 0.6, 1.0)
    assert settled(lens, RULE).layer[0] == 4


def test_settling_asks_for_the_last_value() -> None:
    assert settled(curve(0.0, 0.0, 0.0, 1.0), RULE).layer[0] == 3
    assert settled(curve(0.9, 0.8, 1.0, 1.0), Rule(0.5)).layer[0] == 2
    assert np.isnan(settled(curve(0.9, 0.9, 0.9), RULE).layer[0])
    # Half-way to .4, the last value, not to 1.
    assert settled(curve(0.0, 0.0, 0.3, 1.0, 0.4, 0.4), RULE).layer[0] == 2


def test_mass_is_gathered_by_the_layer_that_completes_half() -> None:
    assert gathered(curve(0.1, 0.1, 0.6, 0.2), RULE).layer[0] == 2
    assert np.isnan(gathered(curve(0.01, 0.01, 0.02, 0.0), RULE).layer[0])


def test_nothing_to_locate_in_a_flat_curve() -> None:
    flat = curve(0.30, 0.32, 0.31, 0.29)
    for where in (formed, consumed, settled):
        assert np.isnan(where(flat, RULE).layer[0])


@pytest.mark.parametrize(("up", "down"), [(5, 12), (9, 12), (2, 15), (7, 9)])
def test_a_known_profile_is_recovered_within_one_layer(up: int, down: int) -> None:
    """40 prompts of right-or-wrong answers: .05 outside the plateau, .8 on it, slopes between."""
    rng = np.random.default_rng(up)
    layers = np.arange(18)
    rate = 0.05 + 0.75 * np.clip(layers - up + 1, 0, 1) * np.clip(down - layers, 0, 1)
    right = (rng.random((40, 18)) < rate).astype(float)
    start, end = locate(right, RULE, formed), locate(right, RULE, consumed)
    assert abs(start.estimate.value - up) <= 1
    assert abs(end.estimate.value - down) <= 1
    assert start.estimate.low <= start.estimate.value <= start.estimate.high
    assert start.estimate.high - start.estimate.low <= 2
    assert start.found == 1
    probability = np.clip(rng.normal(0.02 + 0.7 * (layers >= down), 0.1, (40, 18)), 0, 1)
    assert abs(locate(probability, RULE, settled).estimate.value - down) <= 1


def test_an_uncertain_profile_has_a_wide_interval() -> None:
    rng = np.random.default_rng(0)
    slope = np.linspace(0.0, 0.9, 18)
    right = (rng.random((16, 18)) < slope).astype(float)
    found = locate(right, RULE, formed)
    assert found.estimate.high - found.estimate.low >= 3


def named(values: np.ndarray, where: Callable) -> bool:
    return bool(np.isfinite(locate(values, RULE, where).estimate.value))


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("where", [formed, consumed, settled])
def test_flat_noise_names_no_layer(where: Callable, rate: float) -> None:
    """The largest of 18 noisy shares stands .1 above the smallest nearly always."""
    rng = np.random.default_rng(0)
    flat = [(rng.random((25, 18)) < rate).astype(float) for _ in range(60)]
    assert np.mean([named(values, where) for values in flat]) <= 0.05
    if rate >= 0.1:  # a rise of .1 alone would name many
        rises = where(np.array([values.mean(axis=0) for values in flat]), RULE)
        assert np.isfinite(rises.layer).mean() > 0.1


def test_noise_that_layers_of_a_prompt_share_names_no_layer() -> None:
    """Prompts that drift up or down from layer to layer, no more one way than the other."""
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(0, 0.1, (60, 25, 18)), axis=-1)
    assert np.mean([named(values, formed) for values in drift]) <= 0.1
    rises = drift + 0.5 * (np.arange(18) >= 9)
    assert np.mean([named(values, formed) for values in rises]) > 0.5


def test_a_layer_that_half_of_the_resamples_lack_is_not_named() -> None:
    """Three of 25 prompts rise: by .12, and in many a resample by less than .1."""
    values = np.zeros((25, 18))
    values[:3, 9:12] = 1
    found = locate(values, RULE, formed)
    assert 0.5 < found.found < 0.9
    assert str(found) == "none"
    assert found.why.startswith("its rise of 0.12 is within noise: ")
    assert f"{found.found:.0%} of the resamples have a layer" in found.why
    assert locate(values, Rule(min_found=0.5), formed).estimate.value == 9
    values[:8, 9:12] = 1
    assert str(locate(values, RULE, formed)) == "9 [9, 9]"
    assert locate(values, RULE, formed).why == ""


def test_prompts_that_share_a_query_are_drawn_together() -> None:
    """Twelve prompts rise, but all of them ask the same: that is one query of twelve."""
    values = np.zeros((144, 18))
    values[:12, 9:12] = 1
    assert str(locate(values, Rule(min_rise=0.01), formed)) == "9 [9, 9]"
    found = locate(values, Rule(min_rise=0.01), formed, clusters=np.arange(144) // 12)
    assert str(found) == "none"
    assert (found.estimate.n, found.estimate.n_clusters) == (144, 12)
    # In (11/12) ** 12 of the resamples it does not come at all.
    assert found.found == pytest.approx(1 - (11 / 12) ** 12, abs=0.04)


@pytest.mark.parametrize("n", [1, 2, MIN_QUERIES - 1])
def test_no_layer_from_a_few_queries(n: int) -> None:
    """However many prompts ask them, and however clear the plateau."""
    plateau = np.repeat(curve(*[0.0] * 9, *[1.0] * 3, *[0.0] * 6), 5 * n, axis=0)
    found = locate(plateau, RULE, formed, clusters=np.arange(5 * n) // 5)
    assert str(found) == "none"
    assert found.why == f"{n} queries; at least {MIN_QUERIES} are needed"
    one_each = np.repeat(plateau[:1], MIN_QUERIES, axis=0)
    assert str(locate(one_each, RULE, formed)) == "9 [9, 9]"


def test_why_no_layer_is_named() -> None:
    assert locate(np.zeros((10, 5)), RULE, formed).why == "too flat"
    rising = np.repeat(curve(0.0, 0.5, 1.0), 10, axis=0)
    assert locate(rising, RULE, consumed).why == "it still works at the last layer"
    assert locate(rising[:, ::-1], RULE, formed).why == "it works from the first layer on"


def test_a_curve_that_never_rises_is_found_nowhere() -> None:
    found = locate(np.zeros((10, 5)), RULE, formed)
    assert str(found) == "none"
    assert found.found == 0


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"fraction": 1.0}, "fraction is 1.0"),
        ({"min_rise": 0.0}, "min_rise is 0.0"),
        ({"min_found": 1.5}, "min_found is 1.5"),
    ],
)
def test_rules_that_cannot_work(rule: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rule(**rule)
