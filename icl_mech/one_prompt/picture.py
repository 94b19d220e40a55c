"""What the pictures of one prompt share: labelled arrays, and how they show themselves."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from html import escape
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import InputError
from icl_mech.notebook import show

#: The least height of a figure, in pixels.
_LEAST = 200


class Picture(ABC):
    """Numbers of one prompt.

    Attributes:
        data: labelled arrays.
        provenance: model, prompt, vectors and settings.
    """

    def __init__(self, data: xr.Dataset, provenance: Mapping[str, Any]) -> None:
        self.data = data
        self.provenance = dict(provenance)

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """Tidy values: one row per observation. Tokens are as the tokenizer writes them."""

    @abstractmethod
    def plot(self, height: int | None = None) -> go.Figure:
        """The picture as a plotly figure (returned, never shown)."""

    @abstractmethod
    def headline(self) -> str:
        """What was measured, on which model."""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """A few numbers as text, for people."""

    def __repr__(self) -> str:
        return f"{self.headline()}\n{self.table().to_string(index=False, max_colwidth=None)}"

    def _repr_html_(self) -> str:
        table = self.table().to_html(escape=True, index=False)
        return f"<p>{escape(self.headline())}</p>{table}"

    def _ipython_display_(self) -> None:
        show(self)


def with_height(figure: go.Figure, height: int | None) -> go.Figure:
    """The figure, as high as was asked for.

    Raises:
        InputError: where no panel would be left.
    """
    if height is None:
        return figure
    if height < _LEAST:
        raise InputError(f"height is {height}; expected pixels, at least {_LEAST}")
    return figure.update_layout(height=height)
