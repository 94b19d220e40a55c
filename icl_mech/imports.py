"""Imports without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Let no garbage be looked for while libraries are imported.

    Imports make many objects that stay, and no garbage. Beside a loaded model the collector would
    look through all of the model's objects again and again, which takes two thirds of the time that
    xarray and plotly take to import. (Before the first model is loaded nothing is gained in all:
    the collector then runs while it loads.)

    Example:
        >>> with uncollected():
        ...     import colorsys
        >>> gc.isenabled()
        True
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
