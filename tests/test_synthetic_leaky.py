"""The posterior of leaky ReLU regression against grids, ridge regression and its own seeds."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from icl_mech.synthetic import FunctionMixture, draw_balanced, preset, reference
from icl_mech.synthetic.leaky_posterior import leaky_predictive
from icl_mech.synthetic.reference import predict_all, predictive

SLOPE, NOISE = 0.1, 0.05


def sequences(dim: int, n: int, n_examples: int = 8, slope: float = SLOPE) -> tuple[Tensor, Tensor]:
    """Drawn from leaky ReLU: phi(x) and y."""
    mixture = FunctionMixture(dim, ("leaky_relu",), 1, slope, NOISE, n_examples)
    batch = draw_balanced(mixture, n, seed=0)
    return mixture.features(batch.xs.double(), "leaky_relu"), batch.ys.double()


def on_a_grid(xs: Tensor, ys: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Mean and log density of each y, with W on a grid of `n` values per coordinate."""
    values = torch.linspace(-9, 9, n, dtype=torch.float64)
    dim = xs.shape[-1]
    weights = torch.cartesian_prod(*[values] * dim).reshape(-1, dim)
    means, densities = torch.zeros(2, *ys.shape, dtype=torch.float64)
    for s in range(len(ys)):
        log = (-0.5 * weights.square().sum(1)).log_softmax(0)
        for k in range(ys.shape[1]):
            u = weights @ xs[s, k]
            expected = torch.where(u > 0, u, SLOPE * u)
            means[s, k] = log.exp() @ expected
            density = -0.5 * ((ys[s, k] - expected) ** 2 / NOISE + math.log(2 * math.pi * NOISE))
            densities[s, k] = (log + density).logsumexp(0)
            log = (log + density).log_softmax(0)
    return means, densities


def rms(values: Tensor) -> float:
    return float(values.square().mean().sqrt())


def test_in_one_dimension_it_is_a_quadrature_without_error() -> None:
    xs, ys = sequences(1, 6)
    ys[0, 3] += 4  # hardly possible
    means, densities = leaky_predictive(xs, ys, SLOPE, NOISE, n_particles=8)
    expected = on_a_grid(xs, ys, 40_001)
    torch.testing.assert_close(means, expected[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(densities, expected[1], atol=1e-6, rtol=0)


def test_in_two_dimensions_it_is_a_quadrature() -> None:
    """Also where an improbable y is counted in steps."""
    xs, ys = sequences(2, 6)
    ys[:3, 4] += 3  # -10 to -60 of log density
    means, densities = leaky_predictive(xs, ys, SLOPE, NOISE)
    expected = on_a_grid(xs, ys, 301)
    assert expected[1][:3, 4].max() < -10
    assert rms(means - expected[0]) < 0.006
    missed = (densities - expected[1]).sum(1)
    assert rms(missed[3:]) < 0.05
    assert rms(missed[:3]) < 0.5
    # The first y needs no particles.
    torch.testing.assert_close(means[:, 0], expected[0][:, 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(densities[:, 0], expected[1][:, 0], atol=1e-4, rtol=0)


def test_with_a_slope_of_nearly_1_it_is_ridge_regression() -> None:
    xs, ys = sequences(4, 8, slope=1 - 1e-9)
    means, densities = leaky_predictive(xs, ys, 1 - 1e-9, NOISE)
    mean, variance = predictive(xs, ys, NOISE)
    density = -0.5 * ((ys - mean) ** 2 / variance + (2 * math.pi * variance).log())
    assert rms(means - mean) < 0.006
    assert rms((densities - density).sum(1)) < 0.05


def test_seeds_differ_by_the_error_that_is_stated() -> None:
    """And the same seed gives the same numbers, whatever torch's own generator does."""
    mixture = preset("families").mixture
    assert isinstance(mixture, FunctionMixture)
    batch = draw_balanced(replace(mixture, functions=("leaky_relu",)), 10, seed=1)
    xs, ys = mixture.features(batch.xs, "leaky_relu"), batch.ys
    sample = partial(leaky_predictive, xs, ys, mixture.slope, mixture.noise_variance)
    one, other = sample(seed=0), sample(seed=1)
    assert 0.001 < rms(one[0] - other[0]) / 2**0.5 < 0.009
    assert 0.01 < rms((one[1] - other[1]).sum(1)) / 2**0.5 < 0.08
    few = sample(n_particles=4), sample(n_particles=4)
    assert all(torch.equal(a, b) for a, b in zip(*few, strict=True))


def by_sign_of_y(xs: Tensor, ys: Tensor, slope: float, noise: float) -> tuple[Tensor, Tensor]:
    """What y says if noise never changed its sign: ridge regression before the link."""
    own = torch.where(ys > 0, 1.0, slope).double()
    mean, variance = predictive(xs * own[..., None], ys, noise)
    density = -0.5 * ((ys - mean) ** 2 / variance + (2 * math.pi * variance).log())
    mean, spread = mean / own, (variance - noise).sqrt() / own
    z = mean / spread
    below, bell = torch.special.ndtr(-z), torch.exp(-0.5 * z**2) / (2 * math.pi) ** 0.5
    positive, negative = mean * (1 - below) + spread * bell, mean * below - spread * bell
    return positive + slope * negative, density


def test_it_has_less_error_than_the_sign_of_y(monkeypatch: pytest.MonkeyPatch) -> None:
    """On its own sequences, and in a mixture with another family on all of them."""
    mixture = FunctionMixture(4, ("linear", "leaky_relu"), n_examples=12, noise_variance=NOISE)
    batch = draw_balanced(mixture, 60, seed=2)
    errors = []
    for way in (partial(leaky_predictive, n_particles=32), by_sign_of_y):
        monkeypatch.setattr(reference, "leaky_predictive", way)
        found = predict_all(batch, mixture)[0]
        kinds = ("bayes_mixture", "known_family")
        errors.append(torch.stack([(found[k] - batch.ys.double()).square() for k in kinds]))
    gain = (errors[1] - errors[0])[..., 1:].mean(-1)
    leaky = batch.basis == 1
    for per_sequence in (gain[0], gain[0, leaky], gain[1, leaky]):
        standard_error = per_sequence.std() / len(per_sequence) ** 0.5
        assert per_sequence.mean() > 3 * standard_error
