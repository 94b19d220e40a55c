"""Formation and decoding layers: definitions by hand, and recovered from noisy profiles."""

import numpy as np
import pytest

from icl_mech.errors import InputError
from icl_mech.localize.curves import Rule, consumed, formed, gathered, locate, settled

RULE = Rule()


def curve(*values: float) -> np.ndarray:
    return np.array([values], dtype=float)


def test_a_plateau_is_formed_and_consumed() -> None:
    plateau = curve(0.0, 0.1, 0.0, 0.7, 0.8, 0.75, 0.1, 0.0)
    assert formed(plateau, RULE)[0] == 3
    assert consumed(plateau, RULE)[0] == 6


def test_half_way_depends_on_the_fraction() -> None:
    slope = curve(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    assert [formed(slope, Rule(f))[0] for f in (0.1, 0.5, 0.9)] == [1, 3, 5]
    assert np.isnan(consumed(slope, RULE)[0])  # it still works at the end


def test_a_dip_before_the_peak_does_not_undo_the_first_rise() -> None:
    assert formed(curve(0.0, 0.6, 0.2, 1.0, 0.0), RULE)[0] == 1
    assert consumed(curve(0.0, 1.0, 0.2, 0.6, 0.0), RULE)[0] == 4


def test_settling_asks_for_the_rest_of_the_way() -> None:
    assert settled(curve(0.0, 0.9, 0.1, 0.5, 0.6, 1.0), RULE)[0] == 3
    assert settled(curve(0.0, 0.0, 0.0, 1.0), RULE)[0] == 3
    assert settled(curve(0.9, 0.8, 1.0, 1.0), Rule(0.5))[0] == 2
    assert np.isnan(settled(curve(0.9, 0.9, 0.9), RULE)[0])


def test_mass_is_gathered_by_the_layer_that_completes_half() -> None:
    assert gathered(curve(0.1, 0.1, 0.6, 0.2), RULE)[0] == 2
    assert np.isnan(gathered(curve(0.01, 0.01, 0.02, 0.0), RULE)[0])


def test_nothing_to_locate_in_a_flat_curve() -> None:
    flat = curve(0.30, 0.32, 0.31, 0.29)
    for where in (formed, consumed, settled):
        assert np.isnan(where(flat, RULE)[0])


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
    slope = np.linspace(0.1, 0.6, 18)
    right = (rng.random((8, 18)) < slope).astype(float)
    found = locate(right, RULE, formed)
    assert found.estimate.high - found.estimate.low >= 3


def test_a_single_prompt_has_no_interval() -> None:
    found = locate(curve(0.0, 1.0, 0.0), RULE, formed)
    assert found.estimate.value == 1
    assert np.isnan(found.estimate.low)


def test_a_curve_that_never_rises_is_found_nowhere() -> None:
    found = locate(np.zeros((10, 5)), RULE, formed)
    assert str(found) == "none"
    assert found.found == 0


@pytest.mark.parametrize(
    ("rule", "message"),
    [({"fraction": 1.0}, "fraction is 1.0"), ({"min_rise": 0.0}, "min_rise is 0.0")],
)
def test_rules_that_cannot_work(rule: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rule(**rule)
