"""Several comparisons at once: a p of each, and a correction for their number."""

import numpy as np
from jaxtyping import Float

from icl_mech.stats.resampling import Clusters, cluster_index, cluster_sums, too_few


def sign_flip_p(
    differences: Float[np.ndarray, "n"], clusters: Clusters = None, seed: int = 0
) -> float:
    """Two-sided p of the hypothesis that paired differences have mean 0; clusters flip their signs.

    If two methods are equally good, each cluster (the prompts of one query) favours either of them
    with the same probability. The p is exact for few clusters, otherwise from 9,999 draws.

    Args:
        differences: of two methods, a value per prompt.
        clusters: which prompts are not independent.
        seed: of the draws.

    Returns:
        NaN for fewer than four clusters.

    >>> sign_flip_p(np.ones(5)), sign_flip_p(np.array([1.0, -1.0, 1.0, -1.0]))
    (0.0625, 1.0)
    """
    from scipy.stats import permutation_test  # takes half a second to import

    index = cluster_index(len(differences), clusters)
    if too_few(index):
        return float("nan")
    sums = cluster_sums(differences.astype(float), index)
    sums = sums[sums != 0]  # a flipped sign changes nothing there
    if len(sums) < 2:
        return 1.0
    found = permutation_test(
        (sums,),
        lambda values, axis: values.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def holm(p: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Holm's correction for the number of comparisons (1979); NaN stays NaN and does not count.

    If corrected values are read at a level such as .05, the probability of any false positive among
    all comparisons is at most that level.

    >>> holm(np.array([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    corrected = np.full(len(p), np.nan)
    order = np.argsort(p)[: np.isfinite(p).sum()]
    steps = p[order] * (len(order) - np.arange(len(order)))
    corrected[order] = np.maximum.accumulate(steps).clip(max=1)
    return corrected
