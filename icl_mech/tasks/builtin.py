"""The 18 tasks of Hendel et al. 2023 (section 3, table 1; our own data).

A cell of a table in `data/` lists all right words, separated by `|`. The first one is asked and
shown; the others are accepted as answers. Accepted are:

- translations in any part of speech and sense that the word has by itself, masculine or feminine,
  and in the plural if both numbers are written alike (*fish*). English answers have a column for
  each source language: *bois* is a wood or a forest, *madera* is timber;
- every opposite in common use. If a word's opposite is itself a query, the word is among its
  answers;
- other names of the same thing (*Kiev*, *Farsi*); the capital by law (listed first) and the one in
  fact; the majority's confession in addition to its religion.

Never accepted are translations that are spelled like the input (*force*), which copying would give,
and spellings that are wrong in the language (*monday*).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from icl_mech.tasks import generators
from icl_mech.tasks.task import Pair, Task


@dataclass(frozen=True)
class Spec:
    """Where a built-in task comes from: two columns of a table, or a generator."""

    name: str
    category: str
    description: str
    source: tuple[str, str, str] | Callable[[], list[Pair]]
    aliases: tuple[str, ...] = ()


SPECS = (
    Spec("next_letter", "algorithmic", "letter -> the next letter", generators.next_letter),
    Spec(
        "previous_letter",
        "algorithmic",
        "letter -> the letter before it",
        generators.previous_letter,
        ("prev_letter",),
    ),
    Spec("list_first", "algorithmic", "list of letters -> its first", generators.list_first),
    Spec("list_last", "algorithmic", "list of letters -> its last", generators.list_last),
    Spec("to_upper", "algorithmic", "letter -> upper case", generators.to_upper, ("to_uppercase",)),
    Spec("to_lower", "algorithmic", "letter -> lower case", generators.to_lower, ("to_lowercase",)),
    Spec("fr_en", "translation", "French word -> English", ("words", "french", "from_french")),
    Spec("en_fr", "translation", "English word -> French", ("words", "english", "french")),
    Spec("es_en", "translation", "Spanish word -> English", ("words", "spanish", "from_spanish")),
    Spec("en_es", "translation", "English word -> Spanish", ("words", "english", "spanish")),
    Spec(
        "present_gerund",
        "linguistic",
        "verb -> gerund",
        ("verbs", "base", "gerund"),
        ("present_simple_gerund",),
    ),
    Spec(
        "present_past",
        "linguistic",
        "verb -> simple past",
        ("verbs", "base", "past"),
        ("present_simple_past_simple", "present_past_simple"),
    ),
    Spec(
        "plural_singular", "linguistic", "plural noun -> singular", ("nouns", "plural", "singular")
    ),
    Spec("antonyms", "linguistic", "word -> its opposite", ("antonyms", "word", "antonym")),
    Spec("country_capital", "knowledge", "country -> capital", ("countries", "country", "capital")),
    Spec(
        "person_language",
        "knowledge",
        "famous person -> native language",
        ("people", "person", "language"),
    ),
    Spec(
        "location_continent",
        "knowledge",
        "place -> continent",
        ("locations", "location", "continent"),
    ),
    Spec(
        "location_religion",
        "knowledge",
        "place -> majority religion",
        ("religions", "location", "religion"),
    ),
)


@cache
def table(name: str) -> tuple[dict[str, tuple[str, ...]], ...]:
    """The rows of a table in `data/`, each a mapping from column to the entries of its cell."""
    text = files("icl_mech.tasks").joinpath(f"data/{name}.tsv").read_text(encoding="utf-8")
    header, *rows = (line.split("\t") for line in text.splitlines())
    cells = ([tuple(cell.split("|")) for cell in row] for row in rows)
    return tuple(dict(zip(header, row, strict=True)) for row in cells)


def column_pairs(name: str, source: str, target: str) -> list[Pair]:
    """Pairs of two columns: the first entry of the source cell, all entries of the target cell."""
    return [Pair(row[source][0], row[target]) for row in table(name)]


def instruction_of(name: str) -> str:
    """The line that names a built-in task or a task of a family.

    >>> instruction_of("country_capital")
    'Write the capital of the country.'
    """
    return instructions()[name]


@cache
def instructions() -> dict[str, str]:
    """Task -> the line that names it, for all built-in tasks and all tasks of families."""
    return {row["task"][0]: row["instruction"][0] for row in table("instructions")}


@cache
def build(spec: Spec) -> Task:
    """The task that `spec` describes."""
    pairs = spec.source() if callable(spec.source) else column_pairs(*spec.source)
    return Task(spec.name, spec.category, spec.description, tuple(pairs), instruction_of(spec.name))
