"""Vectors in the plane: PCA, t-SNE or UMAP of their directions."""

import warnings
from importlib.util import find_spec
from typing import Any

import numpy as np
from jaxtyping import Float
from sklearn.decomposition import KernelPCA
from sklearn.manifold import TSNE

from icl_mech.errors import InputError, choose

#: Ways from cosine distances to two dimensions. PCA is linear and keeps scale. t-SNE and UMAP show
#: which points are near one another; the distances between their clusters mean little.
PROJECTIONS = ("pca", "tsne", "umap")
#: t-SNE's perplexity, and UMAP's neighbours, at most.
PERPLEXITY, NEIGHBOURS = 30.0, 15


def project(
    distances: Float[np.ndarray, "n n"], method: str = "pca", seed: int = 0
) -> tuple[Float[np.ndarray, "n 2"], str]:
    """Points in the plane, and what their axes are.

    Args:
        distances: cosine distances, 0 on the diagonal.
        method: one of `PROJECTIONS`. `"pca"`: principal components of the vectors scaled to
            length 1, from their products (which the distances hold); the signs of the axes mean
            nothing. `"tsne"` (scikit-learn) and `"umap"` (umap-learn) begin from the distances.
        seed: of t-SNE and UMAP.

    Raises:
        InputError: where the method is unknown, there are fewer than 3 vectors, or umap-learn is
            not installed.
    """
    check_projection(method)
    n = len(distances)
    if n < 3:
        raise InputError(f"{n} vectors; expected at least 3 to project")
    if method == "pca":
        return _pca(distances)
    # Rounding leaves distances of equal vectors a little below 0.
    clean = np.clip(distances, 0, None)
    if method == "tsne":
        model: Any = TSNE(
            metric="precomputed",
            init="random",
            perplexity=min(PERPLEXITY, (n - 1) / 3),
            random_state=seed,
        )
        return model.fit_transform(clean), "t-SNE"
    return _umap(clean, seed), "UMAP"


def check_projection(method: str) -> None:
    """Refuse a projection that will not work, before anything is measured.

    Raises:
        InputError: where the method is unknown, or umap-learn is not installed.
    """
    choose(method, PROJECTIONS, "projection")
    if method == "umap" and find_spec("umap") is None:
        raise InputError(
            "projection 'umap' needs umap-learn; expected it installed (pip install "
            "'icl-mech[umap]'), or 'pca' or 'tsne'"
        )


def _pca(distances: Float[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, "n 2"], str]:
    found: Any = KernelPCA(n_components=None, kernel="precomputed", eigen_solver="dense")
    points = found.fit_transform(1 - distances)
    points = np.pad(points, ((0, 0), (0, max(0, 2 - points.shape[1]))))[:, :2]
    total = float(found.eigenvalues_.sum())
    explained = (found.eigenvalues_[:2] / total).sum() if total > 0 else 0.0
    return points, f"principal component ({explained:.0%} of the variance in both)"


def _umap(distances: Float[np.ndarray, "n n"], seed: int) -> Float[np.ndarray, "n 2"]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # libraries it could use, and that a seed means one thread
        import umap

        neighbours = min(NEIGHBOURS, len(distances) - 1)
        model = umap.UMAP(metric="precomputed", n_neighbors=neighbours, random_state=seed)
        return np.asarray(model.fit_transform(distances))
