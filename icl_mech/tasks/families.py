"""Families by name: tasks whose inputs are the same, from tables, generators and treebanks."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase

from icl_mech.errors import InputError, choose
from icl_mech.tasks import bitwise, pos
from icl_mech.tasks.builtin import instruction_of, table
from icl_mech.tasks.family import Family
from icl_mech.tasks.grammar import own_sentences
from icl_mech.tasks.seeds import check_seed
from icl_mech.tasks.task import Pair, Task
from icl_mech.tasks.text import check_text
from icl_mech.tasks.treebank import pos_family_from_conllu

#: `load_family("pos:en_ewt-ud-dev.conllu")` reads the sentences from a file.
TREEBANK = "pos:"


@dataclass(frozen=True)
class _Spec:
    """The names of a family's tasks, and a function that builds the family from a seed."""

    outputs: tuple[str, ...]
    build: Callable[[int], Family]


def list_families() -> list[str]:
    """Names of the families.

    >>> list_families()
    ['verbs', 'english_words', 'countries', 'letters', 'sentences', 'pos', 'bitwise']
    """
    return list(_SPECS)


def load_family(name: str, seed: int = 0) -> Family:
    """Load a family by name, or the part-of-speech tasks on a treebank.

    In `verbs`, `english_words`, `countries` and `letters` the answers to an input differ from one
    another and from the input. Other rows are left out: regular verbs (past and participle are the
    same), come, run and become (participle and base are the same), and words that are the same in
    two of the languages (*libro*). `Family.distinct` measures this.

    >>> len(load_family("bitwise").tasks)
    7

    Args:
        name: one of `list_families()`, or `"pos:<path>"` for the sentences of a CoNLL-U file.
        seed: of the random answers in `pos/null` and `bitwise/null`; nothing else depends on it.

    Raises:
        InputError: where no such family exists, a treebank cannot be used, or the seed is negative.
    """
    check_text("family", name)
    seed = check_seed(seed)
    if name.startswith(TREEBANK):
        return pos_family_from_conllu(name.removeprefix(TREEBANK), seed)
    return _build(choose(_key(name), _SPECS, "family"), seed)


def member_names() -> list[str]:
    """Names of the tasks of all families, as `load_task` knows them: `"verbs/gerund"`, ...

    >>> "bitwise/xor" in member_names()
    True
    """
    return [f"{name}/{output}" for name, spec in _SPECS.items() for output in spec.outputs]


def load_member(name: str) -> Task | None:
    """A task of a family by name (random answers drawn with seed 0); None if there is none.

    >>> load_member("bitwise/xor").name
    'bitwise/xor'

    Raises:
        InputError: where the name begins with `"pos:"` and the treebank or the task is not there.
    """
    if name.startswith(TREEBANK):
        path, slash, output = name.removeprefix(TREEBANK).rpartition("/")
        if slash and output in pos.OUTPUTS:
            return load_family(TREEBANK + path).task(output)
        if slash and os.path.isfile(path):
            choose(output, pos.OUTPUTS, "part-of-speech task")
        # All of it is the path: it must be a treebank, and then the task is not named.
        load_family(name)
        raise InputError(
            f"{name} is a family; expected one of its tasks, such as {name}/{pos.OUTPUTS[0]}"
        )
    if _key(name) not in member_names():
        return None
    family, _, output = _key(name).rpartition("/")
    return load_family(family).task(output)


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


@cache
def _build(name: str, seed: int) -> Family:
    return _SPECS[name].build(seed)


#: Inputs, each with the accepted answers of every task of its family.
_Rows = Sequence[tuple[str, tuple[tuple[str, ...], ...]]]


def _family(name: str, outputs: dict[str, tuple[str, str]], rows: _Rows) -> Family:
    """Tasks (name -> category, description) on the rows whose answers and input all differ."""
    kept = [(x, row) for x, row in rows if _all_differ(x, row)]
    tasks = (
        Task(
            f"{name}/{output}",
            category,
            description,
            tuple(Pair(x, row[i]) for x, row in kept),
            instruction_of(f"{name}/{output}"),
        )
        for i, (output, (category, description)) in enumerate(outputs.items())
    )
    return Family(name, tuple(tasks))


def _all_differ(x: str, row: tuple[tuple[str, ...], ...]) -> bool:
    words = [x, *(answer for answers in row for answer in answers)]
    return len(set(words)) == len(words)


def _columns(name: str, source: str, targets: Iterable[str]) -> _Rows:
    """Columns of a table: the first entry of the source cell, all entries of every target cell."""
    return [(row[source][0], tuple(row[target] for target in targets)) for row in table(name)]


_VERBS = {
    "gerund": ("linguistic", "verb -> gerund"),
    "past": ("linguistic", "verb -> simple past"),
    "participle": ("linguistic", "verb -> past participle"),
    "third_person": ("linguistic", "verb -> third person singular"),
}
_LANGUAGES = {
    "spanish": ("translation", "English word -> Spanish"),
    "french": ("translation", "English word -> French"),
    "italian": ("translation", "English word -> Italian"),
    "german": ("translation", "English word -> German"),
}
_WORDS = _LANGUAGES | {"upper": ("algorithmic", "English word -> upper case")}
_COUNTRIES = {
    "capital": ("knowledge", "country -> capital"),
    "continent": ("knowledge", "country -> continent"),
    "language": ("knowledge", "country -> official or main language"),
    "currency": ("knowledge", "country -> currency"),
}
_LETTERS = {
    "next": ("algorithmic", "letter -> the next letter"),
    "previous": ("algorithmic", "letter -> the letter before it"),
    "upper": ("algorithmic", "letter -> upper case"),
}


_SENTENCES = {
    "sentiment": ("classification", "sentence -> whether it is positive or negative"),
    "topic": ("classification", "sentence -> food, travel, film, sport or work"),
}


def _verbs() -> Family:
    rows = [row for name in ("verbs", "irregular_verbs") for row in _columns(name, "base", _VERBS)]
    return _family("verbs", _VERBS, rows)


def _english_words() -> Family:
    rows = [(x, (*row, (x.upper(),))) for x, row in _columns("words", "english", _LANGUAGES)]
    return _family("english_words", _WORDS, rows)


def _countries() -> Family:
    return _family("countries", _COUNTRIES, _columns("countries", "country", _COUNTRIES))


def _sentences() -> Family:
    """Sentences of our own: 20 for each of two sentiments and five topics."""
    return _family("sentences", _SENTENCES, _columns("sentences", "sentence", _SENTENCES))


def _letters() -> Family:
    # Neither a, which has none before it, nor z: every task asks every letter.
    around = zip(ascii_lowercase, ascii_lowercase[1:], ascii_lowercase[2:], strict=False)
    rows = [(x, ((after,), (before,), (x.upper(),))) for before, x, after in around]
    return _family("letters", _LETTERS, rows)


_SPECS = {
    "verbs": _Spec(tuple(_VERBS), lambda seed: _verbs()),
    "english_words": _Spec(tuple(_WORDS), lambda seed: _english_words()),
    "countries": _Spec(tuple(_COUNTRIES), lambda seed: _countries()),
    "letters": _Spec(tuple(_LETTERS), lambda seed: _letters()),
    "sentences": _Spec(tuple(_SENTENCES), lambda seed: _sentences()),
    "pos": _Spec(pos.OUTPUTS, lambda seed: pos.pos_family("pos", own_sentences(), seed)),
    "bitwise": _Spec(bitwise.OUTPUTS, lambda seed: bitwise.bitwise_family(seed=seed)),
}
