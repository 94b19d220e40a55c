"""A number with its interval: what every statistic returns."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

CONFIDENCE = 0.95
#: The quantiles at which a 95 % interval ends.
ENDS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Attributes:
        value: the number.
        low, high: the ends of its interval; NaN where there is none.
        n: how many values (prompts) it comes from.
        n_clusters: how many of them are independent: different queries where prompts share some,
            otherwise `n`.
    """

    value: float
    low: float
    high: float
    n: int
    n_clusters: int = field(default=-1)

    def __post_init__(self) -> None:
        if self.n_clusters < 0:
            object.__setattr__(self, "n_clusters", self.n)

    def columns(self, name: str) -> dict[str, float]:
        """As columns of a table: the number under `name`, its ends under `name_low`, `name_high`.

        >>> Estimate(0.75, 0.3, 0.95, 4).columns("accuracy")
        {'accuracy': 0.75, 'accuracy_low': 0.3, 'accuracy_high': 0.95}
        """
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}

    def __str__(self) -> str:
        if self.low != self.low:  # NaN
            return f"{self.value:.2f} (no interval)"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Estimates:
    """An array of numbers, each with its 95 % interval; attributes as of `Estimate`."""

    value: Float[np.ndarray, "*cell"]
    low: Float[np.ndarray, "*cell"]
    high: Float[np.ndarray, "*cell"]
    n: int
    n_clusters: int = field(default=-1)

    def __post_init__(self) -> None:
        if self.n_clusters < 0:
            object.__setattr__(self, "n_clusters", self.n)

    @staticmethod
    def stacked(parts: Sequence["Estimates"]) -> "Estimates":
        """Arrays of the same shape and from as many prompts, along a new first axis."""
        value, low, high = (
            np.stack([getattr(part, end) for part in parts]) for end in ("value", "low", "high")
        )
        return Estimates(value, low, high, parts[0].n, parts[0].n_clusters)

    def at(self, *cell: int) -> Estimate:
        """The estimate of one cell."""
        value, low, high = (float(a[cell]) for a in (self.value, self.low, self.high))
        return Estimate(value, low, high, self.n, self.n_clusters)

    def rows(self) -> list[Estimate]:
        """One estimate per cell of a single axis."""
        return [self.at(i) for i in range(len(self.value))]
