"""What heads add, layer by layer."""

import numpy as np
from jaxtyping import Float

from icl_mech.stats import Estimate


def helpful(effects: Float[np.ndarray, "prompt layer head"]) -> Float[np.ndarray, "prompt layer"]:
    """Per prompt, what a layer's helpful heads add together.

    A head counts on every other prompt where its mean over the prompts between is positive. With
    a single prompt there is nothing to decide on, and all heads count.
    """
    if len(effects) < 2:
        return effects.sum(axis=-1)
    mass = np.empty(effects.shape[:2])
    for counted, decided in ((0, 1), (1, 0)):
        helps = effects[decided::2].mean(axis=0) > 0
        mass[counted::2] = (effects[counted::2] * helps).sum(axis=-1)
    return mass


def added(values: np.ndarray) -> list[Estimate]:
    """The share of the heads' effect that has been added by each layer."""
    mass = values.mean(axis=0)
    total = mass.sum()
    shares = np.cumsum(mass) / total if total > 0 else np.full(len(mass), np.nan)
    return [Estimate(float(s), np.nan, np.nan, len(values)) for s in shares]
