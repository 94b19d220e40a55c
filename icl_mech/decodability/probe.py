"""A linear probe for the task, cross-validated over queries."""

import warnings

import numpy as np
from jaxtyping import Int, Shaped
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

N_FOLDS = 5
#: Directions of largest variance that the probe sees, of the standardised training points.
N_COMPONENTS = 64
MAX_ITER = 300


def folds(groups: Int[np.ndarray, "point"]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Train and test rows, no group in both; as many folds as groups where those are few."""
    splitter = GroupKFold(min(N_FOLDS, len(np.unique(groups))))
    return list(splitter.split(groups[:, None], groups=groups))


def probe(
    points: Shaped[np.ndarray, "point d"],
    labels: Int[np.ndarray, "point"],
    queries: Int[np.ndarray, "point"],
) -> Int[np.ndarray, "point"]:
    """The label that logistic regression gives every point, trained without its query.

    Scaling and the principal components are fitted on the training points too. Nothing is drawn:
    the same points give the same answers. Where no training point differs from another there is
    nothing to train on, and every point gets the first label.
    """
    predicted = np.empty(len(labels), dtype=np.int64)
    points = points.astype(np.float64)
    for train, test in folds(queries):
        if (points[train] == points[train][0]).all():
            predicted[test] = labels.min()
            continue
        size = min(N_COMPONENTS, len(train), points.shape[1])
        model = make_pipeline(
            StandardScaler(),
            PCA(size, svd_solver="full"),
            LogisticRegression(max_iter=MAX_ITER),
        )
        with warnings.catch_warnings():  # a few steps short of the optimum is near enough
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(points[train], labels[train])
        predicted[test] = model.predict(points[test])
    return predicted
