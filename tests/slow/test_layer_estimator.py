"""Formation layers from simulated read-outs: bias, hits, coverage, and false alarms.

`python tests/slow/test_layer_estimator.py` prints the tables of `icl_mech/localize/README.md`.
"""

import numpy as np
import pytest
from scipy.stats import norm

from icl_mech.stats.curves import Rule, consumed, formed, locate, settled

LAYERS, UP, DOWN = 18, 9, 12
RULE = Rule()
#: Floor and plateau: shares of right answers.
LEVELS = ((0.0, 0.6), (0.1, 0.8), (0.3, 0.6), (0.3, 0.9), (0.5, 1.0))
WHERE = {"formed": formed, "consumed": consumed, "settled": settled}


def rate(shape: str, floor: float, peak: float) -> np.ndarray:
    """The true curve: `UP` is the first layer past half-way; down at `DOWN` or never."""
    layer = np.arange(LAYERS)
    if shape == "ramp":  # six layers wide
        share = np.clip((layer - UP + 4) / 7, 0, 1)
    else:
        share = (layer >= UP) & (layer < (DOWN if shape == "bump" else LAYERS))
    return floor + (peak - floor) * share


def right(
    rng: np.random.Generator, rates: np.ndarray, n: int, repeats: int, like: float, shared: int
) -> np.ndarray:
    """Right or wrong, `[repeat, prompt, layer]`.

    Neighbouring layers of a prompt are alike (`like`, a correlation), and `shared` prompts of one
    query are the same.
    """
    noise = rng.normal(size=(repeats, n // shared, LAYERS))
    for layer in range(1, LAYERS):
        noise[..., layer] = like * noise[..., layer - 1] + (1 - like**2) ** 0.5 * noise[..., layer]
    return np.repeat(norm.cdf(noise) < rates, shared, axis=1).astype(float)


def recovered(shape: str, levels: tuple, n: int, like: float, shared: int, repeats: int) -> dict:
    """How well the layer is found where there is one."""
    rng = np.random.default_rng(n)
    clusters = np.arange(n) // shared
    values = right(rng, rate(shape, *levels), n, repeats, like, shared)
    found = [locate(each, RULE, formed, 0, clusters).estimate for each in values]
    named = [e for e in found if np.isfinite(e.value)]
    off = np.array([e.value - UP for e in named])
    return {
        "named": len(named) / repeats,
        "bias": off.mean(),
        "hit": (off == 0).mean(),
        "covered": np.mean([e.low <= UP <= e.high for e in named]),
    }


def false_alarms(where: str, level: float, n: int, like: float, repeats: int) -> float:
    """In how many flat curves a layer is named."""
    rng = np.random.default_rng(n)
    values = right(rng, np.full(LAYERS, level), n, repeats, like, 1)
    found = [locate(each, RULE, WHERE[where]).estimate.value for each in values]
    return float(np.isfinite(found).mean())


@pytest.mark.parametrize("like", [0.0, 0.7])
def test_the_first_noisy_crossing_does_not_win(like: float) -> None:
    """Floor .3, plateau .6 at 9 to 11, 25 prompts: the first crossing is at 5.5 on average,
    right in .36."""
    found = recovered("bump", (0.3, 0.6), 25, like, 1, 300)
    assert abs(found["bias"]) < 0.5
    assert found["hit"] > 0.72
    assert found["covered"] > 0.93


@pytest.mark.parametrize("levels", [(0.0, 0.6), (0.3, 0.9), (0.5, 1.0)])
@pytest.mark.parametrize("shape", ["bump", "step"])
def test_steps_are_found(shape: str, levels: tuple) -> None:
    found = recovered(shape, levels, 25, 0.5, 1, 100)
    assert found["named"] > 0.97
    assert abs(found["bias"]) < 0.2
    assert found["hit"] > 0.95
    assert found["covered"] > 0.95


def test_ramps_are_found_half_way() -> None:
    found = recovered("ramp", (0.1, 0.8), 50, 0.5, 1, 150)
    assert abs(found["bias"]) < 0.4
    assert found["covered"] > 0.93


@pytest.mark.parametrize(
    ("n", "like", "level"),
    [
        (12, 0.9, 0.1),
        (25, 0.0, 0.3),
        *(pytest.param(12, 0.9, level, marks=pytest.mark.thorough) for level in (0.0, 0.3, 0.5)),
        *(pytest.param(25, 0.0, level, marks=pytest.mark.thorough) for level in (0.0, 0.1, 0.5)),
    ],
)
def test_flat_curves_name_no_layer(n: int, like: float, level: float) -> None:
    for where in WHERE:
        # 5 %, and what 200 simulations leave uncertain.
        assert false_alarms(where, level, n, like, 200) <= 0.05 + 0.03


def main() -> None:
    """Print the tables."""
    print("| shape | floor, plateau | n | alike | named | bias | hit | covered |")
    print("|---|---|---|---|---|---|---|---|")
    for shape in ("bump", "step", "ramp"):
        for levels in LEVELS:
            for n, like, shared in ((12, 0.5, 1), (25, 0.5, 1), (50, 0.5, 1), (50, 0.5, 4)):
                found = recovered(shape, levels, n - n % shared, like, shared, 100)
                queries = f"{n // shared} x {shared}" if shared > 1 else f"{n}"
                numbers = " | ".join(f"{value:.2f}" for value in found.values())
                print(f"| {shape} | {levels[0]}, {levels[1]} | {queries} | {like} | {numbers} |")
    print("\n| read-out | n | alike | flat at 0 | .1 | .3 | .5 |\n|---|---|---|---|---|---|---|")
    for where in WHERE:
        for n in (10, 12, 25, 50):
            for like in (0.0, 0.7, 0.95):
                shares = [false_alarms(where, lv, n, like, 300) for lv in (0.0, 0.1, 0.3, 0.5)]
                print(f"| {where} | {n} | {like} | {' | '.join(f'{s:.3f}' for s in shares)} |")


if __name__ == "__main__":
    main()
