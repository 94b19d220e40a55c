"""Reference algorithms, with which a transformer's predictions are compared.

Each predicts every y of a sequence from the pairs before it, in double precision. The result is
`[seq, pair]`; column n is the prediction after n examples. Han et al. (2024), arXiv 2412.12276,
section 3, compare with ridge regression, LASSO, least squares with the basis known, and the Bayes
mixture.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from itertools import combinations

import torch
from jaxtyping import Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import Lasso
from torch import Tensor

from icl_mech.errors import InputError, choose
from icl_mech.synthetic.data import Batch, Mixture, at_least
from icl_mech.synthetic.functions import FunctionMixture
from icl_mech.synthetic.leaky_posterior import leaky_predictive

Predictions = Float[Tensor, "seq pair"]


def predictive(
    xs: Float[Tensor, "seq pair dim"],
    ys: Float[Tensor, "seq pair"],
    noise_variance: float,
    mask: Float[Tensor, "*seq dim"] | None = None,
) -> tuple[Float[Tensor, "seq pair"], Float[Tensor, "seq pair"]]:
    """Mean and variance of each y given the pairs before it, for a prior W ~ N(0, I).

    The mean is ridge regression with penalty `noise_variance`.

    Args:
        xs, ys: pairs in order.
        noise_variance: of y given W.
        mask: 1 on coordinates where W may differ from 0, for all sequences or each; by default all.
    """
    xs, ys = xs.double(), ys.double()
    if mask is not None:
        xs = xs * mask.double().unsqueeze(-2)
    gram, moment = _so_far(xs, ys)
    penalised = gram + noise_variance * torch.eye(xs.shape[-1], dtype=torch.float64)
    factor = torch.linalg.cholesky(penalised)
    # Only the mean of W, and its variance in the direction of the next x, are needed.
    solved = torch.cholesky_solve(torch.stack([moment, xs], dim=-1), factor)
    mean, spread = torch.einsum("spd,spdi->ips", xs, solved).mT
    return mean, noise_variance * (1 + spread)


def _so_far(
    xs: Float[Tensor, "seq pair dim"], ys: Float[Tensor, "seq pair"]
) -> tuple[Float[Tensor, "seq pair dim dim"], Float[Tensor, "seq pair dim"]]:
    """X^T X and X^T y over the pairs before each."""
    gram = (xs[..., None] * xs[..., None, :]).cumsum(1).roll(1, 1)
    moment = (xs * ys[..., None]).cumsum(1).roll(1, 1)
    gram[:, 0], moment[:, 0] = 0, 0
    return gram, moment


def ridge(
    batch: Batch, mixture: Mixture | FunctionMixture, penalty: float | None = None
) -> Predictions:
    """Ridge regression on all D coordinates.

    Args:
        batch: sequences.
        mixture: gives the default penalty.
        penalty: of the squared norm; by default the noise variance, which is Bayes optimal if all
            weights are N(0, 1). The estimator does not use that W is sparse.
    """
    chosen = mixture.noise_variance if penalty is None else penalty
    if not chosen > 0:
        raise InputError(f"penalty is {chosen}; expected above 0")
    xs = batch.xs
    if isinstance(mixture, FunctionMixture):
        xs = mixture.features(xs, "linear")
    return predictive(xs, batch.ys, chosen)[0]


def known_basis_ridge(batch: Batch, mixture: Mixture) -> Predictions:
    """Ridge regression on the true basis' r coordinates: the optimum if the basis is known."""
    mask = mixture.masks[batch.basis]
    return predictive(batch.xs, batch.ys, mixture.noise_variance, mask)[0]


def least_squares(batch: Batch, mixture: Mixture) -> Predictions:
    """Least squares on all D coordinates; the W of smallest norm if several fit equally well."""
    return _least_squares(batch, torch.ones(len(batch), mixture.dim))


def known_basis_least_squares(batch: Batch, mixture: Mixture) -> Predictions:
    """`least_squares` on the true basis' r coordinates."""
    return _least_squares(batch, mixture.masks[batch.basis])


def _least_squares(batch: Batch, mask: Float[Tensor, "seq dim"]) -> Predictions:
    xs, ys = batch.xs.double() * mask.double()[:, None], batch.ys.double()
    predictions = torch.zeros_like(ys)
    for n in range(1, ys.shape[1]):
        weights = torch.linalg.pinv(xs[:, :n]) @ ys[:, :n, None]
        predictions[:, n] = (xs[:, n, None] @ weights)[:, 0, 0]
    return predictions


def gradient_descent(
    batch: Batch, mixture: Mixture, n_steps: int = 1, learning_rate: float | None = None
) -> Predictions:
    """Steps of gradient descent from W = 0 on half the mean squared error of the examples.

    Args:
        batch: sequences.
        mixture: not used; all references are called alike.
        n_steps: how many; the limit of many steps is least squares.
        learning_rate: by default 1 over the largest eigenvalue of X^T X / n, for each sequence
            and number of examples: half the rate above which it diverges.
    """
    at_least(0, n_steps=n_steps)
    if learning_rate is not None and not learning_rate > 0:
        raise InputError(f"learning_rate is {learning_rate}; expected above 0")
    return _descend(batch.xs.double(), batch.ys.double(), n_steps, learning_rate)


def mixture_gradient_descent(
    batch: Batch, mixture: Mixture, n_steps: int = 1, learning_rate: float | None = None
) -> Predictions:
    """Gradient descent on each basis' own coordinates, weighted by the basis posterior.

    Like the Bayes mixture, it knows the bases and infers the sequence's basis by the exact
    posterior; unlike it, it fits W by steps of gradient descent.

    Args:
        batch: sequences.
        mixture: gives the bases.
        n_steps, learning_rate: as in `gradient_descent`, for each basis by itself.
    """
    xs, ys = batch.xs.double(), batch.ys.double()
    each = [_descend(xs * mask.double(), ys, n_steps, learning_rate) for mask in mixture.masks]
    return (basis_posterior(batch, mixture) * torch.stack(each, dim=-1)).sum(-1)


def _descend(
    xs: Float[Tensor, "seq pair dim"],
    ys: Float[Tensor, "seq pair"],
    n_steps: int,
    learning_rate: float | None,
) -> Predictions:
    seen = torch.arange(ys.shape[1], dtype=torch.float64).clamp_min(1)
    gram, moment = _so_far(xs, ys)
    gram, moment = gram / seen[:, None, None], moment / seen[:, None]
    if learning_rate is None:
        rate = 1 / torch.linalg.eigvalsh(gram)[..., -1].clamp_min(1e-12)
    else:
        rate = torch.full_like(ys, learning_rate)
    weights = torch.zeros_like(moment)
    for _ in range(n_steps):
        weights = weights + rate[..., None] * (moment - (gram @ weights[..., None])[..., 0])
    return torch.einsum("spd,spd->sp", xs, weights)


def lasso(batch: Batch, mixture: Mixture, alpha: float | None = None) -> Predictions:
    """LASSO by scikit-learn, without intercept. Slow: one fit per sequence and example.

    Args:
        batch: sequences.
        mixture: gives the default penalty.
        alpha: penalty of scikit-learn's `Lasso`; by default sigma sqrt(2 log D / n) after n
            examples, the universal threshold (at least sigma / sqrt n).
    """
    if alpha is not None and not alpha > 0:
        raise InputError(f"alpha is {alpha}; expected above 0")
    xs, ys = batch.xs.double().numpy(), batch.ys.double().numpy()
    universal = math.sqrt(mixture.noise_variance * max(1.0, 2 * math.log(mixture.dim)))
    predictions = torch.zeros(ys.shape, dtype=torch.float64)
    with warnings.catch_warnings():  # stopping a few steps short of the optimum is near enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        for n in range(1, ys.shape[1]):
            chosen = universal / math.sqrt(n) if alpha is None else alpha
            model = Lasso(alpha=chosen, fit_intercept=False, max_iter=5000)
            for s in range(len(ys)):
                fitted = model.fit(xs[s, :n], ys[s, :n])
                predictions[s, n] = float(fitted.predict(xs[s, n : n + 1])[0])
    return predictions


def basis_predictions(
    batch: Batch, mixture: Mixture | FunctionMixture
) -> Float[Tensor, "seq pair basis"]:
    """For each basis (or family of functions), the best prediction if it were the sequence's own.

    For a basis: ridge regression on its coordinates. For a family: see `known_family`.
    """
    return _posterior(batch, mixture)[1]


def basis_posterior(
    batch: Batch, mixture: Mixture | FunctionMixture
) -> Float[Tensor, "seq pair basis"]:
    """Probability of each basis given the pairs before; all bases are equally likely at first.

    For a `FunctionMixture`, the probability of each family.

    The marginal likelihood of a basis is the product of its predictive densities. It has a closed
    form except for leaky ReLU.

    Example:
        >>> from icl_mech.synthetic import draw_batch, variant
        >>> mixture = variant("orthogonal4")
        >>> posterior = basis_posterior(draw_batch(mixture, 5, seed=0), mixture)
        >>> bool((posterior[:, 0] == 1 / 4).all())
        True
    """
    return _posterior(batch, mixture)[0]


def known_family(batch: Batch, mixture: FunctionMixture) -> Predictions:
    """The best prediction if the family is known.

    Linear and quadratic: ridge regression on x or x^2 - 1, the posterior mean. Sparse: the mean of
    ridge regressions on all sets of `n_active` coordinates, weighted by their posterior. Leaky
    ReLU: the posterior mean by sampling, see `leaky_predictive` and its Monte-Carlo error.
    """
    return _of_own(batch, _posterior(batch, mixture)[1])


def _of_own(batch: Batch, means: Float[Tensor, "seq pair basis"]) -> Predictions:
    return means[torch.arange(len(batch)), :, batch.basis]


def bayes_mixture(batch: Batch, mixture: Mixture | FunctionMixture) -> Predictions:
    """The optimum: the predictions of all bases or families, weighted by their posterior.

    In closed form; with leaky ReLU among the families, by sampling (`leaky_predictive`).
    """
    posterior, means = _posterior(batch, mixture)
    return (posterior * means).sum(-1)


def _posterior(
    batch: Batch, mixture: Mixture | FunctionMixture
) -> tuple[Float[Tensor, "seq pair basis"], Float[Tensor, "seq pair basis"]]:
    """For every task: its probability given the pairs before, and the prediction if it holds."""
    if isinstance(mixture, FunctionMixture):
        found = [_of_family(batch, mixture, name) for name in mixture.functions]
    else:
        noise = mixture.noise_variance
        found = [_of_mask(batch.xs, batch.ys, noise, mask) for mask in mixture.masks]
    means, densities = (torch.stack(part, dim=-1) for part in zip(*found, strict=True))
    return _before(densities).softmax(-1), means


def _of_mask(
    xs: Float[Tensor, "seq pair dim"],
    ys: Float[Tensor, "seq pair"],
    noise_variance: float,
    mask: Float[Tensor, "dim"] | None = None,
) -> tuple[Predictions, Predictions]:
    """Mean and log density of each y given the pairs before it."""
    mean, variance = predictive(xs, ys, noise_variance, mask)
    return mean, -0.5 * ((ys.double() - mean) ** 2 / variance + (2 * math.pi * variance).log())


def _of_family(
    batch: Batch, mixture: FunctionMixture, name: str
) -> tuple[Predictions, Predictions]:
    """`_of_mask` of a family of functions."""
    xs, ys = mixture.features(batch.xs.double(), name), batch.ys.double()
    noise = mixture.noise_variance
    if name == "leaky_relu":
        return leaky_predictive(xs, ys, mixture.slope, noise)
    if name != "sparse":
        return _of_mask(xs, ys, noise)
    sets = list(combinations(range(mixture.dim), mixture.n_active))
    masks = torch.zeros(len(sets), mixture.dim)
    masks[torch.arange(len(sets))[:, None], torch.tensor(sets)] = 1
    means, densities = zip(*(_of_mask(xs, ys, noise, mask) for mask in masks), strict=True)
    density = torch.stack(densities, dim=-1)
    posterior = _before(density).softmax(-1)
    mean = (posterior * torch.stack(means, dim=-1)).sum(-1)
    return mean, (posterior.log() + density).logsumexp(-1)


def _before(densities: Float[Tensor, "seq pair any"]) -> Float[Tensor, "seq pair any"]:
    """The sum of log densities over the pairs before each."""
    total = densities.cumsum(1).roll(1, 1)
    total[:, 0] = 0
    return total


#: Numbers of steps of gradient descent in `REFERENCES`.
GD_STEPS = (1, 2, 4, 8, 16, 32)
#: Every reference by name, as `function(batch, mixture)`.
REFERENCES: dict[str, Callable[[Batch, Mixture], Predictions]] = {
    "ridge": ridge,
    "lasso": lasso,
    "least_squares": least_squares,
    "known_basis_least_squares": known_basis_least_squares,
    "known_basis_ridge": known_basis_ridge,
    **{f"gradient_descent_{n}": partial(gradient_descent, n_steps=n) for n in GD_STEPS},
    **{
        f"mixture_gradient_descent_{n}": partial(mixture_gradient_descent, n_steps=n)
        for n in GD_STEPS
    },
    "bayes_mixture": bayes_mixture,
}


#: Those of a mixture of families of functions.
FAMILY_REFERENCES: dict[str, Callable[[Batch, FunctionMixture], Predictions]] = {
    "ridge": ridge,
    "known_family": known_family,
    "bayes_mixture": bayes_mixture,
}


def references(mixture: Mixture | FunctionMixture) -> list[str]:
    """The names of the reference algorithms for a mixture.

    >>> from icl_mech.synthetic import FunctionMixture
    >>> references(FunctionMixture(4))
    ['ridge', 'known_family', 'bayes_mixture']
    """
    return list(FAMILY_REFERENCES if isinstance(mixture, FunctionMixture) else REFERENCES)


def predict(name: str, batch: Batch, mixture: Mixture | FunctionMixture) -> Predictions:
    """The predictions of a reference algorithm with its default settings.

    Raises:
        InputError: where there is no such reference.

    Example:
        >>> from icl_mech.synthetic import draw_batch, variant
        >>> mixture = variant("orthogonal4")
        >>> tuple(predict("ridge", draw_batch(mixture, 5, seed=0), mixture).shape)
        (5, 21)
    """
    choose(name, references(mixture), "reference")
    if isinstance(mixture, FunctionMixture):
        return FAMILY_REFERENCES[name](batch, mixture)
    return REFERENCES[name](batch, mixture)


def predict_all(
    batch: Batch, mixture: Mixture | FunctionMixture
) -> tuple[dict[str, Predictions], Float[Tensor, "seq pair basis"]]:
    """The predictions of every reference, and `basis_predictions`.

    The posterior that several of them need is computed once.
    """
    posterior, means = _posterior(batch, mixture)
    shared = {"bayes_mixture": (posterior * means).sum(-1), "known_family": _of_own(batch, means)}
    names = references(mixture)
    every = {n: shared[n] if n in shared else predict(n, batch, mixture) for n in names}
    return every, means
