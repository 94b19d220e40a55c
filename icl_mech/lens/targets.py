"""Few-shot prompts for the lens: where it looks, and the tokens that it looks for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from icl_mech.errors import InputError, choose
from icl_mech.prompts import (
    Encoder,
    Episode,
    Prompt,
    Template,
    check_shots,
    draw_split,
    in_context,
    whole,
)
from icl_mech.prompts.encode import SINK
from icl_mech.tasks import Pair, Task, list_tasks, load_other, load_task

#: The right answer and its rivals: the query itself, the most frequent answer of the task, and
#: what another task answers to the same query.
TARGETS = ("answer", "query", "prior", "other")
#: Vectors that are read: theta, or function vectors.
VECTORS = ("theta", "function")
#: Share of a task's inputs that another one must know to be compared with by default.
SHARED = 0.5


@dataclass(frozen=True)
class Asked:
    """The prompts of one task, and which tokens are looked for.

    Attributes:
        task: what is asked.
        other: the task whose answers are rivals; None where none shares enough inputs.
        encoder: what made the prompts.
        episodes: what they were made from.
        prompts: few-shot prompts.
        prior: the most frequent answer among the pairs that are not asked.
        n_queries: how many queries differ.
        tokens: for each prompt and each of `TARGETS`, the first tokens that count for it. A
            rival never holds a token with which a right answer begins, and may hold none.
        n_answer_tokens: tokens of each right answer (the one that demonstrations would show).
    """

    task: Task
    other: Task | None
    encoder: Encoder
    episodes: tuple[Episode, ...]
    prompts: tuple[Prompt, ...]
    prior: str
    n_queries: int
    tokens: tuple[tuple[tuple[int, ...], ...], ...]
    n_answer_tokens: tuple[int, ...]


def draw_asked(
    task: Task,
    other: Task | str | None,
    encoder: Encoder,
    n_prompts: int,
    n_shots: int,
    seed: int,
) -> Asked:
    """Draw a task's prompts and their targets.

    Raises:
        InputError: where a count or the task's pairs do not suffice, or `other` is the task.
    """
    split = draw_split(task, n_prompts, 1, n_shots, 1, seed)
    rival = sharing_task(task) if other is None else load_other(task, other)
    known = {} if rival is None else {pair.x: pair for pair in rival.pairs}
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
    return Asked(
        task,
        rival,
        encoder,
        split.test,
        prompts,
        split.prior,
        split.n_test_queries,
        tuple(tokens),
        tuple(lengths),
    )


def sharing_task(task: Task) -> Task | None:
    """The built-in task that knows most of a task's inputs; None where all know less than half.

    >>> from icl_mech.tasks import load_task
    >>> sharing_task(load_task("en_fr")).name, sharing_task(load_task("plural_singular"))
    ('en_es', None)
    """
    inputs = {pair.x for pair in task.pairs}

    def shared(other: Task) -> float:
        return len(inputs & {pair.x for pair in other.pairs}) / len(inputs)

    others = [load_task(name) for name in list_tasks() if name != task.name]
    best = max(others, key=shared)
    return best if shared(best) >= SHARED else None


def check_roles(roles: str | Sequence[str], template: str, n_shots: int) -> tuple[str, ...]:
    """One role or several, each of which such prompts have.

    Raises:
        InputError: naming the nearest that exists.
    """
    several = (roles,) if isinstance(roles, str) else tuple(roles)
    shown = [Pair("x", ("y",))] * whole("n_shots", n_shots)
    spans = Template(template, leading_space=False).render(shown, "x")
    known = list(dict.fromkeys([SINK, *(span.role for span in spans)]))
    for role in several:
        choose(role, known, "role")
    if not several or len(set(several)) != len(several):
        raise InputError(f"roles {list(several)}; expected at least one, each once")
    return several


def check_vector(vector: str, n_shots: int, given: bool = False) -> None:
    """Whether vectors of a kind can be made from so many shots.

    Args:
        vector: one of `VECTORS`.
        n_shots: demonstrations per vector.
        given: whether the heads of function vectors are given: else they are ranked by their AIE,
            for which labels are shuffled.

    Raises:
        InputError: where not.
    """
    if choose(vector, VECTORS, "vector") == "function" and not given:
        check_shots(n_shots)


@dataclass(frozen=True)
class Columns:
    """Targets of several tokens each, as columns of one table of token ids.

    Attributes:
        ids: a row per prompt, -1 where it has fewer tokens.
        ends: where the columns of each target end.
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
        """Of each target its most probable token; NaN and rank -1 where it has none."""
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
