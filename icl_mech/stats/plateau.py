"""The run of layers on which a curve stands out, and whether it stands out from noise."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from icl_mech.stats.resampling import draw_weights

#: Differences of means that are smaller than this are rounding.
EQUAL = 1e-9


class Plateau(NamedTuple):
    """The layers from `start` to before `end`, and how much of the squared deviations they explain
    (`gain`: 0 where the curve is flat; the run is all layers then)."""

    start: Int[np.ndarray, "*batch"]
    end: Int[np.ndarray, "*batch"]
    gain: Float[np.ndarray, "*batch"]


def plateau(curves: Float[np.ndarray, "*batch layer"], ends: Iterable[int]) -> Plateau:
    """The run of layers that, by least squares, is best separated as higher than the others.

    Args:
        curves: to fit, each with one level inside the run and one outside.
        ends: the layers before which a run may end.
    """
    n = curves.shape[-1]
    centred = cumulated(curves - curves.mean(axis=-1, keepdims=True))
    best = Plateau(
        np.zeros(curves.shape[:-1], dtype=int),
        np.full(curves.shape[:-1], n),
        np.zeros(curves.shape[:-1]),
    )
    for end in ends:
        start = np.arange(end) if end < n else np.arange(1, n)
        if not len(start):  # one layer alone
            continue
        size = end - start
        # The run's sum about the mean of all layers.
        above = np.maximum(centred[..., [end]] - centred[..., start], 0)
        gain = above**2 * n / (size * (n - size))
        at = gain.argmax(axis=-1)
        most = np.take_along_axis(gain, at[..., None], axis=-1)[..., 0]
        better = most > best.gain + EQUAL
        best = Plateau(
            np.where(better, start[at], best.start),
            np.where(better, end, best.end),
            np.where(better, most, best.gain),
        )
    return best


def cumulated(values: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n_and_1"]:
    """Sums of the first 0, 1, ... values."""
    return np.concatenate([np.zeros((*values.shape[:-1], 1)), np.cumsum(values, axis=-1)], axis=-1)


def flat_noise(
    values: Float[np.ndarray, "prompt layer"],
    clusters: Shaped[np.ndarray, "prompt"],
    seed: int = 0,
) -> Float[np.ndarray, "draw layer"]:
    """Bootstrap resamples minus the mean curve: what a flat curve with the same noise looks like.

    The correlations between the layers of a prompt are kept. The variance of resampled means is too
    small by the factor `(n - 1) / n` for `n` clusters, which is corrected. At least two clusters
    are needed.
    """
    drawn = draw_weights(len(values), seed, clusters=clusters) @ values
    n = len(np.unique(clusters))
    noise: Float[np.ndarray, "draw layer"] = (drawn - values.mean(axis=0)) * (n / (n - 1)) ** 0.5
    return noise


def share_of_noise(
    values: Float[np.ndarray, "prompt layer"],
    clusters: Shaped[np.ndarray, "prompt"],
    seed: int = 0,
) -> float:
    """Share of resamples in which noise alone has a plateau that stands out at least as much.

    It is 1 for a flat curve, and NaN for a single cluster, which shows no noise.
    """
    ends = range(1, values.shape[1] + 1)
    gain = float(plateau(values.mean(axis=0), ends).gain)
    if len(np.unique(clusters)) < 2:
        return np.nan
    return float((plateau(flat_noise(values, clusters, seed), ends).gain >= gain - EQUAL).mean())
