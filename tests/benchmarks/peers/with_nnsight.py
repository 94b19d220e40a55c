"""The four tasks in nnsight: batched traces, `skip` of blocks that no edit changes, `stop`."""

from pathlib import Path

import torch
from nnsight import TransformersModel
from torch import Tensor
from work import Found, Work, joined, read, stacked

NAME, DISTRIBUTION = "nnsight", "nnsight"
LAST = {"logits_to_keep": 1, "use_cache": False}


def load(folder: Path) -> TransformersModel:
    return TransformersModel(
        str(folder), task="text-generation", dtype=torch.float32, device_map="cpu", dispatch=True
    )


def traced(model: TransformersModel, tokens: Tensor) -> Tensor:
    """The residual stream after every block, `[layer, prompt, token, d_model]`."""
    with model.trace(tokens, **LAST) as tracer:
        after = [block.output for block in model.model.layers].save()
        tracer.stop()
    return torch.stack(after)


def before(model: TransformersModel, task: str, work: Work, at_a_time: int) -> Found | None:
    """What every edit starts from: the stream after each block, `[prompt, layer, token, d_model]`.

    And what effects of heads are relative to.
    """
    if task == "heads":
        return joined([clean(model, part) for part in work.parts(at_a_time)], dim=0)
    if task == "inject":
        streams = [traced(model, part.tokens) for part in work.parts(at_a_time)]
        return {"stream": torch.cat(streams, dim=1).transpose(0, 1)}
    return None


def clean(model: TransformersModel, part: Work) -> Found:
    with model.trace(part.tokens, **LAST):
        after = [block.output for block in model.model.layers].save()
        logits = model.output.logits[:, -1].save()
    return {"stream": torch.stack(after, dim=1), **read(logits, part.answers)}


def inject(
    model: TransformersModel, work: Work, layers: list[int], at_a_time: int, before: Found
) -> Found:
    return stacked([inject_at(model, work, n, at_a_time, before["stream"][:, n]) for n in layers])


def inject_at(
    model: TransformersModel, work: Work, layer: int, at_a_time: int, stream: Tensor
) -> Found:
    found = []
    for part, after in zip(work.parts(at_a_time), stream.split(at_a_time), strict=True):
        edited = after.clone()
        edited[:, -1] = work.vectors[layer]
        with model.trace(part.tokens, **LAST):
            for block in model.model.layers[: layer + 1]:
                block.skip(edited)
            logits = model.output.logits[:, -1].save()
        found.append(read(logits, part.answers))
    return joined(found, dim=0)


def heads(
    model: TransformersModel, work: Work, layers: list[int], at_a_time: int, before: Found
) -> Found:
    found = joined([heads_of(model, work, n, at_a_time, before["stream"]) for n in layers], dim=0)
    return {**found, "effect": found["logprob"].exp() - before["logprob"].exp()}


def heads_of(
    model: TransformersModel, work: Work, layer: int, at_a_time: int, stream: Tensor
) -> Found:
    """All heads of a block in one batch: each head has its own copy of the prompts."""
    n_heads, d_head = work.vectors[layer].shape
    found = []
    for part, after in zip(work.parts(at_a_time), stream.split(at_a_time), strict=True):
        n, entering = len(part.tokens), after[:, layer - 1].repeat(n_heads, 1, 1)
        with model.trace(part.tokens.repeat(n_heads, 1), **LAST):
            for block in model.model.layers[:layer]:
                block.skip(entering)
            z = model.model.layers[layer].self_attn.o_proj.input
            for head in range(n_heads):
                columns = slice(head * d_head, (head + 1) * d_head)
                z[head * n : (head + 1) * n, -1, columns] = work.vectors[layer, head]
            logits = model.output.logits[:, -1].save()
        one = read(logits, part.answers.repeat(n_heads))
        found.append({key: values.unflatten(0, (n_heads, -1)) for key, values in one.items()})
    return joined(found, dim=1)


def lens(model: TransformersModel, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    found = []
    for part in work.parts(at_a_time):
        with model.trace(part.tokens, **LAST) as tracer:
            rows = []
            for block in model.model.layers:
                hidden = model.model.norm(block.output[:, -1])
                rows.append(read(model.lm_head(hidden), part.answers))
            rows.save()
            tracer.stop()
        found.append(stacked(rows))
    return joined(found, dim=1)


def stream(
    model: TransformersModel, work: Work, layers: list[int], at_a_time: int, _: None
) -> Found:
    return {"stream": torch.cat([traced(model, w.tokens) for w in work.parts(at_a_time)], dim=1)}
