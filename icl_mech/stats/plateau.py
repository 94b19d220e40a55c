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
    """The run that is best told apart, by least squares, as higher than all other layers.

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
    """What is left of bootstrap resamples without the curve itself: the noise of a flat curve.

    It has all that the layers of a prompt have in common. Resampled means vary by `(n - 1) / n`
    too little for `n` clusters, which is mended. There are at least two clusters.
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
    """In how many of the resamples noise alone has a plateau that stands out as much.

    1 where the curve is flat. One cluster alone shows no noise: NaN.
    """
    ends = range(1, values.shape[1] + 1)
    gain = float(plateau(values.mean(axis=0), ends).gain)
    if len(np.unique(clusters)) < 2:
        return np.nan
    return float((plateau(flat_noise(values, clusters, seed), ends).gain >= gain - EQUAL).mean())
