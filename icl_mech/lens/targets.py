"""Few-shot prompts for the lens as token ids, and the tokens that it looks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from icl_mech.lens.plan import LensTask
from icl_mech.prompts import Encoder, Prompt, in_context

#: The right answer and its rivals: the query itself, the most frequent answer of the task, and the
#: answer of another task to the same query.
TARGETS = ("answer", "query", "prior", "other")


@dataclass(frozen=True)
class Asked:
    """The prompts of one task, and the tokens to look for.

    Attributes:
        plan: the planned task that they were made from.
        prompts: few-shot prompts.
        tokens: for each prompt and each of `TARGETS`, the first tokens that count for it. Tokens
            with which a right answer begins are left out of rivals, which may leave none.
        n_answer_tokens: tokens of each right answer (the one that demonstrations would show).
    """

    plan: LensTask
    encoder: Encoder
    prompts: tuple[Prompt, ...]
    tokens: tuple[tuple[tuple[int, ...], ...], ...]
    n_answer_tokens: tuple[int, ...]

    @staticmethod
    def of(encoder: Encoder, plan: LensTask) -> "Asked":
        """Encode a planned task."""
        split = plan.split
        known = {} if plan.other is None else {pair.x: pair for pair in plan.other.pairs}
        prompts = tuple(in_context(encoder, split.test))
        tokens, lengths = [], []
        for prompt, episode in zip(prompts, split.test, strict=True):
            query = episode.query
            answers = encoder.answer_tokens(prompt, query.answers)
            lengths.append(len(answers[0]))
            elsewhere = known[query.x].answers if query.x in known else ()
            rivals = ([query.x], [split.prior], elsewhere)
            tokens.append(
                (
                    tuple(dict.fromkeys(ids[0] for ids in answers)),
                    *(encoder.rivals(prompt, query.answers, labels) for labels in rivals),
                )
            )
        return Asked(plan, encoder, prompts, tuple(tokens), tuple(lengths))

    def arrays(self) -> dict[str, Any]:
        """Queries and answers, as arrays of a result."""
        split = self.plan.split
        return {
            "query": ("prompt", [e.query.x for e in split.test]),
            "answer": ("prompt", [e.query.y for e in split.test]),
            "n_answer_tokens": ("prompt", list(self.n_answer_tokens)),
            "prior_answer": ((), split.prior),
            "n_queries": ((), split.n_test_queries),
        }


@dataclass(frozen=True)
class Columns:
    """Targets of several tokens each, as columns of one table of token ids.

    Attributes:
        ids: a row per prompt, padded with -1.
        ends: the index at which the columns of each target end.
    """

    ids: Int[np.ndarray, "prompt column"]
    ends: tuple[int, ...]

    @staticmethod
    def of(tokens: Sequence[Sequence[Sequence[int]]]) -> "Columns":
        """Line up `tokens[prompt][target]`."""
        parts = []
        for target in zip(*tokens, strict=True):
            width = max(1, *map(len, target))
            parts.append(np.array([[*ids, *[-1] * (width - len(ids))] for ids in target]))
        return Columns(
            np.concatenate(parts, axis=1),
            tuple(np.cumsum([part.shape[1] for part in parts]).tolist()),
        )

    def reduce(
        self, logprob: Float[np.ndarray, "*cell column"], rank: Int[np.ndarray, "*cell column"]
    ) -> tuple[Float[np.ndarray, "*cell target"], Int[np.ndarray, "*cell target"]]:
        """The most probable token of each target; NaN and rank -1 for a target without tokens."""
        most, least = [], []
        none = np.iinfo(rank.dtype).max
        start = 0
        for end in self.ends:
            here, ranks = logprob[..., start:end], rank[..., start:end]
            most.append(np.where(np.isnan(here), -np.inf, here).max(axis=-1))
            least.append(np.where(ranks < 0, none, ranks).min(axis=-1))
            start = end
        logprobs, ranks = np.stack(most, axis=-1), np.stack(least, axis=-1)
        return np.where(np.isneginf(logprobs), np.nan, logprobs), np.where(ranks == none, -1, ranks)
