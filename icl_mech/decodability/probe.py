"""A linear probe for the task, cross-validated over queries."""

import warnings

import numpy as np
from jaxtyping import Int, Shaped
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_FOLDS = 5
#: The number of principal components (of the standardised training points) that the probe sees.
N_COMPONENTS = 64
MAX_ITER = 300


def folds(groups: Int[np.ndarray, "point"]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test rows with no group in both; as many folds as groups if these are few."""
    splitter = GroupKFold(min(N_FOLDS, len(np.unique(groups))))
    return list(splitter.split(groups[:, None], groups=groups))


def probe(
    points: Shaped[np.ndarray, "point d"],
    labels: Int[np.ndarray, "point"],
    queries: Int[np.ndarray, "point"],
) -> Int[np.ndarray, "point"]:
    """The label that logistic regression gives every point, trained without its query.

    Scaling and principal components are fitted on the training points too. Nothing is random: the
    same points give the same labels. If all points are equal, there is nothing to train on, and
    every point gets the first label.
    """
    points = points.astype(np.float64)
    if (points == points[0]).all():
        return np.full(len(labels), labels.min())
    splits = folds(queries)
    size = min(N_COMPONENTS, points.shape[1], *(len(train) for train, _ in splits))
    model = make_pipeline(
        StandardScaler(), PCA(size, svd_solver="full"), LogisticRegression(max_iter=MAX_ITER)
    )
    with warnings.catch_warnings():  # stopping a few steps short of the optimum is near enough
        warnings.simplefilter("ignore", ConvergenceWarning)
        return cross_val_predict(model, points, labels, cv=splits)
