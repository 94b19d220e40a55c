"""Han et al. 2024 (arXiv 2412.12276): how well task decodability predicts accuracy."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from icl_mech.errors import choose


@dataclass(frozen=True)
class PublishedFits:
    """R² of one straight line through 6 tasks x 3 shot counts, by model and family.

    The paper gives no intervals, and the layer of TD is chosen on the points it is reported on.
    """

    source: str
    n_rows: int
    n_shots: tuple[int, ...]
    r_squared: Mapping[str, Mapping[str, float]]

    def fit(self, model: str, family: str) -> float:
        """R² of one model on one family (`"pos"` or `"bitwise"`).

        Raises:
            InputError: where the paper has no such model or family.
        """
        of_model = self.r_squared[choose(model, self.r_squared, "published model")]
        return of_model[choose(family, of_model, "published family")]


@cache
def han2024() -> PublishedFits:
    """The published R²; they have two decimals."""
    raw = json.loads(
        files("icl_mech.reference").joinpath("han2024.json").read_text(encoding="utf-8")
    )
    return PublishedFits(raw["source"], raw["n_rows"], tuple(raw["n_shots"]), raw["r_squared"])
