"""Pairs of the algorithmic tasks (Hendel et al. 2023, table 1), computed when they are loaded."""

import random
from itertools import pairwise
from string import ascii_lowercase, ascii_uppercase

from icl_mech.tasks.task import Pair

#: The number of lists in `list_first` and `list_last`, and the seed that draws them.
N_LISTS = 600
LIST_SEED = 0


def next_letter() -> list[Pair]:
    """a -> b, ..., y -> z.

    >>> next_letter()[0]
    Pair(x='a', answers=('b',))
    """
    return [Pair(a, (b,)) for a, b in pairwise(ascii_lowercase)]


def previous_letter() -> list[Pair]:
    """b -> a, ..., z -> y.

    >>> previous_letter()[0]
    Pair(x='b', answers=('a',))
    """
    return [Pair(b, (a,)) for a, b in pairwise(ascii_lowercase)]


def to_upper() -> list[Pair]:
    """a -> A, ..., z -> Z.

    >>> to_upper()[0]
    Pair(x='a', answers=('A',))
    """
    return [Pair(a, (b,)) for a, b in zip(ascii_lowercase, ascii_uppercase, strict=True)]


def to_lower() -> list[Pair]:
    """A -> a, ..., Z -> z.

    >>> to_lower()[0]
    Pair(x='A', answers=('a',))
    """
    return [Pair(b, (a,)) for a, b in zip(ascii_lowercase, ascii_uppercase, strict=True)]


def letter_lists() -> list[list[str]]:
    """Distinct lists of two to four different letters.

    >>> len(letter_lists()), letter_lists()[0]
    (600, ['y', 'n', 'b'])
    """
    rng = random.Random(LIST_SEED)
    lists: dict[str, list[str]] = {}
    while len(lists) < N_LISTS:
        letters = rng.sample(ascii_lowercase, rng.randint(2, 4))
        lists[",".join(letters)] = letters
    return list(lists.values())


def list_first() -> list[Pair]:
    """a,b,c -> a.

    >>> list_first()[0]
    Pair(x='y,n,b', answers=('y',))
    """
    return [Pair(",".join(letters), (letters[0],)) for letters in letter_lists()]


def list_last() -> list[Pair]:
    """a,b,c -> c.

    >>> list_last()[0]
    Pair(x='y,n,b', answers=('b',))
    """
    return [Pair(",".join(letters), (letters[-1],)) for letters in letter_lists()]
