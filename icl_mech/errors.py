"""Errors that a user can act on: what was wrong, what was expected, the nearest valid choice."""

from collections.abc import Iterable
from difflib import get_close_matches


class IclMechError(Exception):
    """Base of every error that icl-mech raises on purpose."""


class InputError(IclMechError, ValueError):
    """The caller asked for something that does not exist or cannot work."""


class ModelError(IclMechError, RuntimeError):
    """A model, or a file it is read from, is damaged, unsupported, or returns nonsense."""


class NotFiniteError(ModelError):
    """A model returned NaN or infinity."""


def choose(value: str, options: Iterable[str], what: str) -> str:
    """Return `value` if it is one of `options`.

    Raises:
        InputError: naming the nearest option, and all of them.
    """
    known = list(options)
    if value in known:
        return value
    near = get_close_matches(value, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise InputError(f"unknown {what} {value!r}{hint} Choose from: {', '.join(known)}")


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), "")
