"""Names errors: the first token of a wrong answer is matched with named candidates."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from icl_mech.failures.plan import FailureSettings, FailureTask
from icl_mech.failures.result import OTHER, RIGHT
from icl_mech.model import HookedModel
from icl_mech.prompts import Encoder, Episode, Prompt, accepted
from icl_mech.tasks import Pair

#: Errors by name. They are tried in this order; the first that fits counts.
KINDS = {
    "copied_input": "the query is repeated",
    "wrong_direction": "a word of the query's own side of the mapping",
    "label_prior": "the most frequent answer, of the prompt or of all prompts",
    "shown_answer": "another demonstration's answer",
    "another_element": "another element of the list",
    "shown_input": "a demonstration's input",
    "near_miss": "begins as the right answer does, in other letters or tokens",
    "task_answer": "another answer of the task: the right kind",
    "task_input": "another input of the task",
    "other_task": "an answer of another task",
    "not_a_word": "a line break, punctuation or a symbol",
    "unlisted_word": "written as the right answer is (letters, case, space), but in no list",
    OTHER: "anything else",
}
#: The task's most frequent answer is a label prior if at least this share of demonstrations has it.
MIN_SHARE = 0.1
#: Shorter texts begin too many words to count as a near miss.
MIN_PREFIX = 2
#: At most this many tokens of the vocabulary are classified to estimate how many have a name.
N_CHANCE = 2000


@dataclass(frozen=True)
class Encoders:
    """Encoders of a task's prompts (`own`) and of those of the task whose theta is a control."""

    own: Encoder
    other: Encoder

    @staticmethod
    def of(model: HookedModel, plan: FailureTask, s: FailureSettings) -> "Encoders":
        words = [pair.y for pair in plan.other.pairs]
        own, other = (
            model.encoder(s.template, each, s.leading_space) for each in (plan.answers, words)
        )
        return Encoders(own, other)


@dataclass(frozen=True)
class Classifier:
    """Names the errors of one task's test prompts.

    Attributes:
        right: for each prompt, the first tokens of its right answers.
        own: for each prompt, the first tokens of each kind of error that depends on the prompt.
        common: the first tokens of each kind of error that is the same for all prompts.
        episodes: the episode of each prompt.
        model: turns tokens into text.
        word: writes a word as the prompt does, with a space before it or without.
    """

    right: Sequence[Sequence[int]]
    own: Sequence[dict[str, frozenset[int]]]
    common: dict[str, frozenset[int]]
    episodes: Sequence[Episode]
    model: HookedModel
    word: Callable[[str], str]

    @staticmethod
    def of(
        model: HookedModel, plan: FailureTask, encoders: Encoders, zero: Sequence[Prompt]
    ) -> "Classifier":
        """Collect the candidate tokens of every test prompt."""
        encoder, episodes = encoders.own, plan.split.test

        def first(labels: Iterable[str], prompt: Prompt = zero[0]) -> frozenset[int]:
            return frozenset(encoder.first_tokens(prompt, dict.fromkeys(labels)))

        shown_on_dev = [pair.y for e in plan.split.dev for pair in e.demonstrations]
        is_frequent = shown_on_dev.count(plan.split.prior) >= MIN_SHARE * len(shown_on_dev)
        frequent = first([plan.split.prior] if is_frequent else [])
        directions: dict[tuple[str, ...], frozenset[int]] = {}
        own = []
        for episode in episodes:
            shown = episode.demonstrations
            kinds = {
                "copied_input": first([episode.query.x]),
                "label_prior": first(most_frequent(shown)) | frequent,
                "shown_answer": first(pair.y for pair in shown),
                "shown_input": first(pair.x for pair in shown),
            }
            for name, words in episode.wrong:
                # Many prompts share these words: they are tokenised once.
                if words not in directions:
                    directions[words] = first(words)
                kinds[name] = directions[words]
            own.append(kinds)
        elsewhere = encoders.other.encode((), plan.other.pairs[0].x)
        other = dict.fromkeys(pair.y for pair in plan.other.pairs)
        common = {
            "task_answer": first(plan.answers),
            "task_input": first(plan.inputs),
            "other_task": frozenset(encoders.other.first_tokens(elsewhere, other)),
        }
        right = accepted(encoder, zero, episodes).first_tokens
        return Classifier(right, own, common, episodes, model, encoder.template.word)

    def kind(self, prompt: int, token: int) -> str:
        """The kind of error that this token is, or `RIGHT`."""
        if token in self.right[prompt]:
            return RIGHT
        written = self.model.to_string(token)
        text, query = written.strip(), self.episodes[prompt].query
        fits = {
            "copied_input": begins(text, [query.x]),
            "near_miss": begins(text, query.answers),
            "not_a_word": not any(c.isalnum() for c in text),
            "unlisted_word": form(written) == form(self.word(query.y)),
        }
        candidates = {**self.common, **self.own[prompt]}
        named = (
            kind for kind in KINDS if fits.get(kind, False) or token in candidates.get(kind, ())
        )
        return next(named, OTHER)

    def kinds(self, top: np.ndarray) -> np.ndarray:
        """The kind of every token of a `[prompt, condition]` array."""
        return np.array([[self.kind(i, int(t)) for t in row] for i, row in enumerate(top)])

    def by_chance(self) -> float:
        """The share of wrong tokens with a name, among tokens evenly spaced in the vocabulary."""
        n = len(self.model.tokenizer)
        tokens = np.unique(np.linspace(0, n - 1, min(n, N_CHANCE)).astype(int))
        kinds = [self.kind(i % len(self.episodes), int(t)) for i, t in enumerate(tokens)]
        wrong = [kind for kind in kinds if kind != RIGHT]
        return float(np.mean([kind != OTHER for kind in wrong])) if wrong else float("nan")


def most_frequent(shown: Sequence[Pair]) -> list[str]:
    """The answer that more demonstrations have than any other; none if several lead."""
    (answer, most), *rest = Counter(pair.y for pair in shown).most_common(2)
    return [] if most == 1 or (rest and rest[0][1] == most) else [answer]


def begins(said: str, words: Sequence[str]) -> bool:
    """Whether `said` begins one of the words, or one of them begins `said`; case is ignored.

    A text shorter than `MIN_PREFIX` must be the whole word, in its own case.

    >>> begins("Pou", ["poulet"]), begins("p", ["poulet"]), begins("p", ["p"])
    (True, False, True)
    """
    text = said.casefold()
    if len(text) < MIN_PREFIX:
        return said in words
    folded = [word.casefold() for word in words]
    return any(w.startswith(text) or (len(w) >= MIN_PREFIX and text.startswith(w)) for w in folded)


def form(written: str) -> tuple[bool, bool, bool, bool]:
    """Whether there is space around it, only letters, a first capital, more than one character.

    >>> form(" Geneva") == form(" Bern"), form(" Geneva") == form("Bern")
    (True, False)
    """
    text = written.strip()
    return written != text, text.isalpha(), text[:1].isupper(), len(text) > 1
