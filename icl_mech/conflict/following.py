"""Whose answer came: readouts -> per-prompt arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from icl_mech.conflict.sampling import ConflictEpisodes
from icl_mech.model import Readout, as_array
from icl_mech.prompts import Encoder, Prompt, accepted


@dataclass(frozen=True)
class Tokens:
    """First tokens of the prompt's task's answers and of the injected task's, per prompt."""

    prompt: tuple[tuple[int, ...], ...]
    injected: tuple[tuple[int, ...], ...]

    @staticmethod
    def of(encoder: Encoder, prompts: Sequence[Prompt], drawn: ConflictEpisodes) -> "Tokens":
        """As they follow `prompts`."""
        both = (accepted(encoder, prompts, of) for of in (drawn.prompts, drawn.injected))
        return Tokens(*(answers.first_tokens for answers in both))

    @property
    def both(self) -> list[tuple[int, ...]]:
        """What is read of every prompt."""
        return [a + b for a, b in zip(self.prompt, self.injected, strict=True)]


def follow(readout: Readout, tokens: Tokens) -> dict[str, np.ndarray]:
    """Whose answer came, and how probable each was: arrays `[prompt, ...]`."""
    top, logprob = readout.top.cpu().numpy(), as_array(readout.logprob)
    pairs = list(zip(tokens.prompt, tokens.injected, strict=True))
    return {
        "top": top,
        "follows_prompt": np.array([np.isin(t, a) for t, (a, _) in zip(top, pairs, strict=True)]),
        "follows_injected": np.array([np.isin(t, b) for t, (_, b) in zip(top, pairs, strict=True)]),
        "prompt_logprob": np.array(
            [row[..., : len(a)].max(-1) for row, (a, _) in zip(logprob, pairs, strict=True)]
        ),
        "injected_logprob": np.array(
            [
                row[..., len(a) : len(a) + len(b)].max(-1)
                for row, (a, b) in zip(logprob, pairs, strict=True)
            ]
        ),
    }
