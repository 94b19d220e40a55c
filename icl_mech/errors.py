"""Errors that a user can act on: what was wrong, what was expected, the nearest valid choice."""

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Any

#: The most characters of a value that a message quotes.
_QUOTED = 80
#: Patterns that messages cut in the middle: a name of a file or folder, or a word, that is longer
#: than a quoted value; and a path of many folders. Each has the number of characters that are kept
#: at either end.
_LONG = ((re.compile(r"[^\s/]{90,}[^\s/:;,.]"), 25), (re.compile(r"\S{320,}[^\s:;,.]"), 80))
#: The least similarity (1: equal) at which an option is suggested for a misspelt value.
_ALIKE = 0.66
#: How much more similar the value must be if it resembles only one word of the option.
_WORD = 0.14


class IclMechError(Exception):
    """Base of every error that icl-mech raises on purpose.

    Names that are too long to read are cut in the middle.
    """

    def __init__(self, message: str = "") -> None:
        for long, kept in _LONG:
            for name in long.findall(message):
                message = message.replace(name, _cut(name, kept))
        super().__init__(message)


class InputError(IclMechError, ValueError):
    """The caller asked for something that does not exist or cannot work."""


class ModelError(IclMechError, RuntimeError):
    """A model, or a file it is read from, is damaged, unsupported, or returns nonsense."""


class NotFiniteError(ModelError):
    """A model returned NaN or infinity."""


def choose(value: str, options: Iterable[str], what: str) -> str:
    """Return `value` if it is one of `options`.

    Raises:
        InputError: listing all options, and suggesting the nearest if one is near.
    """
    known = list(options)
    if isinstance(value, str) and value in known:
        return value
    near = nearest(value, known) if isinstance(value, str) else None
    hint = f"; did you mean {near!r}?" if near else "."
    raise InputError(f"unknown {what} {shown(value)}{hint} Choose from: {', '.join(known)}")


def nearest(value: str, options: Iterable[str]) -> str | None:
    """The option that was probably meant: a misspelling of it, or one of its words.

    >>> nearest("antonym", ["antonyms", "to_upper"]), nearest("capital", ["country_capital"])
    ('antonyms', 'country_capital')
    >>> nearest("nope", ["antonyms", "to_upper"]) is None
    True
    """
    typed = value.lower()

    def alike(option: str) -> float:
        whole = option.lower()
        words = (_ratio(typed, word) for word in whole.replace("/", "_").split("_"))
        return max(_ratio(typed, whole), max(words) - _WORD)

    best = max(options, key=alike, default=None)
    return best if best is not None and alike(best) >= _ALIKE else None


def _ratio(one: str, other: str) -> float:
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def shown(value: Any) -> str:
    """A value as messages quote it; long ones are cut.

    >>> shown("short")
    "'short'"
    """
    try:
        text = repr(value)
    except RecursionError:
        return f"a {type(value).__name__} that is nested very deeply"
    except ValueError:  # Python does not print integers of more than 4,300 digits
        return f"a number of about {value.bit_length() * 3 // 10:,} digits"
    if len(text) <= _QUOTED:
        return text
    return f"{text[:_QUOTED]}... ({len(text):,} characters)"


def _cut(name: str, kept: int) -> str:
    return f"{name[:kept]}...({len(name):,} characters)...{name[-kept:]}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next(iter(str(error).splitlines()), "")
