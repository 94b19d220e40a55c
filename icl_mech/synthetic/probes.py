"""Linear probes, cross-validated: how much of W and of the basis a layer holds."""

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_FOLDS = 5
PENALTIES = (0.1, 1.0, 10.0, 100.0, 1000.0)
MAX_ITER = 500


def weight_probe(
    rows: Float[np.ndarray, "seq d_model"], weights: Float[np.ndarray, "seq dim"]
) -> Float[np.ndarray, "seq"]:
    """Squared error of W as read by ridge regression that was fitted on other sequences.

    Summed over the D coordinates. Against the squared length of W, which is the error of always
    saying 0, it gives R².
    """
    errors = np.empty(len(rows))
    for train, test in KFold(N_FOLDS, shuffle=True, random_state=0).split(rows):
        probe = make_pipeline(StandardScaler(), RidgeCV(PENALTIES))
        found = probe.fit(rows[train], weights[train]).predict(rows[test])
        errors[test] = ((found.reshape(len(test), -1) - weights[test]) ** 2).sum(1)
    return errors


def basis_probe(
    rows: Float[np.ndarray, "seq d_model"], basis: Int[np.ndarray, "seq"]
) -> Bool[np.ndarray, "seq"]:
    """Whether logistic regression that was fitted on other sequences names the basis."""
    right = np.empty(len(rows), dtype=bool)
    folds = StratifiedKFold(N_FOLDS, shuffle=True, random_state=0)
    for train, test in folds.split(rows, basis):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITER))
        right[test] = probe.fit(rows[train], basis[train]).predict(rows[test]) == basis[test]
    return right
