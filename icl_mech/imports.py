"""Imports without the garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Let no garbage be looked for while libraries are imported.

    Imports make many objects that stay, and no garbage. The collector would look through all of
    them, and through those of a loaded model, again and again: a quarter of the time that torch and
    TransformerLens take, two thirds of that of xarray and plotly beside a loaded model.

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
