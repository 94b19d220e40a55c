"""How a result shows itself as the last line of a notebook's cell: its figure, then its table."""

import json
from typing import Any, Protocol, runtime_checkable

import plotly.graph_objects as go
import plotly.io

#: What plotly chooses in Jupyter by itself: JupyterLab shows it, and exported pages do not.
_PLOTLYS_OWN = "plotly_mimetype"


@runtime_checkable
class Shown(Protocol):
    """A result, or a picture of one prompt."""

    def plot(self) -> go.Figure:
        """The figure."""

    def _repr_html_(self) -> str:
        """The table."""


def show(result: Shown) -> None:
    """Display a result in a notebook; elsewhere (IPython in a terminal) print it.

    Where the user has chosen a renderer of plotly (`plotly.io.renderers.default`), that shows the
    figure.
    """
    from IPython import get_ipython
    from IPython.display import display

    if not hasattr(get_ipython(), "kernel"):
        print(repr(result))
        return
    figure = result.plot()
    if plotly.io.renderers.default == _PLOTLYS_OWN:
        display(bundle(figure), raw=True)
    else:
        display(figure)
    display({"text/html": result._repr_html_(), "text/plain": repr(result)}, raw=True)


def bundle(figure: go.Figure) -> dict[str, Any]:
    """A figure for JupyterLab, which draws it by itself, and for pages that are exported.

    A page loads plotly's script from the network, so that the notebook remains small;
    `plotly.io.renderers.default = "plotly_mimetype+notebook"` puts the script into the notebook.
    """
    return {
        "application/vnd.plotly.v1+json": json.loads(figure.to_json()),
        "text/html": figure.to_html(full_html=False, include_plotlyjs="cdn"),
        "text/plain": f"Figure of {len(figure.data)} traces",
    }
