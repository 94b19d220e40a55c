"""Activations in the plane, checkpoint by checkpoint."""

import numpy as np
from jaxtyping import Float
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from icl_mech.stats.projection import project


def plane(
    rows: Float[np.ndarray, "seq d_model"], method: str = "pca", seed: int = 0
) -> Float[np.ndarray, "seq 2"]:
    """Points in the plane.

    Args:
        rows: activations.
        method: `"pca"`, the first two principal components, in the units of the residual stream;
            or `"tsne"` or `"umap"` (Han et al. 2024), which keep near points near, by Euclidean
            distance.
        seed: of t-SNE and UMAP.

    Raises:
        InputError: where the method is unknown or not installed.
    """
    if method == "pca":
        return PCA(2).fit_transform(rows)
    return project(cdist(rows, rows), method, seed)[0]


def turned(
    points: Float[np.ndarray, "seq layer 2"], like: Float[np.ndarray, "seq layer 2"]
) -> Float[np.ndarray, "seq layer 2"]:
    """Each layer's points, rotated or mirrored to be nearest to other points of the same sequences.

    Distances stay the same. The directions of the axes have no meaning, so they can be chosen such
    that one checkpoint is easy to compare with the next.
    """
    new = np.empty_like(points)
    for layer in range(points.shape[1]):
        rotation, _ = orthogonal_procrustes(points[:, layer], like[:, layer])
        new[:, layer] = points[:, layer] @ rotation
    return new
