"""Pairs of few-shot prompts, clean and corrupted, that differ in one thing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from icl_mech.errors import InputError, choose
from icl_mech.prompts import Encoder, Prompt, draw_split, generator, shuffle_labels
from icl_mech.tasks import Pair, Task

Corruption = Literal["labels", "task", "query"]

#: In what the corrupted prompt differs. `labels`: the demonstrations' answers are shuffled.
#: `task`: the demonstrations are another task's. `query`: another input is asked about.
CORRUPTIONS: tuple[str, ...] = get_args(Corruption)
#: Inputs that may replace the query: one whose answer begins like the query's own tells nothing.
N_SUBSTITUTES = 4


@dataclass(frozen=True)
class Contrast:
    """Two prompts, and the tokens whose logits tell which of the two a model has read.

    Logit difference = log p(answer) - mean of log p(rival): a log-softmax subtracts one
    normaliser from all logits, so this is the difference of the logits themselves (where a model
    caps its logits, as Gemma 2 does, of the capped ones).

    Attributes:
        clean, corrupted: the two prompts.
        answer: the first token of the clean prompt's right answer.
        rivals: tokens that it is compared with.

    Raises:
        InputError: where there is no rival, or the answer is one.
    """

    clean: Prompt
    corrupted: Prompt
    answer: int
    rivals: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.rivals or self.answer in self.rivals:
            raise InputError(
                f"rivals {self.rivals} of answer token {self.answer}; expected at least one token, "
                "and none that is the answer itself"
            )


@dataclass(frozen=True)
class Drawn:
    """A contrast before there are tokens.

    Attributes:
        shown: the demonstrations of the clean prompt.
        corrupted: those of the corrupted prompt.
        query: what the clean prompt asks.
        substitutes: what the corrupted prompt may ask instead; none where it asks the same.
    """

    shown: tuple[Pair, ...]
    corrupted: tuple[Pair, ...]
    query: Pair
    substitutes: tuple[Pair, ...] = ()


def draw_pairs(
    task: Task, other: Task, n_prompts: int, n_shots: int, seed: int, corruption: str
) -> list[Drawn]:
    """Draw what clean and corrupted prompts show and ask.

    Args:
        task: of the clean prompts.
        other: whose demonstrations corrupt, where `corruption` is `"task"`.
        n_prompts: pairs of prompts.
        n_shots: demonstrations per prompt.
        seed: of every random draw.
        corruption: one of `CORRUPTIONS`.

    Raises:
        InputError: where the corruption does not exist, there is one label only to shuffle, or
            a task has too few pairs.
    """
    choose(corruption, CORRUPTIONS, "corruption")
    if corruption == "labels" and n_shots < 2:
        raise InputError(
            f"n_shots is {n_shots}; expected at least 2 (labels are shuffled), "
            "or corruption='task' or 'query'"
        )
    n_dummies = N_SUBSTITUTES if corruption == "query" else 1
    test = draw_split(task, n_prompts, 1, n_shots, n_dummies, seed).test
    if corruption == "query":
        return [Drawn(e.demonstrations, e.demonstrations, e.query, e.dummies) for e in test]
    if corruption == "task":
        others = draw_split(other, n_prompts, 1, n_shots, 1, seed).test
        return [
            Drawn(e.demonstrations, o.demonstrations, e.query)
            for e, o in zip(test, others, strict=True)
        ]
    rng = generator(seed, task.name, "contrast", corruption)
    return [Drawn(e.demonstrations, shuffle_labels(e.demonstrations, rng), e.query) for e in test]


def encode_contrast(encoder: Encoder, drawn: Drawn) -> Contrast:
    """Both prompts as tokens, with the answer and its rivals.

    Rivals are the first tokens of the labels that the corrupted prompt shows or, where it asks
    something else, of the answer to that; tokens with which the right answer may begin are not.

    Raises:
        InputError: where no rival is left.
    """
    clean = encoder.encode(drawn.shown, drawn.query.x)
    answers, query = drawn.query.answers, drawn.query
    if drawn.substitutes:
        other = (p for p in drawn.substitutes if encoder.rivals(clean, answers, [p.y]))
        query = next(other, query)
        labels = [] if query is drawn.query else [query.y]
    else:
        labels = [pair.y for pair in drawn.corrupted]
    rivals = encoder.rivals(clean, answers, labels)
    if not rivals:
        shown = ", ".join(repr(pair.y) for pair in drawn.substitutes or drawn.corrupted)
        raise InputError(
            f"nothing to compare the answer {drawn.query.y!r} with: {shown} all begin with the "
            "same token; expected another label among them (another seed, more shots, or a task "
            "with more different labels)"
        )
    corrupted = encoder.encode(drawn.corrupted, query.x)
    answer = encoder.answer_tokens(clean, [drawn.query.y])[0][0]
    return Contrast(clean, corrupted, answer, rivals)


def default_roles(prompt: Prompt) -> tuple[str, ...]:
    """x, arrow and y of every demonstration, then the query and the final arrow.

    Raises:
        InputError: where the prompt has none of these roles.
    """
    known = dict.fromkeys(prompt.roles)
    wanted = tuple(role for role in known if role.startswith("demo_") and _is_part(role))
    wanted += tuple(role for role in ("query", "final_arrow") if role in known)
    if not wanted:
        raise InputError(
            "the prompts' tokens have no roles; expected prompts made by an encoder, "
            "roles='tokens', or token indices"
        )
    return wanted


def _is_part(role: str) -> bool:
    return role.rsplit("_", 1)[-1] in ("x", "arrow", "y")


def check_aligned(contrasts: Sequence[Contrast], roles: Sequence[str | int]) -> None:
    """Refuse what cannot be matched between a clean and a corrupted prompt.

    Raises:
        InputError: where a prompt lacks a role, naming the nearest; where tokens are given by
            index and the two prompts differ in length, or have no such token.
    """
    for i, contrast in enumerate(contrasts):
        lengths = len(contrast.clean), len(contrast.corrupted)
        for role in roles:
            if isinstance(role, int) and lengths[0] != lengths[1]:
                raise InputError(
                    f"prompt {i}: the clean prompt has {lengths[0]} tokens, the corrupted one "
                    f"{lengths[1]}, so token {role} is not the same place in both; expected "
                    "prompts of equal length, or roles such as 'query' and 'final_arrow' "
                    "(roles=None takes them all)"
                )
            for kind, prompt in (("clean", contrast.clean), ("corrupted", contrast.corrupted)):
                if isinstance(role, int):
                    prompt.position(role)
                else:
                    choose(role, dict.fromkeys(prompt.roles), f"role (prompt {i}, {kind})")
