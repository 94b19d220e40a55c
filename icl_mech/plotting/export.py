"""Writes figures to files."""

import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import get_args

import plotly.graph_objects as go

from icl_mech.errors import InputError, choose
from icl_mech.files import PlotlyJs
from icl_mech.plotting.page import write_figure_page
from icl_mech.results import refuse_long, write_whole

STATIC = (".png", ".svg", ".pdf")
#: A program that draws an empty image, or prints the error and exits with code 1.
_TRY = """
import sys
try:
    import plotly.graph_objects as go
    go.Figure().to_image({!r})
except Exception as error:
    print(f"{{type(error).__name__}}: {{error.args[0] if error.args else ''}}", file=sys.stderr)
    sys.exit(1)
"""
#: Seconds within which a browser must draw an empty image.
PATIENCE = 60


def check_target(path: Path) -> None:
    """Refuse a path to which a figure and its data cannot be written, before anything is measured.

    Raises:
        InputError: where the suffix is unknown, a folder has the name of the figure or of the data
            beside it (`.nc`), the figure's folder cannot be made or written, or the figure is a
            static image and kaleido or a browser that starts is missing.

    Example:
        >>> from pathlib import Path
        >>> check_target(Path("figure.html"))
    """
    # For a name that is too long or hidden, os.path's functions return False; pathlib's raise.
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
    check_writable(path)
    if path.suffix != ".html":
        _try_browser(path)


def check_writable(path: Path) -> None:
    """Try to write into a file's folder; folders that are made for this are removed again.

    Raises:
        InputError: where it cannot be made or written, or a folder has the file's name.
    """
    if os.path.isdir(path):
        raise InputError(f"cannot write {path}: it is a folder; expected another name")
    for parent in path.parents:
        if os.path.exists(parent) and not os.path.isdir(parent):
            raise InputError(f"cannot write {path}: {parent} is a file; expected a folder")
    probe = path.parent / f".{path.name[:40]}.check"
    try:
        with suppress(NotADirectoryError, PermissionError):  # the probe's message is better
            refuse_long(path)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror}); expected a shorter name (most systems take "
            "255 bytes, and 4,096 for a whole path)"
        ) from error
    missing = [folder for folder in path.parents if not os.path.exists(folder)]
    try:
        write_whole(probe, lambda file: file.touch()).unlink()
    except InputError as error:
        # Name the user's file in the message, not the probe.
        raise InputError(str(error).replace(str(probe), str(path))) from error
    finally:
        for folder in missing:  # the innermost first
            with suppress(OSError):  # it was not made, or another process uses it by now
                folder.rmdir()


def export(
    figure: go.Figure,
    path: str | Path,
    caveats: Sequence[str] = (),
    plotlyjs: PlotlyJs = "inline",
) -> Path:
    """Write a figure: `.html` opens offline (plotly.js is inside), `.png/.svg/.pdf` need Chrome.

    Args:
        figure: what is drawn.
        path: where to.
        caveats: what to keep in mind, a line each; a page shows them below the figure.
        plotlyjs: from where a page loads plotly.js (4.8 MB): `"inline"`, from the page itself;
            `"cdn"`, from plotly's server, so that the page needs a network; `"directory"`, from
            `plotly.min.js` beside it, which is written once for all pages of a folder.

    Raises:
        InputError: where the suffix or `plotlyjs` is unknown, the folder cannot be written, or the
            figure is a static image and kaleido or a browser that starts is missing.

    Example:
        >>> import tempfile
        >>> path = export(go.Figure(), f"{tempfile.mkdtemp()}/figure.html")
        >>> path.name
        'figure.html'
    """
    path = Path(path)
    choose(path.suffix, (".html", *STATIC), "kind of figure")
    choose(plotlyjs, get_args(PlotlyJs), "place of plotly.js")
    if path.suffix == ".html":
        return write_figure_page(figure, path, caveats, plotlyjs)
    image = _image(figure, path)
    return write_whole(path, lambda to: to.write_bytes(image))


def _try_browser(path: Path) -> None:
    """Draw an empty image in a separate process, which can be stopped if the browser hangs.

    Raises:
        InputError: where it cannot be drawn, or takes longer than `PATIENCE` seconds.
    """
    program = _TRY.format(path.suffix[1:])
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:  # the browser ends when its control pipe closes
        raise _no_image(path, f"no answer in {PATIENCE} s") from None
    if done.returncode:
        raise _no_image(path, done.stderr.strip().rpartition("\n")[2])


def _image(figure: go.Figure, path: Path) -> bytes:
    """A figure as an image in the format of the path's suffix.

    Raises:
        InputError: where kaleido or a browser is missing, or the browser does not start.
    """
    try:
        content: bytes = figure.to_image(path.suffix.removeprefix("."), width=1100, scale=2)
    except Exception as error:  # from kaleido, the browser, or the driver between them
        first = error.args[0] if error.args else ""  # some errors have several arguments
        raise _no_image(path, f"{type(error).__name__}: {first}") from error
    return content


def _no_image(path: Path, why: str) -> InputError:
    """The error, with the first line of the driver's message only."""
    line = next(iter(why.strip().splitlines()), "no reason given").rstrip(".")
    return InputError(
        f"cannot write {path}: static images need kaleido and a Chrome or Chromium that starts "
        f"({line}); expected both (pip install 'icl-mech[images]'), or write .html"
    )
