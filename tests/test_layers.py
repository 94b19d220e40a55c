"""Layers: which blocks are meant, and which one is best on dev prompts."""

import re

import numpy as np
import pytest

from icl_mech.errors import InputError
from icl_mech.layers import check_layer, check_layers
from icl_mech.localize.plan import MapSettings
from icl_mech.vectors import choose_layer, layer_name


def test_negative_layers_count_from_the_last_block() -> None:
    assert [check_layer(layer, 18) for layer in (0, 17, -1, -18)] == [0, 17, 17, 0]
    assert check_layers([-1, 3], 18) == [3, 17]
    assert check_layers(None, 3) == [0, 1, 2]


@pytest.mark.parametrize("layer", [18, -19])
def test_a_layer_out_of_range_names_both_ranges(layer: int) -> None:
    said = f"layer {layer} out of range: expected 0 to 17, or -18 to -1 (counted from the last"
    with pytest.raises(InputError, match=re.escape(said)):
        check_layer(layer, 18)
    with pytest.raises(InputError, match=re.escape(said)):
        check_layers([0, layer], 18)


@pytest.mark.parametrize(
    ("layers", "said"),
    [
        ([], "no layers"),
        ([1, -17], "name a block twice"),
        ([1.5], "layer 1.5; expected a whole number"),
        (3, "expected several, as [3]"),
    ],
)
def test_layers_that_cannot_be_meant(layers: object, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        check_layers(layers, 18)


def on_dev(n: int = 25, n_layers: int = 18) -> np.ndarray:
    return np.zeros((n, n_layers), dtype=bool)


def test_the_best_layer_is_the_earliest_of_equals_where_theta_works() -> None:
    right, logprob = on_dev(), np.zeros((25, 18))
    right[:20, 9:12] = True
    logprob[:, 11] = 1  # does not count: the accuracy says where
    choice = choose_layer(right, logprob)
    assert (choice.at, choice.rises, choice.accuracy) == (9, True, 0.8)
    assert choice.caveat(9) == []
    assert layer_name(choice.at) == "9"


def test_no_layer_where_theta_never_works() -> None:
    """The argmax of zeros is 0: that names no layer."""
    logprob = np.full((25, 18), -9.0)
    logprob[:, 13] = -3
    choice = choose_layer(on_dev(), logprob)
    assert (choice.at, choice.rises, choice.accuracy) == (13, False, 0)
    (said,) = choice.caveat(13)
    assert said.startswith("θ works at no layer: it is right on no dev prompt")
    assert "after block 13" in said
    assert choose_layer(on_dev()).at == 0
    assert layer_name(None) == "none"


def test_noise_names_no_layer_and_a_rise_does() -> None:
    rng = np.random.default_rng(0)
    flat = [choose_layer(rng.random((25, 18)) < 0.2).rises for _ in range(300)]
    assert np.mean(flat) <= 0.05 + 0.025  # what 300 draws leave uncertain
    layer = np.arange(18)
    rate = 0.1 + 0.5 * ((layer >= 9) & (layer < 12))
    assert np.mean([choose_layer(rng.random((25, 18)) < rate).rises for _ in range(50)]) > 0.95
    one = choose_layer(np.eye(1, 18, 4, dtype=bool))
    assert (one.at, one.rises) == (4, True)  # a single prompt shows no noise


def test_prompts_that_share_a_query_are_one() -> None:
    right = on_dev(24)
    right[:8, 9:12] = True
    assert choose_layer(right).rises
    assert not choose_layer(right, queries=np.arange(24) // 8).rises


def test_heads_means_need_prompts_of_their_own() -> None:
    MapSettings(n_prompts=25, n_points=35)
    MapSettings(n_prompts=4, n_points=8, k=3)
    with pytest.raises(InputError, match="come from the 1 points after the first n_prompts = 25"):
        MapSettings(n_prompts=25, n_points=26)
    with pytest.raises(InputError, match="at least 2 shots"):
        MapSettings(n_shots=1)
