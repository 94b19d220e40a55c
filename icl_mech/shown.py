"""The base of everything that is shown: a headline, a finding, a table, a figure."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import wraps
from html import escape
from operator import index
from typing import Any, ClassVar

import pandas as pd
import plotly.graph_objects as go

from icl_mech.errors import InputError
from icl_mech.notebook import show

#: The least height of panels in pixels, between the margins.
_LEAST = 100


def precision_notes(provenance: Mapping[str, Any]) -> list[str]:
    """A caveat on rounded matrix products, if `load_model` was asked for them."""
    error = provenance.get("matmul_error")
    return [error["note"]] if error else []


class Shown(ABC):
    """Base of results and of pictures of one prompt.

    Subclasses define `_draw`. `plot` wraps it with the options that all figures share, so that
    these are checked and documented once.
    """

    #: Whether tables show their index.
    _INDEXED: ClassVar[bool] = True

    provenance: dict[str, Any]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "_draw" in vars(cls):
            cls.plot = _explained(cls.plot, cls._draw)  # type: ignore[method-assign]

    @abstractmethod
    def headline(self) -> str:
        """What was measured, on which model: the line over the table."""

    def finding(self) -> str:
        """What was found, as one sentence: the title of the figure.

        Plain text, decided by the result's own intervals and rules. It is empty if these allow no
        single sentence; the figure's title then says what is shown.
        """
        return ""

    def few(self) -> str:
        """How few prompts or queries affect the intervals: a short line for figures, or empty."""
        return ""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The numbers as text, for people."""

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        return []

    @abstractmethod
    def _draw(self, *args: Any, **options: Any) -> go.Figure:
        """The figure, with the height that its contents need."""

    def plot(self, *args: Any, height: int | None = None, **options: Any) -> go.Figure:
        """The measurement as a plotly figure (returned, never shown).

        Args:
            args, options: options of the kind of figure.
            height: of the whole figure, in pixels; by default as much as its contents need.

        Raises:
            InputError: if the height leaves no room for panels.
        """
        return with_height(self._draw(*args, **options), height)

    def _ipython_display_(self) -> None:
        show(self)

    def __repr__(self) -> str:
        table = self.table().to_string(index=self._INDEXED, max_colwidth=None)
        notes = [f"note: {note}" for note in self.caveats()]
        return "\n".join([*self._above(), table, *notes])

    def _repr_html_(self) -> str:
        above = "".join(f"<p>{escape(line)}</p>" for line in self._above())
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.caveats())
        table = self.table().to_html(escape=True, index=self._INDEXED)
        return f"{above}{table}" + (f"<ul>{notes}</ul>" if notes else "")

    def _above(self) -> list[str]:
        """The lines over the table."""
        return [line for line in (self.headline(), self.finding()) if line]


def with_height(figure: go.Figure, height: int | None) -> go.Figure:
    """The figure with a given height; unchanged for None.

    Raises:
        InputError: if the height is not a whole number, or leaves no room for panels.
    """
    if height is None:
        return figure
    margin = figure.layout.margin
    taken = (margin.t or 0) + (margin.b or 0)
    try:
        pixels = index(height)
    except TypeError:
        raise InputError(f"height is {height!r}; expected pixels, a whole number") from None
    if pixels < taken + _LEAST:
        raise InputError(
            f"height is {pixels}; expected pixels, at least {taken + _LEAST} (titles and legend "
            f"take {taken})"
        )
    return figure.update_layout(height=pixels)


def _explained(plot: Callable[..., go.Figure], draw: Callable[..., go.Figure]) -> Any:
    """`plot` with the options of `draw` in its signature and docstring, for `help` and editors."""

    @wraps(plot)
    def explained(self: Shown, *args: Any, **options: Any) -> go.Figure:
        return plot(self, *args, **options)

    def parameters(of: Callable, *kinds: Any) -> list[inspect.Parameter]:
        return [p for p in inspect.signature(of).parameters.values() if p.kind in kinds]

    usual = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    own, only = parameters(draw, *usual), parameters(plot, inspect.Parameter.KEYWORD_ONLY)
    names = {p.name for p in own}
    signature = inspect.signature(draw)
    explained.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own, *(p for p in only if p.name not in names)]
    )
    shared = inspect.getdoc(plot) or ""
    explained.__doc__ = f"{inspect.getdoc(draw)}\n\n{shared.partition(chr(10) * 2)[2]}"
    return explained
