"""Unrelated tasks are not said to lie near one another, whatever the spectrum they come from."""

import numpy as np
import pytest

from icl_mech.stats import nearer_than_chance

SPECTRA = {
    "2.7 effective dimensions": np.array([1, 0.6, 0.4, 0.2, 0.1, 0.05]),
    "flat": np.ones(40),
    "power law": 1 / np.arange(1, 31) ** 1.5,
    "one large": np.array([1, 0.05, 0.05, 0.05]),
}
N_RUNS, N_DRAWS = 200, 500


@pytest.mark.parametrize("lengths", [0.0, 0.5])
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_false_alarms_and_power(spectrum: str, lengths: float) -> None:
    """Among all pairs, in at most 5 % of runs; `lengths`: spread of the logarithms of lengths."""
    scale, rng = np.sqrt(SPECTRA[spectrum]), np.random.default_rng(0)
    for n in (3, 4, 6, 12):
        false, found = [], []
        for run in range(N_RUNS):
            means = rng.standard_normal((n, len(scale))) * scale
            means *= np.exp(lengths * rng.standard_normal((n, 1)))
            false.append(np.nanmin(nearer_than_chance(means @ means.T, run, N_DRAWS)) <= 0.05)
            means[1] = means[0] + 0.1 * rng.standard_normal(len(scale)) * scale
            found.append(nearer_than_chance(means @ means.T, run, N_DRAWS)[0, 1] <= 0.05)
        print(
            f"{spectrum}, {n} tasks, lengths {lengths}: false alarms {np.mean(false):.2f}, "
            f"two nearly equal tasks found {np.mean(found):.2f}"
        )
        assert np.mean(false) <= 0.05
        if n >= 6:
            assert np.mean(found) > 0.2
