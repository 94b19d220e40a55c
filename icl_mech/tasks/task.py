"""`Task`: pairs of an input and the answers that count as right; `Episode`: what a prompt asks."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

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
            `"bitwise"` or `"user"`.
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
                    "each (Task.of('name', {'dog': 'puppy'}) makes them of a dict)"
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
    def of(
        name: str,
        pairs: Mapping[str, str | Sequence[str]],
        description: str = "pairs",
        instruction: str = "",
    ) -> "Task":
        """Make a task from a dict of pairs.

        >>> Task.of("young", {"dog": "puppy", "cat": ["kitten", "kitty"]})
        Task('young', user, 2 pairs: pairs)

        Args:
            name: of the task in results.
            pairs: from every input to its answer, or to several accepted answers.
            description: one line.
            instruction: a line that names the task, such as `"Write the young of the animal."`.

        Raises:
            InputError: where an input or an answer is no text, or is empty.
        """
        if not isinstance(pairs, Mapping):
            raise InputError(
                f"pairs is {shown(pairs)}; expected a dict from inputs to answers "
                "(dict(zip(inputs, answers)) makes one of two columns)"
            )
        one = (str, Mapping)
        found = (
            Pair(x, (y,) if isinstance(y, one) or not isinstance(y, Iterable) else tuple(y))
            for x, y in pairs.items()
        )
        return Task(name, "user", description, tuple(found), instruction)

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Task({self.name!r}, {self.category}, {len(self)} pairs: {self.description})"

    def labels(self) -> Counter[str]:
        """How often each answer occurs."""
        return Counter(pair.y for pair in self.pairs)


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
