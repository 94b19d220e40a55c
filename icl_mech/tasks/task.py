"""A task: pairs of an input and the answers that count as right."""

from collections import Counter
from dataclasses import dataclass

from icl_mech.errors import InputError


@dataclass(frozen=True)
class Pair:
    """An input `x` and its accepted answers; the first one is shown in demonstrations."""

    x: str
    answers: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.x.strip():
            raise InputError("an empty input; expected text")
        if not self.answers or not all(a.strip() for a in self.answers):
            raise InputError(f"an empty answer for input {self.x!r}; expected text")

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
        pairs: every input once.
    """

    name: str
    category: str
    description: str
    pairs: tuple[Pair, ...]

    def __post_init__(self) -> None:
        seen: dict[str, Pair] = {}
        for pair in self.pairs:
            if pair.x in seen:
                raise InputError(
                    f"task {self.name!r}: input {pair.x!r} appears twice, with answers "
                    f"{seen[pair.x].y!r} and {pair.y!r}; expected one row per input"
                )
            seen[pair.x] = pair

    def __len__(self) -> int:
        return len(self.pairs)

    def __repr__(self) -> str:
        return f"Task({self.name!r}, {self.category}, {len(self)} pairs: {self.description})"

    def labels(self) -> Counter[str]:
        """How often each answer occurs."""
        return Counter(pair.y for pair in self.pairs)
