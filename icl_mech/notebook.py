"""Displays a result in a notebook cell: its figure, then its table."""

from importlib.util import find_spec
from typing import Protocol, runtime_checkable

import plotly.graph_objects as go
import plotly.io

#: Plotly's default renderer in Jupyter: JupyterLab shows its figures, exported pages do not.
_PLOTLYS_OWN = "plotly_mimetype"


@runtime_checkable
class HasFigure(Protocol):
    """A result, or a picture of one prompt."""

    def plot(self) -> go.Figure:
        """The figure."""

    def _repr_html_(self) -> str:
        """The table."""


def show(result: HasFigure) -> None:
    """Display a result in a notebook; elsewhere (IPython in a terminal) print it.

    Plotly's default renderer in Jupyter keeps figures in a form that exported pages do not show. So
    plotly's script is put into the notebook once (5 MB), and pages of `jupyter nbconvert` show the
    figures, also offline. A renderer that the user chose (`plotly.io.renderers.default`) is kept;
    `"jupyterlab"` is plotly's default under another name. Without nbformat, which plotly needs to
    show a figure, only the table is shown.
    """
    from IPython import get_ipython
    from IPython.display import display

    if not hasattr(get_ipython(), "kernel"):
        print(repr(result))
        return
    if find_spec("nbformat") is None:
        print("no figure: plotly needs nbformat to show one (pip install nbformat)")
    else:
        if plotly.io.renderers.default == _PLOTLYS_OWN:
            plotly.io.renderers.default = f"{_PLOTLYS_OWN}+notebook"
        display(result.plot())
    display({"text/html": result._repr_html_(), "text/plain": repr(result)}, raw=True)
