"""Pairs of few-shot prompts, clean and corrupted, as tokens."""

from collections.abc import Sequence
from dataclasses import dataclass

from icl_mech.errors import InputError, choose
from icl_mech.patch.positions_plan import PromptPair
from icl_mech.prompts import Encoder, Prompt


@dataclass(frozen=True)
class Contrast:
    """A clean and a corrupted prompt, and the tokens whose logits tell them apart.

    The logit difference is log p(answer) minus the mean of log p(rival). A log-softmax subtracts
    the same normaliser from all logits, so this equals the difference of the logits themselves (of
    the capped logits in models that cap them, such as Gemma 2).

    Attributes:
        clean, corrupted: the two prompts.
        answer: the first token of the clean prompt's right answer.
        rivals: the tokens that the answer is compared with.

    Raises:
        InputError: if there is no rival, or the answer is one of them.
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


def encode_contrast(encoder: Encoder, pair: PromptPair) -> Contrast:
    """Both prompts as tokens, with the answer and its rivals.

    The rivals are the first tokens of the labels that the corrupted prompt shows. If it asks
    another query, the rival is the first token of the answer to that query. Tokens that begin an
    accepted answer are left out.

    Raises:
        InputError: if no rival is left.
    """
    clean = encoder.encode(pair.shown, pair.query.x, pair.instruction)
    answers, query = pair.query.answers, pair.query
    if pair.substitutes:
        other = (p for p in pair.substitutes if encoder.rivals(clean, answers, [p.y]))
        query = next(other, query)
        labels = [] if query is pair.query else [query.y]
    else:
        labels = [p.y for p in pair.corrupted]
    rivals = encoder.rivals(clean, answers, labels)
    if not rivals:
        shown = ", ".join(repr(p.y) for p in pair.substitutes or pair.corrupted)
        raise InputError(
            f"nothing to compare the answer {pair.query.y!r} with: {shown} all begin with the "
            "same token; expected another label among them (another seed, more shots, or a task "
            "with more different labels)"
        )
    corrupted = encoder.encode(pair.corrupted, query.x, pair.instruction)
    answer = encoder.answer_tokens(clean, [pair.query.y])[0][0]
    return Contrast(clean, corrupted, answer, rivals)


def default_roles(prompt: Prompt) -> tuple[str, ...]:
    """The roles of x, arrow and y of every demonstration, of the query and of the final arrow.

    Raises:
        InputError: if the prompt has none of these roles.
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
    """Refuse roles that do not name the same place in a clean prompt and its corrupted one.

    Raises:
        InputError: if a prompt lacks a role (the nearest is named), or if tokens are given by
            index and the two prompts differ in length or have no such token.
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
