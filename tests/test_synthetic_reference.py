"""Reference algorithms against closed forms, scikit-learn and brute force."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.linear_model import Lasso, LinearRegression, Ridge

from icl_mech.errors import InputError
from icl_mech.synthetic import reference
from icl_mech.synthetic.data import Batch, draw_batch, make_mixture
from icl_mech.synthetic.settings import preset

MIXTURE = make_mixture(6, 2, 3, n_examples=8, noise_variance=0.05)
BATCH = draw_batch(MIXTURE, 12, seed=5)


def by_sklearn(model, batch: Batch, columns=None) -> np.ndarray:
    """The plain way: one fit per sequence and number of examples; 0 without examples."""
    xs, ys = batch.xs.double().numpy(), batch.ys.double().numpy()
    found = np.zeros(ys.shape)
    for s, n in itertools.product(range(len(ys)), range(1, ys.shape[1])):
        kept = slice(None) if columns is None else list(columns[s])
        shown = xs[s][:, kept]
        found[s, n] = model.fit(shown[:n], ys[s, :n]).predict(shown[n : n + 1])[0]
    return found


def true_bases() -> list[tuple[int, ...]]:
    return [MIXTURE.bases[k] for k in BATCH.basis]


def test_ridge_is_scikit_learns() -> None:
    for penalty in (0.05, 2.0):
        plain = by_sklearn(Ridge(alpha=penalty, fit_intercept=False), BATCH)
        np.testing.assert_allclose(
            reference.ridge(BATCH, MIXTURE, penalty), plain, rtol=1e-8, atol=1e-10
        )
    default = reference.ridge(BATCH, MIXTURE)
    assert torch.equal(default, reference.ridge(BATCH, MIXTURE, MIXTURE.noise_variance))


def test_ridge_with_the_basis_known_is_scikit_learns_on_its_columns() -> None:
    plain = by_sklearn(Ridge(alpha=0.05, fit_intercept=False), BATCH, true_bases())
    np.testing.assert_allclose(reference.known_basis_ridge(BATCH, MIXTURE), plain, atol=1e-9)


def test_least_squares_is_scikit_learns() -> None:
    """Also below D examples: both take the solution of smallest norm."""
    model = LinearRegression(fit_intercept=False)
    np.testing.assert_allclose(
        reference.least_squares(BATCH, MIXTURE), by_sklearn(model, BATCH), atol=1e-7
    )
    np.testing.assert_allclose(
        reference.known_basis_least_squares(BATCH, MIXTURE),
        by_sklearn(model, BATCH, true_bases()),
        atol=1e-7,
    )


def test_lasso_is_scikit_learns() -> None:
    plain = by_sklearn(Lasso(alpha=0.1, fit_intercept=False, max_iter=5000), BATCH)
    np.testing.assert_allclose(reference.lasso(BATCH, MIXTURE, 0.1), plain, atol=1e-9)
    # The default falls with the number of examples.
    n = 5
    alpha = math.sqrt(0.05 * 2 * math.log(6) / n)
    at_n = by_sklearn(Lasso(alpha=alpha, fit_intercept=False, max_iter=5000), BATCH)[:, n]
    np.testing.assert_allclose(reference.lasso(BATCH, MIXTURE)[:, n], at_n, atol=1e-9)


def test_predictive_variance_is_that_of_a_gaussian_process() -> None:
    """y* | y is Gaussian with covariance X X^T + noise: worked out as such."""
    mean, variance = reference.predictive(BATCH.xs, BATCH.ys, 0.05)
    xs, ys = BATCH.xs.double().numpy(), BATCH.ys.double().numpy()
    for s, n in itertools.product((0, 7), (0, 1, 8)):
        joint = xs[s, : n + 1] @ xs[s, : n + 1].T + 0.05 * np.eye(n + 1)
        gain = np.linalg.solve(joint[:n, :n], joint[:n, n]) if n else np.zeros(0)
        assert mean[s, n].item() == pytest.approx(gain @ ys[s, :n], abs=1e-9)
        assert variance[s, n].item() == pytest.approx(joint[n, n] - gain @ joint[:n, n], abs=1e-9)


def test_one_step_of_gradient_descent_is_a_sum_over_examples() -> None:
    xs, ys = BATCH.xs.double(), BATCH.ys.double()
    one = reference.gradient_descent(BATCH, MIXTURE, n_steps=1, learning_rate=0.3)
    for n in range(ys.shape[1]):
        weights = torch.einsum("se,sed->sd", ys[:, :n], xs[:, :n]) * 0.3 / max(n, 1)
        torch.testing.assert_close(one[:, n], (weights * xs[:, n]).sum(-1))
    assert reference.gradient_descent(BATCH, MIXTURE, n_steps=0).eq(0).all()


def test_many_steps_of_gradient_descent_are_least_squares() -> None:
    """From 0, descent goes to the solution of smallest norm."""
    few = draw_batch(make_mixture(6, 2, 3, n_examples=3), 12, seed=1)
    limit = reference.gradient_descent(few, MIXTURE, n_steps=20_000)
    torch.testing.assert_close(limit, reference.least_squares(few, MIXTURE), atol=1e-4, rtol=1e-3)


def test_gradient_descent_by_autograd() -> None:
    n, rate = 6, 0.05
    xs, ys = BATCH.xs.double()[:, :n], BATCH.ys.double()[:, :n]
    weights = torch.zeros(len(BATCH), 6, dtype=torch.float64, requires_grad=True)
    for _ in range(4):
        loss = 0.5 * ((torch.einsum("sed,sd->se", xs, weights) - ys) ** 2).mean(1).sum()
        (gradient,) = torch.autograd.grad(loss, weights)
        weights = (weights - rate * gradient).detach().requires_grad_()
    expected = (BATCH.xs.double()[:, n] * weights).sum(-1)
    found = reference.gradient_descent(BATCH, MIXTURE, n_steps=4, learning_rate=rate)[:, n]
    torch.testing.assert_close(found, expected.detach())


def test_gradient_descent_in_every_basis_is_mixed_by_the_posterior() -> None:
    found = reference.mixture_gradient_descent(BATCH, MIXTURE, n_steps=3)
    posterior = reference.basis_posterior(BATCH, MIXTURE)
    expected = torch.zeros_like(found)
    for k, basis in enumerate(MIXTURE.bases):
        here = list(basis)
        shown = Batch(BATCH.xs[..., here], BATCH.ys, BATCH.weights[:, here], BATCH.basis)
        expected += posterior[..., k] * reference.gradient_descent(shown, MIXTURE, n_steps=3)
    torch.testing.assert_close(found, expected)
    # With one basis there is nothing to infer, and in the end it is least squares on it.
    one = make_mixture(6, bases=[[1, 4]])
    few = draw_batch(one, 5, 1)
    limit = reference.mixture_gradient_descent(few, one, n_steps=20_000)
    known = reference.known_basis_least_squares(few, one)
    torch.testing.assert_close(limit, known, atol=1e-4, rtol=1e-4)
    as_if = reference.basis_predictions(BATCH, MIXTURE)
    torch.testing.assert_close((posterior * as_if).sum(-1), reference.bayes_mixture(BATCH, MIXTURE))


def test_the_mixture_by_brute_force() -> None:
    """Marginal likelihoods by scipy's Gaussian density, posterior means by scikit-learn."""
    xs, ys = BATCH.xs.double().numpy(), BATCH.ys.double().numpy()
    posterior = reference.basis_posterior(BATCH, MIXTURE)
    mixed = reference.bayes_mixture(BATCH, MIXTURE)
    assert posterior[:, 0].allclose(torch.full((3,), 1 / 3, dtype=torch.float64))
    for s, n in itertools.product(range(6), (1, 2, 5, 8)):
        evidence, means = [], []
        for basis in MIXTURE.bases:
            shown = xs[s, :n][:, basis]
            density = multivariate_normal(cov=shown @ shown.T + 0.05 * np.eye(n))
            evidence.append(np.exp(density.logpdf(ys[s, :n])))
            fitted = Ridge(alpha=0.05, fit_intercept=False).fit(shown, ys[s, :n])
            means.append(fitted.predict(xs[s, n : n + 1][:, basis])[0])
        weights = np.array(evidence) / np.sum(evidence)
        np.testing.assert_allclose(posterior[s, n], weights, atol=1e-9)
        assert mixed[s, n].item() == pytest.approx(weights @ means, abs=1e-9)


def test_the_mixture_by_sampling_weights() -> None:
    """The posterior mean as an average over the prior, each W weighted by its likelihood."""
    mixture = make_mixture(4, 1, 4, n_examples=2, noise_variance=0.5)
    batch = draw_batch(mixture, 3, seed=2)
    prior = draw_batch(mixture, 400_000, seed=9).weights.double()
    xs, ys = batch.xs.double(), batch.ys.double()
    for s in range(3):
        errors = ys[s, :2] - prior @ xs[s, :2].T
        share = (-(errors**2).sum(1) / (2 * 0.5)).softmax(0)
        values = prior @ xs[s, 2]
        estimate = (share * values).sum()
        spread = (share**2 * (values - estimate) ** 2).sum().sqrt()
        found = reference.bayes_mixture(batch, mixture)[s, 2]
        assert abs(found - estimate) < 5 * spread


def test_with_one_basis_the_mixture_is_ridge() -> None:
    dense = make_mixture(4, 4, 1, n_examples=6)
    batch = draw_batch(dense, 20, seed=0)
    torch.testing.assert_close(reference.bayes_mixture(batch, dense), reference.ridge(batch, dense))


@pytest.mark.parametrize("overlapping", [False, True])
def test_nothing_beats_the_mixture_on_fresh_data(overlapping: bool) -> None:
    """Of those that do not know the basis; beyond noise: five standard errors of the mean."""
    mixture = make_mixture(
        8, 2, 4, layout="overlapping" if overlapping else "disjoint",
        n_examples=8, noise_variance=0.05,
    )  # fmt: skip
    batch = draw_batch(mixture, 600, seed=11)
    ys = batch.ys.double()
    best = (reference.bayes_mixture(batch, mixture) - ys) ** 2
    for name in ("ridge", "lasso", *(f"gradient_descent_{n}" for n in reference.GD_STEPS)):
        difference = (reference.predict(name, batch, mixture) - ys) ** 2 - best
        standard_error = difference.std(0) / len(batch) ** 0.5
        assert (difference.mean(0) >= -5 * standard_error).all(), name
        # And with most of a basis seen they are worse, by as much: the test can fail.
        assert difference[:, 4].mean() > 5 * standard_error[4], name
    # Knowing the basis helps, and least when there is much to tell it by.
    gain = best - (reference.known_basis_ridge(batch, mixture) - ys) ** 2
    standard_error = gain.std(0) / len(batch) ** 0.5
    assert (gain.mean(0) >= -5 * standard_error).all()
    assert gain[:, 2].mean() > 5 * standard_error[2]


def test_knowing_the_basis_pays_in_the_presets_that_learn() -> None:
    """After the last example, ridge regression is far off; the posterior is sure of the basis."""
    for name, times in (("small", 2.5), ("paper", 3)):
        mixture = preset(name).mixture
        batch = draw_batch(mixture, 1000, seed=0, held_out=True)
        ys = batch.ys.double()
        errors = [
            (reference.predict(which, batch, mixture) - ys)[:, -1].square().mean()
            for which in ("ridge", "bayes_mixture")
        ]
        assert errors[0] > times * errors[1]
        sure = reference.basis_posterior(batch, mixture)[:, -1].argmax(-1) == batch.basis
        assert sure.double().mean() > 0.95


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'bayes_mixture'"):
        reference.predict("bayes_mixtur", BATCH, MIXTURE)
    with pytest.raises(InputError, match="penalty is 0"):
        reference.ridge(BATCH, MIXTURE, 0.0)
    with pytest.raises(InputError, match="alpha is -1"):
        reference.lasso(BATCH, MIXTURE, -1.0)
    with pytest.raises(InputError, match="n_steps is -1"):
        reference.gradient_descent(BATCH, MIXTURE, -1)
