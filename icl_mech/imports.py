"""Imports without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch the garbage collector off while libraries are imported.

    Imports create many lasting objects and no garbage. If a model is loaded, the collector would
    scan all of its objects again and again, which takes two thirds of the import time of xarray and
    plotly. (Before the first model is loaded nothing is gained: the collector then runs while the
    model loads.)

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
