"""The four tasks in pyvene: vanilla interventions with constant sources, and collections.

pyvene runs whole forward passes: nothing in it starts or stops at a block. It is given the model
inside, without the unembedding: the last token is unembedded afterwards, which halves its times
(pyvene switches gradients of weights off, and PyTorch then unembeds `logits_to_keep=1` row by row).
The prompts of a batch share an edit; a batch of several heads would go through a slower path.

pyvene's own loaders (`pyvene.create_gemma`) return a tokenizer beside the model, with which prompts
are written. So it is in memory here, as it is in every other library.
"""

from pathlib import Path

import pyvene
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from work import Found, Work, joined, read, stacked

NAME, DISTRIBUTION = "pyvene", "pyvene"


def load(folder: Path) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.tokenizer = AutoTokenizer.from_pretrained(folder)
    return model.eval()


def inputs(part: Work) -> dict[str, object]:
    return {"input_ids": part.tokens, "use_cache": False}


def read_last(model: PreTrainedModel, normed: Tensor, part: Work) -> Found:
    """Read the last token of what the model inside returns."""
    return read(model.lm_head(normed[:, -1]), part.answers)


def before(model: PreTrainedModel, task: str, work: Work, at_a_time: int) -> Found | None:
    """What effects of heads are relative to."""
    if task != "heads":
        return None
    found = []
    for part in work.parts(at_a_time):
        found.append(read_last(model, model.model(**inputs(part)).last_hidden_state, part))
    return joined(found, dim=0)


def edited(
    model: PreTrainedModel,
    work: Work,
    at_a_time: int,
    component: str,
    intervention: pyvene.VanillaIntervention,
    subspace: int | None = None,
) -> Found:
    """Log probabilities with one intervention at the last token of every prompt."""
    config = {"component": component, "intervention": intervention}
    hooked = pyvene.IntervenableModel(config, model.model)
    last = {"base": work.tokens.shape[1] - 1}
    found = []
    for part in work.parts(at_a_time):
        _, after = hooked(base=inputs(part), unit_locations=last, subspaces=subspace)
        found.append(read_last(model, after.last_hidden_state, part))
    return joined(found, dim=0)


def inject(model: PreTrainedModel, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    found = []
    for layer in layers:
        theta = pyvene.VanillaIntervention(source_representation=work.vectors[layer])
        found.append(edited(model, work, at_a_time, f"layers[{layer}].output", theta))
    return stacked(found)


def heads(
    model: PreTrainedModel, work: Work, layers: list[int], at_a_time: int, clean: Found
) -> Found:
    _, n_heads, d_head = work.vectors.shape
    parts = [[head * d_head, (head + 1) * d_head] for head in range(n_heads)]
    found = []
    for layer in layers:
        component = f"layers[{layer}].self_attn.o_proj.input"
        for head in range(n_heads):
            mean = pyvene.VanillaIntervention(
                source_representation=work.vectors[layer].flatten(), subspace_partition=parts
            )
            found.append(edited(model, work, at_a_time, component, mean, head))
    read_out = stacked(found)
    return {**read_out, "effect": read_out["logprob"].exp() - clean["logprob"].exp()}


def collected(model: PreTrainedModel, part: Work, tokens: list[int]) -> Tensor:
    """The residual stream after every block at chosen tokens, `[layer, prompt, token, d_model]`."""
    places = [
        {
            "component": f"layers[{layer}].output",
            "intervention": pyvene.CollectIntervention(),
        }
        for layer in range(len(model.model.layers))
    ]
    hooked = pyvene.IntervenableModel(places, model.model)
    (_, values), _ = hooked(base=inputs(part), unit_locations={"base": tokens})
    return torch.stack(values)


def lens(model: PreTrainedModel, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    found = []
    for part in work.parts(at_a_time):
        stream = collected(model, part, [part.tokens.shape[1] - 1])[:, :, 0]
        logits = (model.lm_head(model.model.norm(here)) for here in stream)
        found.append(stacked([read(row, part.answers) for row in logits]))
    return joined(found, dim=1)


def stream(model: PreTrainedModel, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    tokens = list(range(work.tokens.shape[1]))
    parts = [collected(model, w, tokens) for w in work.parts(at_a_time)]
    return {"stream": torch.cat(parts, dim=1)}
