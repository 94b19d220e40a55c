"""Means over pairs of points, bootstrapped over points, because pairs share points."""

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_mech.stats.estimate import ENDS, Estimates
from icl_mech.stats.resampling import N_RESAMPLES_SLOW

#: The least number of points in a group: with fewer, most resamples have hardly any pair.
_LEAST = 3
#: With fewer groups, `nearer_than_chance` has hardly any power.
FEWEST_GROUPS = 6


def pair_means(
    distances: Float[np.ndarray, "*cell n n"],
    counted: Bool[np.ndarray, "n n"],
    groups: Int[np.ndarray, "n"],
    seed: int = 0,
) -> Estimates:
    """Mean of every cell over the counted pairs, with percentile intervals over the points.

    A resample draws from every group as many points as the group has. A point that is drawn twice
    makes no pair with itself, because its distance to itself is 0. There is no interval (NaN) if a
    group with counted pairs has fewer than three points.

    Args:
        distances: between any two points; the diagonal is not used.
        counted: which pairs count; no pair of a point with itself.
        groups: the group of every point (here: the vectors of one task).
        seed: of the bootstrap.

    Raises:
        ValueError: where a point is paired with itself, or nothing is counted.

    Example:
        >>> points, groups = np.arange(6.0), np.repeat([0, 1], 3)
        >>> within = np.equal.outer(groups, groups) & ~np.eye(6, dtype=bool)
        >>> distances = abs(np.subtract.outer(points, points))
        >>> round(float(pair_means(distances, within, groups).value), 2)
        1.33
    """
    if counted.diagonal().any():
        raise ValueError("a point is counted with itself; expected pairs of different points")
    if not counted.any():
        raise ValueError("no pair is counted; expected at least one")
    n = len(groups)
    cells = np.where(counted, distances, 0).astype(float).reshape(-1, n, n)
    value = cells.sum(axis=(1, 2)) / counted.sum()
    shape = distances.shape[:-2]
    ends = np.full((2, len(cells)), np.nan)
    involved = counted.any(axis=0) | counted.any(axis=1)
    sizes = [int((groups == g).sum()) for g in np.unique(groups[involved])]
    if min(sizes) >= _LEAST:
        weights = _resamples(groups, seed)
        pairs = np.einsum("bi,bi->b", weights @ counted, weights)
        weights, pairs = weights[pairs > 0], pairs[pairs > 0]
        drawn = [np.einsum("bi,bi->b", weights @ cell, weights) / pairs for cell in cells]
        ends = np.quantile(drawn, ENDS, axis=1)
    low, high = (end.reshape(shape) for end in ends)
    return Estimates(value.reshape(shape), low, high, n)


def nearer_than_chance(
    gram: Float[np.ndarray, "group group"], seed: int = 0, n_draws: int = 2000
) -> Float[np.ndarray, "group group"]:
    """Which pairs of groups are more alike than the most alike pair of unrelated groups.

    After the mean of all groups' means is subtracted, the vectors point away from one another. If
    their differences have few large dimensions, some pairs are near by chance. So the null
    distribution is simulated: as many means are drawn independently from a normal distribution with
    the measured covariance (spectrum and lengths), and their own mean is subtracted. The p of a
    pair is the share of draws whose *largest* cosine, over all pairs, is at least that of the pair.
    So p is corrected for the number of pairs.

    The covariance is that of the groups themselves, and related groups lower its dimension. So the
    test is conservative, and with fewer than `FEWEST_GROUPS` groups it has hardly any power.
    `tests/slow/test_variability_null.py` measures false alarms and power.

    Args:
        gram: inner products of the groups' means; on the diagonal the squared length of each mean,
            corrected for noise.
        seed: of the draws.
        n_draws: how many.

    Returns:
        Corrected p of every pair; NaN on the diagonal, and everywhere if there are fewer than three
        groups or these do not differ.

    Example:
        >>> nearer_than_chance(np.eye(4)).shape
        (4, 4)
    """
    n = len(gram)
    p = np.full((n, n), np.nan)
    if not np.isfinite(gram).all():  # groups without a direction
        return p
    away = np.eye(n) - 1 / n
    centred = away @ gram @ away
    spectrum = np.clip(np.linalg.eigvalsh(centred), 0, None)
    spectrum = spectrum[spectrum > 1e-9 * max(float(np.trace(gram)), 0.0)]
    if n < 3 or not len(spectrum):
        return p
    rng = np.random.default_rng(seed)
    drawn = rng.standard_normal((n_draws, n, len(spectrum))) * np.sqrt(spectrum)
    drawn -= drawn.mean(axis=1, keepdims=True)
    pairs = np.triu_indices(n, k=1)
    largest = _cosines(drawn @ drawn.transpose(0, 2, 1))[:, *pairs].max(axis=1)
    ours = _cosines(centred)[pairs]
    p[pairs] = (1 + (largest[:, None] >= ours).sum(axis=0)) / (1 + n_draws)
    return np.fmin(p, p.T)


def _cosines(gram: Float[np.ndarray, "*draw n n"]) -> Float[np.ndarray, "*draw n n"]:
    """Cosines from inner products; 0 for a vector of length 0."""
    squared = np.einsum("...ii->...i", gram)
    scale = np.where(squared > 0, 1 / np.sqrt(np.where(squared > 0, squared, 1)), 0)
    return gram * scale[..., :, None] * scale[..., None, :]


def _resamples(groups: Int[np.ndarray, "n"], seed: int) -> Float[np.ndarray, "draw n"]:
    """How often every point is drawn, group by group."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((N_RESAMPLES_SLOW, len(groups)))
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        weights[:, own] = rng.multinomial(
            len(own), np.full(len(own), 1 / len(own)), size=N_RESAMPLES_SLOW
        )
    return weights
