"""Where a curve over layers rises, falls, and settles: the definitions, as functions of arrays.

Every read-out is a curve over layers, a mean over prompts. A curve's *floor* is its smallest
value on the side in question, its *peak* its largest; it *works* where it has risen by at least
`fraction` of the way from floor to peak. Where floor and peak are less than `min_rise` apart
there is nothing to locate, and the layer is NaN.

All functions take curves `[*, layer]` and return layers `[*]` as floats.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from icl_mech.errors import InputError
from icl_mech.stats import N_RESAMPLES_SLOW, Estimate, resampled_means

Curves = Float[np.ndarray, "*batch layer"]
Layers = Float[np.ndarray, "*batch"]


@dataclass(frozen=True)
class Rule:
    """When a curve counts as risen.

    Attributes:
        fraction: how far from floor to peak, between 0 and 1.
        min_rise: smallest distance from floor to peak that counts, in the curve's own units.
    """

    fraction: float = 0.5
    min_rise: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise InputError(f"fraction is {self.fraction}; expected a number between 0 and 1")
        if not self.min_rise > 0:
            raise InputError(f"min_rise is {self.min_rise}; expected a number above 0")


def formed(curves: Curves, rule: Rule) -> Layers:
    """The first layer at which the curve works, with its floor before the peak."""
    peak = curves.argmax(axis=-1)
    before = np.arange(curves.shape[-1]) <= peak[..., None]
    works, rises = _works(curves, before, rule)
    return np.where(rises, (works & before).argmax(axis=-1), np.nan)


def consumed(curves: Curves, rule: Rule) -> Layers:
    """The first layer, after the last at which the curve works, with its floor after the peak.

    NaN, too, where the curve still works at the last layer.
    """
    backwards = formed(curves[..., ::-1], rule)
    layer = curves.shape[-1] - backwards
    return np.where(layer >= curves.shape[-1], np.nan, layer)


def settled(curves: Curves, rule: Rule) -> Layers:
    """The first layer from which on the curve works to the end; its peak is its last value."""
    last = curves[..., -1:]
    floor = curves.min(axis=-1, keepdims=True)
    below = curves < floor + rule.fraction * (last - floor)
    start = curves.shape[-1] - below[..., ::-1].argmax(axis=-1)
    start = np.where(below.any(axis=-1), start, 0)
    return np.where((last - floor)[..., 0] >= rule.min_rise, start, np.nan)


def gathered(mass: Curves, rule: Rule) -> Layers:
    """The layer by which `fraction` of a quantity, summed over layers, has been added.

    NaN where the sum is less than `min_rise`.
    """
    total = mass.sum(axis=-1, keepdims=True)
    reached = np.cumsum(mass, axis=-1) >= rule.fraction * total
    return np.where(total[..., 0] >= rule.min_rise, reached.argmax(axis=-1), np.nan)


def _works(
    curves: Curves, side: Bool[np.ndarray, "*batch layer"], rule: Rule
) -> tuple[Bool[np.ndarray, "*batch layer"], Bool[np.ndarray, "*batch"]]:
    """Where curves work, and whether they rise at all."""
    floor = np.where(side, curves, np.inf).min(axis=-1, keepdims=True)
    peak = curves.max(axis=-1, keepdims=True)
    works = curves >= floor + rule.fraction * (peak - floor)
    return works, (peak - floor)[..., 0] >= rule.min_rise


@dataclass(frozen=True)
class Located:
    """A layer with its bootstrap interval.

    Attributes:
        estimate: the layer of the curve over all prompts, with the 2.5 and 97.5 % quantiles over
            resampled prompts; NaN where there is nothing to locate.
        draws: the layer in every resample.
    """

    estimate: Estimate
    draws: Float[np.ndarray, "draw"]

    @property
    def found(self) -> float:
        """Share of the resamples in which there is a layer."""
        return float(np.isfinite(self.draws).mean())

    def __str__(self) -> str:
        e = self.estimate
        if not np.isfinite(e.value):
            return "none"
        return f"{e.value:.0f} [{e.low:.0f}, {e.high:.0f}]"


def locate(
    values: Float[np.ndarray, "prompt layer"],
    rule: Rule,
    where: Callable[[Curves, Rule], Layers],
    seed: int = 0,
) -> Located:
    """Find a layer, and resample prompts for its interval.

    Args:
        values: per prompt.
        rule: when a curve counts as risen.
        where: one of the functions above.
        seed: of the resampling.
    """
    value = float(where(values.mean(axis=0)[None], rule)[0])
    draws = where(resampled_means(values, seed), rule)
    known = draws[np.isfinite(draws)]
    low, high = (np.nan, np.nan)
    if len(known) and len(values) > 1:
        # Layers are whole numbers: no interpolation between them.
        low, high = np.quantile(known, [0.025, 0.975], method="nearest")
    return Located(Estimate(value, float(low), float(high), len(values)), draws)


def nowhere(values: Float[np.ndarray, "prompt layer"]) -> Located:
    """No layer: there is nothing to locate in these prompts."""
    nan = float("nan")
    return Located(Estimate(nan, nan, nan, len(values)), np.full(N_RESAMPLES_SLOW, np.nan))
