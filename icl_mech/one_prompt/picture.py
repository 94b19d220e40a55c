"""The base of pictures of one prompt: labelled arrays that are shown but not saved."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import pandas as pd
import xarray as xr

from icl_mech.shown import Shown, precision_notes


class Picture(Shown):
    """Numbers of one prompt; findings are about this prompt only and have no interval.

    Attributes:
        data: labelled arrays.
        provenance: model, prompt, vectors and settings.
    """

    _INDEXED: ClassVar[bool] = False

    def __init__(self, data: xr.Dataset, provenance: Mapping[str, Any]) -> None:
        self.data = data
        self.provenance = dict(provenance)

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        return precision_notes(self.provenance)

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """Tidy values: one row per observation. Tokens are as the tokenizer writes them."""
