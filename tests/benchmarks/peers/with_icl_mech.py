"""The four tasks in icl-mech."""

from pathlib import Path

import torch
from torch import Tensor
from work import Found, Work

from icl_mech.model import Edit, HookedModel, Readout, load_model
from icl_mech.prompts import Prompt

NAME, DISTRIBUTION = "icl-mech", "icl-mech"


def load(folder: Path) -> HookedModel:
    return load_model(folder, device="cpu")


def prompts_of(work: Work) -> list[Prompt]:
    return [Prompt("", tuple(row), ("",) * len(row)) for row in work.tokens.tolist()]


def found(readout: Readout) -> Found:
    """By edit, then prompt."""
    return {"top": readout.top.T, "logprob": readout.logprob[..., 0].T}


def before(model: HookedModel, task: str, work: Work, at_a_time: int) -> None:
    """Nothing is computed before the edits."""


def inject(model: HookedModel, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    edits = [Edit(layer, work.vectors[layer], "resid_post") for layer in layers]
    return found(model.evaluate(prompts_of(work), edits, work.answers[:, None].tolist()))


def heads(model: HookedModel, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    edits = [
        Edit(layer, work.vectors[layer, head], "z", head=head)
        for layer in layers
        for head in range(model.n_heads)
    ]
    answers = work.answers[:, None].tolist()
    read = found(model.evaluate(prompts_of(work), [None, *edits], answers))
    p = read["logprob"].exp()
    return {"top": read["top"][1:], "logprob": read["logprob"][1:], "effect": p[1:] - p[0]}


def lens(model: HookedModel, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    stream = model.capture(prompts_of(work), [-1])[:, 0]
    n_layers = stream.shape[1]
    answers = work.answers.repeat_interleave(n_layers)[:, None].tolist()
    read = model.read(stream.flatten(0, 1), answers)
    shape = (len(work.tokens), n_layers)
    return {"top": read.top.view(shape).T, "logprob": read.logprob.view(shape).T}


def stream(model: HookedModel, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    values: Tensor = model.capture(prompts_of(work), range(work.tokens.shape[1]))
    return {"stream": torch.einsum("ptld->lptd", values)}
