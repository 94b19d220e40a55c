"""Part-of-speech tasks: the first word of a sentence with a hidden tag (Han et al. 2024)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from icl_mech.tasks.builtin import instruction_of
from icl_mech.tasks.family import Family
from icl_mech.tasks.seeds import generator
from icl_mech.tasks.task import Pair, Task
from icl_mech.tasks.text import look

TAGS = ("noun", "adjective", "verb", "adverb", "preposition", "pronoun")
#: The tag of all other words: determiners, conjunctions, numerals, auxiliaries.
OTHER = "other"
OUTPUTS = (*TAGS, "null")


@dataclass(frozen=True)
class Sentence:
    """A sentence and its tagged words.

    Attributes:
        text: in one line, without a final full stop.
        words: (word, tag) in order, without punctuation; a tag is one of `TAGS`, or `OTHER`.
    """

    text: str
    words: tuple[tuple[str, str], ...]

    def answers(self) -> dict[str, str]:
        """The first word of every tag of `TAGS` that occurs."""
        first: dict[str, str] = {}
        for word, tag in self.words:
            if tag in TAGS:
                first.setdefault(tag, word)
        return first

    def is_askable(self) -> bool:
        """Whether all six tags occur with different first words, and the text fits a prompt."""
        different = {word.lower() for word in self.answers().values()}
        return len(different) == len(TAGS) and "->" not in self.text and self.text.isprintable()


def pos_family(name: str, sentences: Sequence[Sentence], seed: int = 0) -> Family:
    """Six tasks (the first word with a tag), and a null task (a random word of the sentence).

    Args:
        name: of the family.
        sentences: askable and different from one another.
        seed: of the null task. The answer depends on the seed and the sentence alone, not on the
            other sentences.

    Raises:
        InputError: where the seed is negative.
    """
    descriptions = {tag: f"sentence -> its first {tag}" for tag in TAGS}
    descriptions["null"] = f"sentence -> a random word of it (seed {seed})"
    answers = [
        sentence.answers() | {"null": _random_word(sentence, seed)} for sentence in sentences
    ]
    tasks = (
        Task(
            f"{name}/{output}",
            "pos",
            description,
            tuple(Pair(s.text, (row[output],)) for s, row in zip(sentences, answers, strict=True)),
            instruction_of(f"pos/{output}"),
        )
        for output, description in descriptions.items()
    )
    return Family(name, tuple(tasks), f"{name}/null")


def _random_word(sentence: Sentence, seed: int) -> str:
    rng = generator(seed, "pos/null", sentence.text)
    return sentence.words[rng.integers(len(sentence.words))][0]


def askable(sentences: Iterable[Sentence]) -> list[Sentence]:
    """The sentences that can be asked, each text once."""
    return list({look(s.text): s for s in sentences if s.is_askable()}.values())
