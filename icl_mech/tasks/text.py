"""Checks of text: characters that no prompt can hold, and words that look the same."""

import os
import re
import unicodedata
from pathlib import Path
from typing import Any

from icl_mech.errors import InputError, shown

#: Control characters but tabs and line breaks, and halves of characters (lone surrogates).
_UNUSABLE = re.compile("[\x00-\x08\x0e-\x1f\x7f\ud800-\udfff]")
#: Invisible characters that are no format characters: joiners, variation selectors.
_UNSEEN = re.compile("[\u034f\u180b-\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef]")
#: Format characters that are visible: the tags in the flags of England, Scotland and Wales.
_TAGS = range(0xE0020, 0xE0080)
#: Letters and symbols without ink: Hangul fillers, the empty Braille pattern.
_BLANK = set("\u115f\u1160\u2800\u3164\uffa0")


def check_text(what: str, text: Any) -> None:
    """Refuse what is no text, and text that tokenizers, files or terminals cannot handle.

    >>> check_text("answer", "dog\\x07")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    icl_mech.errors.InputError: answer 'dog\\x07' holds a control character, '\\x07'; expected...

    Raises:
        InputError: where it is no text, or holds a control character (but tabs and line breaks) or
            half of a character (a lone surrogate), naming the first.
    """
    if not isinstance(text, str):
        raise InputError(f"{what} is {shown(text)} ({type(text).__name__}); expected text")
    bad = _UNUSABLE.search(text)
    if bad:
        kind = "a control character"
        if ord(bad[0]) >= 0xD800:
            kind = "half of a character (or a byte that is not UTF-8)"
        raise InputError(
            f"{what} {shown(text)} holds {kind}, {bad[0]!r}; expected text that UTF-8 can write, "
            "without control characters"
        )


def as_path(what: str, given: Any) -> Path:
    """A path that a caller gives, as text or as a path.

    Raises:
        InputError: where it is neither, or no file can have the name.
    """
    if not isinstance(given, str | os.PathLike) or not isinstance(os.fspath(given), str):
        raise InputError(f"{what} is {shown(given)} ({type(given).__name__}); expected a path")
    check_text(what, os.fspath(given))
    return Path(given)


def is_blank(text: str) -> bool:
    """Whether a text has no visible character.

    >>> is_blank(" "), is_blank("zero\u200bwidth"), is_blank("\u200b")
    (True, False, True)
    """
    return all(c.isspace() or _is_unseen(c) or c in _BLANK for c in text)


def look(text: str) -> str:
    """A form that is equal for words that look the same, however they are encoded.

    Composed and decomposed accents (NFC and NFD) count as equal, and so do all kinds of space;
    invisible characters are ignored. This is for comparisons only: prompts show words as written.

    >>> look("e\u0301te\u0301") == look("été"), look("zero\u200bwidth") == look("zerowidth")
    (True, True)
    """
    if text.isascii():
        return text.replace("\t", " ")
    # Invisible characters are removed first: one can separate a letter from its accent.
    seen = (" " if c.isspace() else c for c in text if not _is_unseen(c))
    return unicodedata.normalize("NFC", "".join(seen))


def _is_unseen(character: str) -> bool:
    return (
        unicodedata.category(character) == "Cf" and ord(character) not in _TAGS
    ) or _UNSEEN.match(character) is not None
