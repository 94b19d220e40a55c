"""Words that name a task, listed by hand, to look for among a vector's top tokens.

They are in `naming.tsv`, in English, German, French and Spanish, since vocabularies are
multilingual, and of the same kinds for every task. A word is compared with a token's text without
the space before it and without regard to case. No word is an answer or an input of its task.
"""

from collections.abc import Mapping, Sequence
from importlib.resources import files

from icl_mech.errors import InputError


def _read() -> dict[str, tuple[str, ...]]:
    _, *lines = (files("icl_mech.lens") / "naming.tsv").read_text("utf-8").splitlines()
    rows = (line.split("\t") for line in lines)
    return {task: tuple(words.split()) for task, words in rows}


NAMING = _read()


def naming_words(more: Mapping[str, Sequence[str]] | None = None) -> dict[str, frozenset[str]]:
    """The words that name each task, in lower case; `more` adds or replaces lists of tasks.

    Raises:
        InputError: if a task has a text instead of a list of words.

    Example:
        >>> "hauptstadt" in naming_words()["country_capital"]
        True
    """
    for task, of in (more or {}).items():
        if isinstance(of, str):
            raise InputError(
                f"naming[{task!r}] is the text {of!r}; expected a list of words: {of.split()}"
            )
    words = {**NAMING, **(more or {})}
    return {task: frozenset(word.strip().casefold() for word in of) for task, of in words.items()}
