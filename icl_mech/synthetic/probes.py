"""Cross-validated linear probes: how much of W and of the basis a layer holds."""

from bisect import bisect_left

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from icl_mech.stats import ratio_of_means

N_FOLDS = 5
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0)
MAX_ITER = 500
#: The shares of W that are tried, to find the smallest one that the probe tells from 0.
SHARES = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7)
N_REPEATS = 8


def weight_probe(
    rows: Float[np.ndarray, "seq d_model"], weights: Float[np.ndarray, "seq dim"]
) -> Float[np.ndarray, "seq"]:
    """Squared error of the W that ridge regression, fitted on other sequences, reads.

    It is summed over the D coordinates. Divided by the squared length of W, which is the error of
    always predicting 0, it gives 1 - R².
    """
    probe = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
    folds = KFold(N_FOLDS, shuffle=True, random_state=0)
    found = cross_val_predict(probe, rows, weights, cv=folds)
    return ((found.reshape(weights.shape) - weights) ** 2).sum(1)


def detectable_r2(
    rows: Float[np.ndarray, "seq d_model"],
    weights: Float[np.ndarray, "seq dim"],
    n_repeats: int = N_REPEATS,
    seed: int = 0,
) -> float:
    """The detection limit of `weight_probe`: the smallest share of W that it tells from 0.

    A probe with d_model coefficients that is fitted on few sequences misses part of W because of
    its own estimation error. To measure this, W with a known linear share are made: W in random
    order (about which the rows hold nothing) plus a linear function of the rows, spread evenly over
    all directions in which they vary. The probe reads several such W.

    Args:
        rows: activations.
        weights: W of every sequence; planted W have the same distribution.
        n_repeats: number of planted W for each share.
        seed: of the planted W.

    Returns:
        The smallest of `SHARES` at which the lower end of the 95 % interval of R² is above 0 with a
        probability of .95 (a normal distribution over repeats); NaN if there is none.
    """
    rng = np.random.default_rng(seed)
    left, scale, _ = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    # Directions of nearly no variance hold only rounding errors.
    white = left[:, scale > 1e-5 * scale[0]] * len(rows) ** 0.5

    def found(share: float) -> bool:
        ends = [_planted(rows, white, weights, share, rng) for _ in range(n_repeats)]
        return float(np.mean(ends) - norm.ppf(0.95) * np.std(ends, ddof=1)) > 0

    at = bisect_left(SHARES, True, key=found)
    return SHARES[at] if at < len(SHARES) else float("nan")


def _planted(
    rows: Float[np.ndarray, "seq d_model"],
    white: Float[np.ndarray, "seq direction"],
    weights: Float[np.ndarray, "seq dim"],
    share: float,
    rng: np.random.Generator,
) -> float:
    """The lower end of R² if a given share of the weights' variance is linear in the rows."""
    n_directions, dim = white.shape[1], weights.shape[1]
    linear = white @ rng.standard_normal((n_directions, dim)) / n_directions**0.5
    made = (1 - share) ** 0.5 * rng.permutation(weights)
    made += share**0.5 * weights.std(0) * linear
    lost = ratio_of_means(weight_probe(rows, made), (made**2).sum(1)).at()
    return 1 - lost.high


def basis_probe(
    rows: Float[np.ndarray, "seq d_model"], basis: Int[np.ndarray, "seq"]
) -> Bool[np.ndarray, "seq"]:
    """Whether logistic regression that was fitted on other sequences names the basis."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITER))
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(probe, rows, basis, cv=folds) == basis
