"""Figures -> files."""

from pathlib import Path

import plotly.graph_objects as go

from icl_mech.errors import InputError, choose
from icl_mech.results import write_whole

STATIC = (".png", ".svg", ".pdf")
_CONFIG = {"displaylogo": False, "responsive": True}


def check_target(path: Path) -> None:
    """Fail before hours of work, not after, where a figure could not be written.

    Raises:
        InputError: where the suffix is unknown or the folder cannot be written.
    """
    choose(path.suffix, (".html", *STATIC), "kind of figure")
    write_whole(path.parent / f".{path.name}.check", lambda probe: probe.touch()).unlink()


def export(figure: go.Figure, path: str | Path) -> Path:
    """Write a figure: `.html` opens offline (plotly.js is inside), `.png/.svg/.pdf` need Chrome.

    Raises:
        InputError: where the suffix is unknown, the folder cannot be written, or a static image
            is asked for without kaleido or Chrome.
    """
    path = Path(path)
    choose(path.suffix, (".html", *STATIC), "kind of figure")
    if path.suffix == ".html":

        def write(to: Path) -> None:
            figure.write_html(to, include_plotlyjs=True, config=_CONFIG, auto_play=False)

        return write_whole(path, write)
    try:
        return write_whole(path, lambda to: figure.write_image(to, width=1100, scale=2))
    except (ValueError, RuntimeError, ImportError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"cannot write {path}: static images need kaleido and Chrome or Chromium "
            f"({type(error).__name__}); expected both (pip install 'icl-mech[images]'), "
            "or write .html"
        ) from error
