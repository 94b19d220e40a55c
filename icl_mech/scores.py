"""Scores of first tokens: whether the answer is right, and how probable it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from icl_mech.model import HookedModel, Readout
from icl_mech.prompts import Answers

#: When an answer counts as right. `first_token`: the top token is the first token of an accepted
#: answer. `two_way_prefix`: the text of the top token begins an accepted answer, or the other way
#: round, as in the evaluation of Hendel et al. ("P" counts for "Paris"). An accepted first token
#: also counts if its text is empty (a space alone, or a part of a character).
SCORES = ("first_token", "two_way_prefix")


@dataclass(frozen=True)
class Scored:
    """Scores of a readout whose first axis is the prompt.

    Attributes:
        top: the most probable token.
        first_token, two_way_prefix: right or wrong, see `SCORES`.
        logprob: log probability (nats) of the most probable accepted first token.
        rank: how many tokens are more probable than it.
    """

    top: Int[np.ndarray, "prompt *rest"]
    first_token: Bool[np.ndarray, "prompt *rest"]
    two_way_prefix: Bool[np.ndarray, "prompt *rest"]
    logprob: Float[np.ndarray, "prompt *rest"]
    rank: Int[np.ndarray, "prompt *rest"]


def score(model: HookedModel, readout: Readout, answers: Answers) -> Scored:
    """The scores of every cell of a readout whose first axis is the prompt."""
    top = readout.top.cpu().numpy()
    logprob = readout.logprob.cpu().numpy()
    rank = readout.rank.cpu().numpy()
    text = {token: model.to_string(token).strip() for token in np.unique(top).tolist()}
    prefix = [
        np.vectorize(lambda t, a=a: two_way_prefix(text[t], a), otypes=[bool])(row)
        for row, a in zip(top, answers.texts, strict=True)
    ]
    return Scored(
        top=top,
        first_token=readout.right,
        two_way_prefix=np.array(prefix) | readout.right,
        logprob=np.nanmax(logprob, axis=-1),
        rank=np.where(rank < 0, np.iinfo(rank.dtype).max, rank).min(axis=-1),
    )


def two_way_prefix(said: str, answers: Sequence[str]) -> bool:
    """Whether the text begins an accepted answer, or an accepted answer begins the text.

    >>> two_way_prefix("P", ["Paris"]), two_way_prefix("", ["Paris"])
    (True, False)
    """
    return said != "" and any(a.startswith(said) or said.startswith(a) for a in answers)
