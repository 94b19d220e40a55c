"""The work that every library is given: tokens, answers and vectors, in one file."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

#: The four tasks, in the order of the table, and the prompts that each has.
N_PROMPTS = {"inject": 16, "heads": 8, "lens": 32, "stream": 4}
#: What a library may be told to run at a time: the fastest of these is kept.
PROMPTS_AT_A_TIME = {"inject": (16, 4), "heads": (8, 2), "lens": (32, 8), "stream": (4, 1)}
Found = dict[str, Tensor]


@dataclass(frozen=True)
class Work:
    """One task's prompts, all of one length, and what is written into them.

    Attributes:
        tokens: `[prompt, token]`.
        answers: the token whose log probability is read, `[prompt]`.
        vectors: theta `[layer, d_model]` for `inject`, mean outputs `[layer, head, d_head]` for
            `heads`; empty for the other tasks.
    """

    tokens: Tensor
    answers: Tensor
    vectors: Tensor

    def save(self, path: Path) -> None:
        """Write it as safetensors."""
        save_file({name: t.contiguous() for name, t in asdict(self).items()}, path)

    @staticmethod
    def load(path: Path) -> "Work":
        """Read what `save` wrote."""
        return Work(**load_file(path))

    def parts(self, size: int) -> list["Work"]:
        """The same work, some prompts at a time."""
        pairs = zip(self.tokens.split(size), self.answers.split(size), strict=True)
        return [Work(tokens, answers, self.vectors) for tokens, answers in pairs]


def read(logits: Tensor, answers: Tensor) -> Found:
    """Top token and log probability of the answer, of every row of logits `[row, vocab]`."""
    wanted = logits.gather(-1, answers[:, None])[:, 0]
    return {"top": logits.argmax(-1), "logprob": wanted - logits.logsumexp(-1)}


def joined(found: list[Found], dim: int) -> Found:
    """Join what was found part by part, along one dimension."""
    return {name: torch.cat([part[name] for part in found], dim) for name in found[0]}


def stacked(found: list[Found]) -> Found:
    """Stack what was found edit by edit, along a new first dimension."""
    return {name: torch.stack([part[name] for part in found]) for name in found[0]}
