"""`Task`: pairs of an input and the answers that count as right; `Episode`: what a prompt asks."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from icl_mech.errors import InputError, shown
from icl_mech.tasks.text import check_text, is_blank, look

#: The most characters of an input and of an answer. Demonstrations show both in full: with answers
#: of 300 characters, a scan of 8 prompts of the packaged model takes a minute on one core.
LONGEST_INPUT, LONGEST_ANSWER = 10_000, 300


@dataclass(frozen=True)
class Pair:
    """An input `x` and its accepted answers; the first one is shown in demonstrations."""

    x: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.x, str):
            raise InputError(f"an input is {shown(self.x)}; expected text")
        texts = isinstance(self.answers, tuple) and all(isinstance(a, str) for a in self.answers)
        if not texts:
            raise InputError(
                f"the answers to {shown(self.x)} are {shown(self.answers)}; expected a tuple of "
                "texts, such as ('puppy',)"
            )
        _check("input", self.x, LONGEST_INPUT)
        if is_blank(self.x):
            raise InputError(f"an empty input{_hidden(self.x)}; expected text")
        for answer in self.answers or ("",):
            _check("answer", answer, LONGEST_ANSWER)
            if is_blank(answer):
                raise InputError(
                    f"an empty answer for input {shown(self.x)}{_hidden(answer)}; expected text"
                )

    @property
    def y(self) -> str:
        """The answer that demonstrations show."""
        return self.answers[0]


@dataclass(frozen=True)
class Task:
    """A mapping from inputs to answers.

    Attributes:
        name: as `load_task` knows it.
        category: `"algorithmic"`, `"translation"`, `"linguistic"`, `"knowledge"`, `"pos"`,
            `"bitwise"`, `"classification"` or `"user"`.
        description: one line.
        pairs: every input once (words that look the same are one, see `tasks.text.look`).
        instruction: a line that names the task, for prompts that begin with one; may be empty.
    """

    name: str
    category: str
    description: str
    pairs: tuple[Pair, ...]
    instruction: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or is_blank(self.name):
            raise InputError(f"a task is named {shown(self.name)}; expected text")
        for what in ("name", "category", "description", "instruction"):
            check_text(f"the task's {what}", getattr(self, what))
        if isinstance(self.pairs, str | bytes) or not isinstance(self.pairs, Iterable):
            raise InputError(
                f"the pairs of task {shown(self.name)} are {shown(self.pairs)}; expected a tuple "
                "of Pairs"
            )
        object.__setattr__(self, "pairs", tuple(self.pairs))
        seen: dict[str, Pair] = {}
        for pair in self.pairs:
            if not isinstance(pair, Pair):
                raise InputError(
                    f"task {shown(self.name)} has {shown(pair)} among its pairs; expected a Pair "
                    "each (Task.from_pairs({'dog': 'puppy'}, 'name') makes them of a dict)"
                )
            # Words that look the same count as one: otherwise the query could be shown.
            known = seen.setdefault(look(pair.x), pair)
            if known is not pair:
                raise InputError(
                    f"task {shown(self.name)}: input {shown(pair.x)} appears twice"
                    f"{as_typed(known, pair)}, with answers {shown(known.y)} and {shown(pair.y)}; "
                    "expected one row per input"
                )

    @staticmethod
    def from_pairs(
        pairs: Any, name: str = "pairs", description: str = "pairs", instruction: str = ""
    ) -> "Task":
        """Make a task from a dict, a list of pairs, or a data frame.

        >>> Task.from_pairs({"dog": "puppy", "cat": ["kitten", "kitty"]}, "young")
        Task('young', user, 2 pairs: pairs)
        >>> Task.from_pairs([("dog", "puppy"), ("cat", "kitten")]).pairs[1].y
        'kitten'

        Args:
            pairs: from every input to its answer, or to several accepted answers; or (input,
                answer)s; or a frame of pandas with the columns `input` and `output`, or with two.
            name: of the task in results.
            description: one line.
            instruction: a line that names the task, such as `"Write the young of the animal."`.

        Raises:
            InputError: where it is none of these, or an input or an answer is no text, or is empty.
        """
        return Task(name, "user", description, tuple(_pairs(pairs)), instruction)

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Task({self.name!r}, {self.category}, {len(self)} pairs: {self.description})"

    def labels(self) -> Counter[str]:
        """How often each answer occurs."""
        return Counter(pair.y for pair in self.pairs)


def _pairs(pairs: Any) -> Iterator[Pair]:
    """Pairs, whatever they were given as."""
    if hasattr(pairs, "itertuples"):  # a data frame; pandas need not be imported to know one
        names = [n for n in ("input", "output") if n in pairs.columns]
        if len(names) != 2 and len(pairs.columns) != 2:
            raise InputError(
                f"a frame with the columns {', '.join(map(str, pairs.columns))}; expected input "
                "and output, or two columns"
            )
        rows = (pairs[names] if len(names) == 2 else pairs).itertuples(index=False, name=None)
    elif isinstance(pairs, Mapping):
        rows = iter(pairs.items())
    elif isinstance(pairs, Iterable) and not isinstance(pairs, str):
        rows = iter(pairs)
    else:
        raise InputError(
            f"pairs is {shown(pairs)}; expected a dict from inputs to answers, a list of (input, "
            "answer)s, or a data frame"
        )
    for row in rows:
        if isinstance(row, Pair):
            yield row
            continue
        if isinstance(row, str) or not isinstance(row, Sequence) or len(row) != 2:
            raise InputError(f"pairs holds {shown(row)}; expected (input, answer), or a Pair")
        x, y = row
        one = isinstance(y, str | Mapping) or not isinstance(y, Iterable)
        yield Pair(x, (y,) if one else tuple(y))


@dataclass(frozen=True)
class Episode:
    """One demonstration set with the query it is asked about.

    Attributes:
        demonstrations: what the prompt shows.
        query: what it asks, with the right answers.
        dummies: inputs that stand in for the query when theta is read (Hendel et al., section
            3.2): neither the query nor among the demonstrations.
        wrong: wrong answers that have a name, such as `("wrong_direction", ("B", "C"))`.
        instruction: a line before the demonstrations; empty where there is none.
    """

    demonstrations: tuple[Pair, ...]
    query: Pair
    dummies: tuple[Pair, ...]
    wrong: tuple[tuple[str, tuple[str, ...]], ...] = ()
    instruction: str = ""


def as_typed(known: Pair, again: Pair) -> str:
    """A note for messages on two inputs that look the same but are encoded differently.

    >>> as_typed(Pair("a b", ("c",)), Pair("a\\xa0b", ("c",)))
    " ('a b' and 'a\\\\xa0b' look the same)"
    """
    if known.x == again.x:
        return ""
    return f" ({known.x!a} and {again.x!a} look the same)"


def _check(what: str, text: str, longest: int) -> None:
    check_text(what, text)
    if len(text) > longest:
        raise InputError(
            f"an {what} of {len(text):,} characters; expected at most {longest:,}: every "
            "demonstration shows it in full, and the time of a run grows with the prompt's length"
        )


def _hidden(text: str) -> str:
    """A note for messages on text that has only invisible characters."""
    return f" ({text!a}: nothing of it can be seen)" if text.strip() else ""
