"""Where a curve over layers rises, falls, and settles: the definitions, as functions of arrays.

Every read-out is a curve over layers, a mean over prompts. Its *plateau* is the run of layers that,
by least squares, is best separated from the other layers as higher than they are (one level inside,
one outside). The *floor* is the mean before the plateau (for `consumed`: after it). The *peak* is
the mean on the plateau. The level to cross lies at `fraction` of the way from floor to peak. It is
crossed where the isotonic fit (the increasing curve that is nearest by least squares) crosses it.
So a single layer above the level does not count if the layers after it, taken together, are below.
Neither the levels nor the layer depend on one noisy mean. The first crossing of the curve itself
would depend on one, and is too early if the floor is not 0 (`icl_mech/localize/README.md`).

If floor and peak are less than `min_rise` apart, there is nothing to locate, and the layer is NaN.
Noise alone always has some run that stands out, so a rise is no evidence by itself: `locate` names
a layer only if the run stands out further than runs in noise do (see `Rule`).

All functions take curves `[*, layer]` and return arrays `[*]` of floats. Layers are block numbers
from 0: the stream after block `l`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_mech.errors import InputError
from icl_mech.stats import CONFIDENCE, ENDS, N_RESAMPLES, Estimate, draw_weights
from icl_mech.stats.plateau import EQUAL, cumulated, flat_noise, plateau

Curves = Float[np.ndarray, "*batch layer"]
Layers = Float[np.ndarray, "*batch"]

#: No layer is named from fewer queries: intervals would be too narrow, and noise would look like a
#: plateau (`icl_mech/localize/README.md`).
MIN_QUERIES = 10


@dataclass(frozen=True)
class Rule:
    """When a curve counts as risen, and when its layer is named.

    Raises:
        InputError: where a number is out of its range.
    """

    fraction: float = 0.5
    """How far from floor to peak a curve has to be to count as risen, between 0 and 1."""
    min_rise: float = 0.1
    """Smallest distance from floor to peak that counts, in the curve's own units."""
    min_found: float = CONFIDENCE
    """Share of the bootstrap resamples in which the curve must have a layer. Noise alone, resampled
    about a flat curve, may stand out as much as the curve in no more than the rest of them. With 0
    every curve that rises by min_rise names a layer."""

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise InputError(f"fraction is {self.fraction}; expected a number between 0 and 1")
        if not self.min_rise > 0:
            raise InputError(f"min_rise is {self.min_rise}; expected a number above 0")
        if not 0 <= self.min_found <= 1:
            raise InputError(f"min_found is {self.min_found}; expected a number from 0 to 1")


class Turn(NamedTuple):
    """The layer at which each curve turns, and the evidence for it.

    Attributes:
        layer: the first layer after the turn; NaN where there is nothing to locate.
        rise: from floor to peak.
        evidence: how far the plateau stands out, to be compared with the same number in noise.
    """

    layer: Layers
    rise: Layers
    evidence: Layers


def formed(curves: Curves, rule: Rule) -> Turn:
    """Where the curve rises to its plateau; NaN where it works from the first layer on."""
    n = curves.shape[-1]
    run = plateau(curves, range(1, n + 1))
    peak = _mean(curves, run.start, run.end)
    before, after = _mean(curves, 0 * run.start, run.start), _mean(curves, run.end, n + 0 * run.end)
    floor = np.where(run.start > 0, before, after)
    floor = np.where(np.isnan(floor), peak, floor)
    layer = _crossing(curves, floor + rule.fraction * (peak - floor), run.end)
    there = (peak - floor >= rule.min_rise) & (run.start > 0)
    return Turn(np.where(there, layer, np.nan), peak - floor, run.gain)


def consumed(curves: Curves, rule: Rule) -> Turn:
    """The first layer after the plateau; NaN where the curve still works at the last layer."""
    backwards = formed(curves[..., ::-1], rule)
    return backwards._replace(layer=curves.shape[-1] - backwards.layer)


def settled(curves: Curves, rule: Rule) -> Turn:
    """The layer from which on the curve stays high up to the end; its peak is its last value."""
    n = curves.shape[-1]
    run = plateau(curves, [n])
    last = curves[..., -1]
    floor = np.where(run.start > 0, _mean(curves, 0 * run.start, run.start), last)
    layer = _crossing(curves, floor + rule.fraction * (last - floor), run.end)
    rise = last - floor
    return Turn(np.where(rise >= rule.min_rise, layer, np.nan), rise, run.gain)


def gathered(mass: Curves, rule: Rule) -> Turn:
    """The layer by which `fraction` of a quantity, summed over layers, has been added.

    NaN where the sum is less than `min_rise`.
    """
    added = np.cumsum(mass, axis=-1)
    total = added[..., -1]
    layer = _crossing(added, rule.fraction * total, np.full(total.shape, mass.shape[-1]))
    return Turn(np.where(total >= rule.min_rise, layer, np.nan), total, total)


def _crossing(curves: Curves, level: Layers, end: Int[np.ndarray, "*batch"]) -> Layers:
    """The first of the layers before `end` at which the isotonic fit has reached a level.

    The fit itself need not be computed: it is below the level on exactly those first layers over
    which the sum of curve minus level is smallest (Groeneboom's switch relation).
    """
    below = cumulated(curves - (level - EQUAL)[..., None])[..., :-1]
    allowed = np.arange(curves.shape[-1]) < end[..., None]
    layer: Layers = np.where(allowed, below, np.inf).argmin(axis=-1).astype(float)
    return layer


def _mean(
    curves: Curves, start: Int[np.ndarray, "*batch"], end: Int[np.ndarray, "*batch"]
) -> Layers:
    """Mean of the layers from `start` to before `end`; NaN where there is none."""
    layers = np.arange(curves.shape[-1])
    inside: Bool[np.ndarray, "*batch layer"] = (layers >= start[..., None]) & (
        layers < end[..., None]
    )
    size = inside.sum(axis=-1)
    total = np.where(inside, curves, 0).sum(axis=-1)
    mean: Layers = np.where(size > 0, total / np.maximum(size, 1), np.nan)
    return mean


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
            each stands for itself. No layer is named from fewer than `MIN_QUERIES` clusters.
    """
    clusters = np.arange(len(values)) if clusters is None else clusters
    n, mean = len(np.unique(clusters)), values.mean(axis=0)
    if n < MIN_QUERIES:
        return nowhere(len(values), n, f"{n} queries; at least {MIN_QUERIES} are needed")
    drawn = draw_weights(len(values), seed, clusters=clusters) @ values
    layer, rise, evidence = (float(a[0]) for a in where(mean[None], rule))
    draws = where(drawn, rule).layer
    noise = where(flat_noise(values, clusters, seed), rule).evidence
    as_much = float((noise >= evidence - EQUAL).mean())
    why = _why_none(layer, rise, float(np.isfinite(draws).mean()), as_much, rule, where)
    if why:
        return Located(_none(len(values), n), draws, why)
    # Layers are whole numbers: no interpolation between them.
    low, high = np.quantile(draws[np.isfinite(draws)], ENDS, method="nearest")
    return Located(Estimate(layer, float(low), float(high), len(values), n), draws)


def _why_none(
    layer: float, rise: float, found: float, as_much: float, rule: Rule, where: Callable
) -> str:
    """Why no layer is named; empty where one is."""
    if rise < rule.min_rise:
        return "too flat"
    if np.isnan(layer):
        if where is consumed:
            return "it still works at the last layer"
        return "it works from the first layer on"
    if found < rule.min_found or as_much > 1 - rule.min_found:
        return (
            f"its rise of {rise:.2f} is within noise: {found:.0%} of the resamples have a layer, "
            f"and noise alone stands out as much in {as_much:.0%}"
        )
    return ""


def nowhere(n: int, n_clusters: int, why: str) -> Located:
    """No layer: there is nothing to locate in these `n` prompts."""
    return Located(_none(n, n_clusters), np.full(N_RESAMPLES, np.nan), why)


def _none(n: int, n_clusters: int) -> Estimate:
    return Estimate(np.nan, np.nan, np.nan, n, n_clusters)


def gap(one: Located, two: Located) -> dict[str, float]:
    """Second layer minus first, over the resamples that have both; NaN if either is not named."""
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
