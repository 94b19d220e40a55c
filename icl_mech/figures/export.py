"""Figures -> files."""

import os
from pathlib import Path

import plotly.graph_objects as go

from icl_mech.errors import InputError, choose
from icl_mech.results import write_whole

STATIC = (".png", ".svg", ".pdf")
_CONFIG = {"displaylogo": False, "responsive": True}


def check_target(path: Path) -> None:
    """Fail before hours of work, not after, where a figure and its data could not be written.

    Raises:
        InputError: where the suffix is unknown, a folder has the name of the figure or of the data
            beside it (`.nc`), or the folder that it goes into cannot be made or written.
    """
    # os.path's answer no to a name that is too long or hidden; pathlib's raise.
    if os.path.isdir(path):
        raise InputError(
            f"{path} is a folder; expected the name of a file, as {path / 'name.html'}"
        )
    choose(path.suffix, (".html", *STATIC), "kind of figure")
    data = path.with_suffix(".nc")
    if os.path.isdir(data):
        raise InputError(
            f"cannot write the data of {path}: {data} is a folder; expected another name"
        )
    for parent in path.parents:
        if os.path.exists(parent) and not os.path.isdir(parent):
            raise InputError(f"cannot write {path}: {parent} is a file; expected a folder")
    probe = path.parent / f".{path.name}.check"
    try:
        write_whole(probe, lambda file: file.touch()).unlink()
    except InputError as error:
        # The user gave no such name as the probe's.
        raise InputError(str(error).replace(str(probe), str(path))) from error


def export(figure: go.Figure, path: str | Path) -> Path:
    """Write a figure: `.html` opens offline (plotly.js is inside), `.png/.svg/.pdf` need Chrome.

    Raises:
        InputError: where the suffix is unknown, the folder cannot be written, or a static image
            is asked for without kaleido or Chrome.
    """
    path = Path(path)
    choose(path.suffix, (".html", *STATIC), "kind of figure")
    if path.suffix == ".html":
        shown, height = fills_page(figure)

        def write(to: Path) -> None:
            shown.write_html(
                to, include_plotlyjs=True, config=_CONFIG, auto_play=False, default_height=height
            )

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


def fills_page(figure: go.Figure) -> tuple[go.Figure, str]:
    """The figure without a height of its own, and the height that a page gives it (in CSS).

    As tall as the page, but not lower than it was made, nor more than twice as tall.
    """
    own = figure.layout.height or 450  # plotly's
    shown = go.Figure(figure).update_layout(height=None, autosize=True)
    return shown, f"max({own}px, min({2 * own}px, 100vh - 24px))"
