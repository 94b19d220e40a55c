"""Answers of more than one token: what do they change?"""

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from icl_mech.answers.judge import SCORES
    from icl_mech.answers.result import CONDITIONS, AnswerScores
    from icl_mech.answers.run import answer_scores

# Loaded on first use: `python -m icl_mech.answers --help` does not wait for torch.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "judge": ["SCORES"],
        "result": ["CONDITIONS", "AnswerScores"],
        "run": ["answer_scores"],
    },
)
__all__ = ["CONDITIONS", "SCORES", "AnswerScores", "answer_scores"]
