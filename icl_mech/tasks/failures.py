"""Tasks, by name, on which one task vector should fail, and controls on which it should work.

The argument: theta is read before the query is known, and is one vector at one token. It can say
which fixed mapping to apply (Hendel et al. 2023, section 3) or which answer to give. It cannot hold
a table of pairs that only this prompt defines. In a linear transformer it acts as a single
demonstration, which is of rank one and cannot hold a bijection (Dong et al. 2025,
arXiv 2506.09048).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain
from string import ascii_uppercase

from icl_mech.errors import InputError, choose
from icl_mech.tasks import composing
from icl_mech.tasks.builtin import column_pairs, table
from icl_mech.tasks.context import ContextTask, Prediction
from icl_mech.tasks.generators import letter_lists, to_lower, to_upper
from icl_mech.tasks.grammar import lexicon
from icl_mech.tasks.seeds import count, whole
from icl_mech.tasks.task import Pair

#: Pairs of a lookup prompt, and how often each is shown. Few pairs shown repeatedly suit small
#: models.
N_PAIRS, REPEATS = 4, 2
#: Demonstrations of tasks that mix two directions or two classes, and of the other tasks.
MIXED_SHOTS, SHOTS = 10, 8
#: Share of the frequent label in the task with skewed labels.
MAJORITY = 0.8
NUMBERS = ("one", "two", "three", "four")

TABLE = Prediction(
    "label prior",
    "The pairs are new in every prompt and theta is read before the key is asked: one vector would "
    "have to hold the whole table. It may know which words were shown, not which belongs to the "
    "key.",
)
INVERSE = Prediction(
    "about half",
    "A vector that acts as one demonstration is of rank one and cannot hold a mapping and its "
    "inverse: it serves one direction, and copies the input or answers the wrong way in the other.",
)
LABELS = Prediction(
    "label prior",
    "Which of two words stands for which class is said in this prompt only: a table of two rows. "
    "The vector may carry both words, and a guess between them is right half of the time.",
)
FIXED = Prediction(
    "works",
    "One fixed function of the input, which the weights may know: the vector need only name it.",
)
ONE_ANSWER = Prediction(
    "works", "The same answer whatever is asked: the vector need only hold that one word."
)
SKEWED = Prediction(
    "label prior",
    "The frequent label is right so often that a vector which holds it alone does almost as well "
    "as the prompt: accuracy above the label prior is what counts.",
)


def list_failures() -> list[str]:
    """Names of the tasks of the category `failure`.

    >>> list_failures()[:3]
    ['lookup', 'lookup_once', 'lookup_letter']
    """
    return list(_BUILD)


@cache
def load_failure(name: str) -> ContextTask:
    """A task of the category `failure` by name.

    >>> load_failure("lookup").name
    'lookup'

    Raises:
        InputError: where no such task exists.
    """
    return _BUILD[choose(name, _BUILD, "failure task")](name)


def _keys() -> tuple[str, ...]:
    return tuple(dict.fromkeys(row["english"][0] for row in table("words")))


def _values() -> tuple[str, ...]:
    """Nouns that are not among the keys."""
    keys = set(_keys())
    nouns = dict.fromkeys(row["singular"][0] for row in table("nouns"))
    return tuple(noun for noun in nouns if noun not in keys)


def make_lookup_task(
    name: str = "lookup",
    *,
    n_pairs: int = N_PAIRS,
    repeats: int = REPEATS,
    at: int | None = None,
    keys: Sequence[str] | None = None,
    values: Sequence[str] | None = None,
    what: str = "the queried word is among the demonstrations: its answer there",
) -> ContextTask:
    """Make a lookup task of chosen difficulty: fewer pairs and more repeats are easier.

    >>> make_lookup_task("six", n_pairs=6, repeats=1).name
    'six'

    Args:
        name: of the task.
        n_pairs: the number of different pairs, drawn anew for every prompt; guessing one of the
            values shown is right in 1 of `n_pairs` cases.
        repeats: how often each pair is shown, in a new order each time.
        at: which demonstration is asked again: 0 the first, -1 the last, None a random one.
        keys: the inputs; English words by default.
        values: the answers; nouns that are no keys by default.
        what: the beginning of the task's description.

    Raises:
        InputError: where a count is too small, `at` is none of these, or there are fewer values
            than pairs.
    """
    keys = _keys() if keys is None else tuple(keys)
    values = _values() if values is None else tuple(values)
    n_pairs, repeats = whole("n_pairs", n_pairs), whole("repeats", repeats)
    if n_pairs < 2 or repeats < 1:
        raise InputError(
            f"n_pairs is {n_pairs} and repeats {repeats}; expected at least 2 pairs, each at least "
            "once"
        )
    count("n_pairs x repeats", n_pairs * repeats)
    if at not in (None, 0, -1):
        raise InputError(f"at is {at}; expected 0 (the first), -1 (the last) or None (any)")
    if len(set(values)) < max(n_pairs, len(values)):
        raise InputError(
            f"{len(set(values))} different values for {n_pairs} pairs; expected at least as many, "
            "each once"
        )
    return ContextTask(
        name,
        f"{what} ({n_pairs} new pairs per prompt, each shown {repeats}x)",
        TABLE,
        keys,
        values,
        keys,
        n_pairs * repeats,
        n_pairs - 1,
        composing.lookup(values, n_pairs, repeats, at),
    )


def _constant(name: str) -> ContextTask:
    keys, values = _keys(), _values()
    compose = composing.constant(values, SHOTS)
    what = "any word -> the answer of every demonstration, another one in each prompt"
    return ContextTask(name, what, ONE_ANSWER, keys, values, keys, SHOTS, SHOTS, compose)


#: A pair, and the pair in the opposite direction.
_Way = tuple[Pair, Pair]


def _both_ways(name: str, what: str, pairs: Callable[[], list[_Way]]) -> ContextTask:
    ways = pairs()
    forward = {there.x: there for there, _ in ways}
    backward = {there.x: back for there, back in ways}
    return ContextTask(
        name,
        f"{what}, both directions in one prompt",
        INVERSE,
        tuple(forward),
        tuple(dict.fromkeys(answer for pair in chain(*ways) for answer in pair.answers)),
        tuple(pair.x for pair in chain(*ways)),
        MIXED_SHOTS,
        MIXED_SHOTS,
        composing.both_ways(forward, backward, MIXED_SHOTS),
    )


def _letters() -> list[_Way]:
    return list(zip(to_upper(), to_lower(), strict=True))


def _rows(name: str, there: tuple[str, str], back: tuple[str, str]) -> list[_Way]:
    """Rows of a table in both directions, without words that are the input of two pairs."""
    ways = list(zip(column_pairs(name, *there), column_pairs(name, *back), strict=True))
    counts = Counter(pair.x.casefold() for pair in chain(*ways))
    return [way for way in ways if all(counts[pair.x.casefold()] == 1 for pair in way)]


def _classes(*slots: str) -> dict[str, int]:
    return {word: c for c, slot in enumerate(slots) for word in lexicon()[slot][1]}


def _fresh_labels(name: str) -> ContextTask:
    classes, values = _classes("person", "thing"), _values()
    return ContextTask(
        name,
        "person or thing -> the word that stands for it in this prompt",
        LABELS,
        tuple(classes),
        values,
        tuple(classes),
        MIXED_SHOTS,
        MIXED_SHOTS,
        composing.labelled(classes, values, MIXED_SHOTS),
    )


def _skewed_labels(name: str) -> ContextTask:
    labels = ("person", "thing")
    classes = _classes(*labels)
    persons = [word for word, c in classes.items() if c == 0]
    n_things = round(len(persons) * (1 / MAJORITY - 1))
    items = (*persons, *[word for word, c in classes.items() if c == 1][:n_things])
    compose = composing.mapped(lambda word: labels[classes[word]], lambda word: (), "", MIXED_SHOTS)
    what = f"person or thing -> which of the two; {MAJORITY:.0%} are persons"
    return ContextTask(name, what, SKEWED, items, labels, items, MIXED_SHOTS, MIXED_SHOTS, compose)


def _list(
    name: str,
    what: str,
    answers: Callable[[], tuple[str, ...]],
    answer: Callable[[str], str],
    wrong: Callable[[str], list[str]],
) -> ContextTask:
    items = tuple(",".join(letters) for letters in letter_lists())
    compose = composing.mapped(answer, wrong, "another_element", SHOTS)
    return ContextTask(name, what, FIXED, items, answers(), items, SHOTS, SHOTS, compose)


def _reversed(text: str) -> str:
    return ",".join(text.split(",")[::-1])


def _counted(text: str) -> str:
    return NUMBERS[len(text.split(",")) - 1]


_BUILD: dict[str, Callable[[str], ContextTask]] = {
    "lookup": make_lookup_task,
    "lookup_once": partial(make_lookup_task, repeats=1),
    "lookup_letter": partial(
        make_lookup_task,
        values=tuple(ascii_uppercase),
        what="the queried word is among the demonstrations: its letter there",
    ),
    "copy_first": partial(
        make_lookup_task, at=0, what="always the first demonstration is asked again"
    ),
    "copy_last": partial(
        make_lookup_task, at=-1, what="always the last demonstration is asked again"
    ),
    "constant": _constant,
    "case_both_ways": partial(_both_ways, what="lower <-> upper case", pairs=_letters),
    "en_fr_both_ways": partial(
        _both_ways,
        what="English <-> French",
        pairs=partial(_rows, "words", ("english", "french"), ("french", "from_french")),
    ),
    "gerund_both_ways": partial(
        _both_ways,
        what="verb <-> gerund",
        pairs=partial(_rows, "verbs", ("base", "gerund"), ("gerund", "base")),
    ),
    "fresh_labels": _fresh_labels,
    "skewed_labels": _skewed_labels,
    "reverse_list": partial(
        _list,
        what="list of letters -> the list backwards",
        answers=lambda: tuple(_reversed(",".join(row)) for row in letter_lists()),
        answer=_reversed,
        wrong=lambda text: text.split(",")[:-1],
    ),
    "count_list": partial(
        _list,
        what="list of letters -> how many they are, as a word",
        answers=lambda: NUMBERS[1:],
        answer=_counted,
        wrong=lambda text: text.split(","),
    ),
}
