"""How many of a vector's top tokens are answers, inputs, or words that name the task?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.model import HookedModel
from icl_mech.prompts import Encoder
from icl_mech.tasks import Task

#: What is counted: words that name the task, first tokens of its answers, first tokens of its
#: inputs, and, as a control, words that name another task (mean over the other tasks).
KINDS = ("naming", "answers", "inputs", "other_naming")
#: Tokens are counted among this many top tokens.
AMONG = (10, 20)


@dataclass(frozen=True)
class Words:
    """The words that top tokens are compared with.

    Attributes:
        answers, inputs: texts of their first tokens, without the space before them; None if no
            pairs are known.
        naming: words that name the task, in lower case; None if none are known.
        others: for every other task, the words that name it. Words that name this task, or are its
            answers or inputs, are left out ("English" names a translation task, and is an answer
            to which language someone speaks).
    """

    answers: frozenset[str] | None
    inputs: frozenset[str] | None
    naming: frozenset[str] | None
    others: tuple[frozenset[str], ...]

    @staticmethod
    def of(
        model: HookedModel, task: Task, encoder: Encoder, naming: Mapping[str, frozenset[str]]
    ) -> "Words":
        """Collect the words of a task."""
        prompt = encoder.encode((), task.pairs[0].x)

        def first(labels: Sequence[str]) -> frozenset[str]:
            ids = {tokens[0] for tokens in encoder.answer_tokens(prompt, dict.fromkeys(labels))}
            return frozenset(model.to_string(token).strip() for token in ids) - {""}

        own = naming.get(task.name)
        answers = first([answer for pair in task.pairs for answer in pair.answers])
        inputs = first([pair.x for pair in task.pairs])
        taken = (own or frozenset()) | {word.casefold() for word in answers | inputs}
        others = (words - taken for name, words in naming.items() if name != task.name)
        return Words(answers, inputs, own, tuple(others))

    @staticmethod
    def unknown(name: str, naming: Mapping[str, frozenset[str]]) -> "Words":
        """The words of a task whose pairs are not known."""
        others = (words for other, words in naming.items() if other != name)
        return Words(None, None, naming.get(name), tuple(others))

    def kinds(self, text: str) -> list[float]:
        """For each of `KINDS`, 1 if a token counts; for the last, the share of tasks it names."""
        word = text.strip()
        name = word.casefold()
        return [
            np.nan if self.naming is None else float(name in self.naming),
            np.nan if self.answers is None else float(word in self.answers),
            np.nan if self.inputs is None else float(word in self.inputs),
            float(np.mean([name in words for words in self.others])) if self.others else np.nan,
        ]


def count(
    model: HookedModel, words: Words, ids: Int[Tensor, "*cell k"]
) -> Float[np.ndarray, "*cell among kind"]:
    """Count kinds of tokens among the first 10 and 20 of each list (`among`)."""
    every = ids.cpu().numpy()
    known, index = np.unique(every, return_inverse=True)
    kinds = np.array([words.kinds(model.to_string(token)) for token in known.tolist()])
    flags = kinds[index].reshape(*every.shape, len(KINDS))
    return np.stack([flags[..., :n, :].sum(axis=-2) for n in among(every.shape[-1])], axis=-2)


def among(k: int) -> list[int]:
    """The numbers of top tokens among which tokens are counted, if `k` are kept.

    >>> among(20), among(12), among(5)
    ([10, 20], [10], [5])
    """
    return [n for n in AMONG if n <= k] or [k]


def kind_of(model: HookedModel, words: Words, ids: Int[Tensor, "*cell k"]) -> np.ndarray:
    """The first of naming, answers and inputs that fits each token; an empty text for none."""
    every = ids.cpu().numpy()
    names = np.empty(every.shape, dtype="<U8")
    for index in np.ndindex(*every.shape):
        flags = words.kinds(model.to_string(int(every[index])))[:3]
        names[index] = next((k for k, f in zip(KINDS[:3], flags, strict=True) if f == 1), "")
    return names
