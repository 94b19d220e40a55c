"""Where a curve over layers rises, falls, and settles: the definitions, as functions of arrays.

Every read-out is a curve over layers, a mean over prompts. A curve's *floor* is its smallest
value on the side in question, its *peak* its largest; it *works* where it has risen by at least
`fraction` of the way from floor to peak. Where floor and peak are less than `min_rise` apart
there is nothing to locate, and the layer is NaN.

The largest of many noisy values always stands out above the smallest, so a rise of `min_rise`
alone is no evidence: `locate` names a layer only where the rise is beyond noise (see `Rule`).

All functions take curves `[*, layer]` and return layers and rises `[*]` as floats.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_mech.errors import InputError
from icl_mech.stats import CONFIDENCE, ENDS, N_RESAMPLES, Estimate, draw_weights

Curves = Float[np.ndarray, "*batch layer"]
Layers = Float[np.ndarray, "*batch"]

#: Rises that differ by less are equal: they are differences of means.
_EQUAL = 1e-9


@dataclass(frozen=True)
class Rule:
    """When a curve counts as risen, and when its layer is named.

    Attributes:
        fraction: how far from floor to peak, between 0 and 1.
        min_rise: smallest distance from floor to peak that counts, in the curve's own units.
        min_found: share of the bootstrap resamples in which the curve must have a layer; and
            noise alone, resampled about a flat curve, may rise as far as the curve does in no more
            than the rest of them. With 0 every curve that rises by `min_rise` names a layer.
    """

    fraction: float = 0.5
    min_rise: float = 0.1
    min_found: float = CONFIDENCE

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise InputError(f"fraction is {self.fraction}; expected a number between 0 and 1")
        if not self.min_rise > 0:
            raise InputError(f"min_rise is {self.min_rise}; expected a number above 0")
        if not 0 <= self.min_found <= 1:
            raise InputError(f"min_found is {self.min_found}; expected a number from 0 to 1")


class Turn(NamedTuple):
    """Where curves turn (NaN where there is nothing to locate), and how far they rise or fall."""

    layer: Layers
    rise: Layers


def formed(curves: Curves, rule: Rule) -> Turn:
    """The first layer at which the curve works, with its floor before the peak."""
    peak = curves.argmax(axis=-1)
    before = np.arange(curves.shape[-1]) <= peak[..., None]
    works, rise = _works(curves, before, rule)
    layer = (works & before).argmax(axis=-1)
    return Turn(np.where(rise >= rule.min_rise, layer, np.nan), rise)


def consumed(curves: Curves, rule: Rule) -> Turn:
    """The first layer, after the last at which the curve works, with its floor after the peak.

    NaN, too, where the curve still works at the last layer.
    """
    backwards, fall = formed(curves[..., ::-1], rule)
    layer = curves.shape[-1] - backwards
    return Turn(np.where(layer >= curves.shape[-1], np.nan, layer), fall)


def settled(curves: Curves, rule: Rule) -> Turn:
    """The first layer from which on the curve works to the end; its peak is its last value."""
    last = curves[..., -1:]
    floor = curves.min(axis=-1, keepdims=True)
    below = curves < floor + rule.fraction * (last - floor)
    start = curves.shape[-1] - below[..., ::-1].argmax(axis=-1)
    start = np.where(below.any(axis=-1), start, 0)
    rise = (last - floor)[..., 0]
    return Turn(np.where(rise >= rule.min_rise, start, np.nan), rise)


def gathered(mass: Curves, rule: Rule) -> Turn:
    """The layer by which `fraction` of a quantity, summed over layers, has been added.

    NaN where the sum is less than `min_rise`.
    """
    total = mass.sum(axis=-1, keepdims=True)
    layer = (np.cumsum(mass, axis=-1) >= rule.fraction * total).argmax(axis=-1)
    return Turn(np.where(total[..., 0] >= rule.min_rise, layer, np.nan), total[..., 0])


def _works(
    curves: Curves, side: Bool[np.ndarray, "*batch layer"], rule: Rule
) -> tuple[Bool[np.ndarray, "*batch layer"], Layers]:
    """Where curves work, and how far they rise on this side of the peak."""
    floor = np.where(side, curves, np.inf).min(axis=-1, keepdims=True)
    peak = curves.max(axis=-1, keepdims=True)
    works = curves >= floor + rule.fraction * (peak - floor)
    return works, (peak - floor)[..., 0]


@dataclass(frozen=True)
class Located:
    """A layer with its bootstrap interval.

    Attributes:
        estimate: the layer of the curve over all prompts, with the 2.5 and 97.5 % quantiles over
            the resamples that have a layer (at least `Rule.min_found` of them); NaN where none is
            named. `n` counts the clusters that were resampled.
        draws: the layer in every resample, NaN where it has none.
        why: why no layer is named; empty where one is.
    """

    estimate: Estimate
    draws: Float[np.ndarray, "draw"]
    why: str = ""

    @property
    def found(self) -> float:
        """Share of the resamples in which there is a layer."""
        return float(np.isfinite(self.draws).mean())

    def __str__(self) -> str:
        e = self.estimate
        if not np.isfinite(e.value):
            return "none"
        if not np.isfinite(e.low):
            return f"{e.value:.0f} (no interval)"
        return f"{e.value:.0f} [{e.low:.0f}, {e.high:.0f}]"


def locate(
    values: Float[np.ndarray, "prompt layer"],
    rule: Rule,
    where: Callable[[Curves, Rule], Turn],
    seed: int = 0,
    clusters: Int[np.ndarray, "prompt"] | None = None,
) -> Located:
    """Find a layer, and resample prompts for its interval and for how far noise alone rises.

    Args:
        values: per prompt.
        rule: when a curve counts as risen, and when its layer is named.
        where: one of the functions above.
        seed: of the resampling.
        clusters: which prompts belong together (share a query) and are drawn together; by default
            each stands for itself.
    """
    clusters = np.arange(len(values)) if clusters is None else clusters
    n, mean = len(np.unique(clusters)), values.mean(axis=0)
    drawn = draw_weights(len(values), seed, clusters=clusters) @ values
    layer, rise = (float(a[0]) for a in where(mean[None], rule))
    draws = where(drawn, rule).layer
    # What is left of the resamples without the curve itself: the noise of a flat curve, with all
    # that the layers of a prompt have in common. Resampled means vary by (n - 1) / n too little.
    noise = where((drawn - mean) * (n / max(n - 1, 1)) ** 0.5, rule).rise
    as_far = float((noise >= rise - _EQUAL).mean()) if n > 1 else 0.0
    why = _why_none(layer, rise, float(np.isfinite(draws).mean()), as_far, rule)
    if why:
        return Located(_none(n), draws, why)
    low, high = (np.nan, np.nan)
    if n > 1:
        # Layers are whole numbers: no interpolation between them.
        low, high = np.quantile(draws[np.isfinite(draws)], ENDS, method="nearest")
    return Located(Estimate(layer, float(low), float(high), n), draws)


def _why_none(layer: float, rise: float, found: float, as_far: float, rule: Rule) -> str:
    """Why no layer is named; empty where one is."""
    if rise < rule.min_rise:
        return "too flat"
    if np.isnan(layer):
        return "it still works at the last layer"
    if found < rule.min_found or as_far > 1 - rule.min_found:
        return (
            f"its rise of {rise:.2f} is within noise: {found:.0%} of the resamples have a layer, "
            f"and noise alone rises as far in {as_far:.0%}"
        )
    return ""


def nowhere(n: int, why: str) -> Located:
    """No layer: there is nothing to locate in these `n` clusters of prompts."""
    return Located(_none(n), np.full(N_RESAMPLES, np.nan), why)


def _none(n: int) -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, n)


def gap(one: Located, two: Located) -> dict[str, float]:
    """Second layer minus first, over resamples in which both are there; NaN where none is named."""
    both = np.isfinite(one.draws) & np.isfinite(two.draws)
    gaps = (two.draws - one.draws)[both]
    if one.why or two.why:
        return dict.fromkeys(("layers", "low", "high", "within_one"), np.nan)
    low, high = np.quantile(gaps, ENDS, method="nearest")
    return {
        "layers": two.estimate.value - one.estimate.value,
        "low": float(low),
        "high": float(high),
        "within_one": float((abs(gaps) <= 1).mean()),
    }
