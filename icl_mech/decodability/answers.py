"""Scores the model's answers to the prompts, from residual streams that were already captured."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from icl_mech.model import HookedModel, as_array
from icl_mech.prompts import Encoder, Prompt
from icl_mech.tasks import Pair


@dataclass(frozen=True)
class Answered:
    """How the prompts were answered.

    Attributes:
        first_token: the most probable token begins an accepted answer.
        exact: greedy decoding would begin with a whole accepted answer: each of its tokens is the
            most probable one after those before it. The text after the answer is not checked.
        logprob: log probability (nats) of the most probable accepted first token.
    """

    first_token: Bool[np.ndarray, "prompt"]
    exact: Bool[np.ndarray, "prompt"]
    logprob: Float[np.ndarray, "prompt"]


def accepted_tokens(
    encoder: Encoder, prompts: Sequence[Prompt], queries: Sequence[Pair]
) -> list[tuple[tuple[int, ...], ...]]:
    """Token ids of every accepted answer to every query, without repeats."""
    pairs = zip(prompts, queries, strict=True)
    return [tuple(dict.fromkeys(encoder.answer_tokens(p, q.answers))) for p, q in pairs]


def answered(
    model: HookedModel,
    prompts: Sequence[Prompt],
    last: Float[Tensor, "prompt d_model"],
    answers: Sequence[Sequence[tuple[int, ...]]],
) -> Answered:
    """Score every prompt.

    For answers of several tokens, prompts whose first token is right run once more with the answer
    behind them.

    Args:
        model: to ask.
        prompts: those that were run.
        last: residual stream after the last block, at every prompt's last token.
        answers: from `accepted_tokens`.
    """
    readout = model.read(last, [list(dict.fromkeys(a[0] for a in row)) for row in answers])
    top = readout.top.cpu().numpy()
    exact = np.array([(int(t),) in row for t, row in zip(top, answers, strict=True)])
    longer: dict[int, list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    for i, row in enumerate(answers):
        for answer in row:
            if len(answer) > 1 and answer[0] == top[i] and not exact[i]:
                longer[len(answer)].append((i, answer))
    for length, cells in longer.items():
        right = _continued(model, [(prompts[i], answer) for i, answer in cells], length)
        for (i, _), whole in zip(cells, right, strict=True):
            exact[i] |= whole
    logprob = np.nanmax(as_array(readout.logprob), axis=-1)
    return Answered(readout.right, exact, logprob)


def _continued(
    model: HookedModel, cells: Sequence[tuple[Prompt, tuple[int, ...]]], length: int
) -> Bool[np.ndarray, "cell"]:
    """Whether each token of the answer from the second on is the most probable one."""
    prompts = [
        Prompt(p.text, p.tokens + answer[:-1], p.roles + ("answer",) * (length - 1))
        for p, answer in cells
    ]
    resid = model.capture(prompts, list(range(1 - length, 0)))[:, :, -1]
    targets = [[token] for _, answer in cells for token in answer[1:]]
    ranks = model.read(resid.reshape(len(targets), -1), targets).rank[:, 0]
    return (ranks.reshape(len(cells), length - 1) == 0).all(dim=1).cpu().numpy()
