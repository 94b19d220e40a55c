"""The four tasks in nnterp: `layers_output`, `skip_layers` and `project_on_vocab`.

nnterp's own `logit_lens` returns probabilities of the whole vocabulary at every layer; here rows
are reduced to what is asked for inside the trace, which needs less memory.
"""

from pathlib import Path

import torch
from nnterp import StandardizedTransformer
from torch import Tensor
from work import Found, Work, joined, read, stacked

NAME, DISTRIBUTION = "nnterp", "nnterp"
LAST = {"logits_to_keep": 1, "use_cache": False}


def load(folder: Path) -> StandardizedTransformer:
    return StandardizedTransformer(str(folder), dtype=torch.float32, device_map="cpu")


def traced(model: StandardizedTransformer, tokens: Tensor) -> Tensor:
    """The residual stream after every block, `[layer, prompt, token, d_model]`."""
    with model.trace(tokens, **LAST) as tracer:
        after = [model.layers_output[layer] for layer in range(model.num_layers)].save()
        tracer.stop()
    return torch.stack(after)


def before(model: StandardizedTransformer, task: str, work: Work, at_a_time: int) -> Found | None:
    """What every edit starts from: the stream after each block, `[prompt, layer, token, d_model]`.

    And what effects of heads are relative to.
    """
    if task == "heads":
        return joined([clean(model, part) for part in work.parts(at_a_time)], dim=0)
    if task == "inject":
        streams = [traced(model, part.tokens) for part in work.parts(at_a_time)]
        return {"stream": torch.cat(streams, dim=1).transpose(0, 1)}
    return None


def clean(model: StandardizedTransformer, part: Work) -> Found:
    with model.trace(part.tokens, **LAST):
        after = [model.layers_output[layer] for layer in range(model.num_layers)].save()
        logits = model.logits[:, -1].save()
    return {"stream": torch.stack(after, dim=1), **read(logits, part.answers)}


def inject(
    model: StandardizedTransformer, work: Work, layers: list[int], at_a_time: int, before: Found
) -> Found:
    return stacked([inject_at(model, work, n, at_a_time, before["stream"][:, n]) for n in layers])


def inject_at(
    model: StandardizedTransformer, work: Work, layer: int, at_a_time: int, stream: Tensor
) -> Found:
    found = []
    for part, after in zip(work.parts(at_a_time), stream.split(at_a_time), strict=True):
        edited = after.clone()
        edited[:, -1] = work.vectors[layer]
        with model.trace(part.tokens, **LAST):
            model.skip_layers(0, layer, skip_with=edited)
            logits = model.logits[:, -1].save()
        found.append(read(logits, part.answers))
    return joined(found, dim=0)


def heads(
    model: StandardizedTransformer, work: Work, layers: list[int], at_a_time: int, before: Found
) -> Found:
    found = joined([heads_of(model, work, n, at_a_time, before["stream"]) for n in layers], dim=0)
    return {**found, "effect": found["logprob"].exp() - before["logprob"].exp()}


def heads_of(
    model: StandardizedTransformer, work: Work, layer: int, at_a_time: int, stream: Tensor
) -> Found:
    """All heads of a block in one batch: each head has its own copy of the prompts."""
    n_heads, d_head = work.vectors[layer].shape
    found = []
    for part, after in zip(work.parts(at_a_time), stream.split(at_a_time), strict=True):
        n, entering = len(part.tokens), after[:, layer - 1].repeat(n_heads, 1, 1)
        with model.trace(part.tokens.repeat(n_heads, 1), **LAST):
            if layer > 0:
                model.skip_layers(0, layer - 1, skip_with=entering)
            z = model.attentions[layer].o_proj.input
            for head in range(n_heads):
                columns = slice(head * d_head, (head + 1) * d_head)
                z[head * n : (head + 1) * n, -1, columns] = work.vectors[layer, head]
            logits = model.logits[:, -1].save()
        one = read(logits, part.answers.repeat(n_heads))
        found.append({key: values.unflatten(0, (n_heads, -1)) for key, values in one.items()})
    return joined(found, dim=1)


def lens(
    model: StandardizedTransformer, work: Work, layers: list[int], at_a_time: int, _: None
) -> Found:
    found = []
    for part in work.parts(at_a_time):
        with model.trace(part.tokens, **LAST) as tracer:
            rows = []
            for layer in range(model.num_layers):
                logits = model.project_on_vocab(model.layers_output[layer][:, -1])
                rows.append(read(logits, part.answers))
            rows.save()
            tracer.stop()
        found.append(stacked(rows))
    return joined(found, dim=1)


def stream(
    model: StandardizedTransformer, work: Work, layers: list[int], at_a_time: int, _: None
) -> Found:
    return {"stream": torch.cat([traced(model, w.tokens) for w in work.parts(at_a_time)], dim=1)}
