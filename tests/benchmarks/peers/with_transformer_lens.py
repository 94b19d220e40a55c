"""The four tasks in TransformerLens: batched `run_with_hooks`, caches of chosen activations.

`patching.generic_activation_patch` runs the same forward passes, with all logits: here the model is
asked for those of the last token. `start_at_layer` saves no time in TransformerLens 4.3, which
runs the blocks before it all the same.
"""

from pathlib import Path

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer
from work import Found, Work, joined, read, stacked

NAME, DISTRIBUTION = "TransformerLens", "transformer-lens"
LAST = {"logits_to_keep": 1, "use_cache": False}


def load(folder: Path) -> TransformerBridge:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return TransformerBridge.boot_transformers(
        str(folder), hf_model=model, tokenizer=tokenizer, device="cpu", dtype=torch.float32
    )


def before(model: TransformerBridge, task: str, work: Work, at_a_time: int) -> Found | None:
    """What effects of heads are relative to."""
    if task != "heads":
        return None
    parts = work.parts(at_a_time)
    return joined([read(model(w.tokens, **LAST)[:, -1], w.answers) for w in parts], dim=0)


def inject(
    model: TransformerBridge, work: Work, layers: list[int], at_a_time: int, _: None
) -> Found:
    return stacked([inject_at(model, work, layer, at_a_time) for layer in layers])


def inject_at(model: TransformerBridge, work: Work, layer: int, at_a_time: int) -> Found:
    def write(stream: Tensor, hook: object) -> Tensor:
        stream[:, -1] = work.vectors[layer]
        return stream

    hooks = [(f"blocks.{layer}.hook_resid_post", write)]
    found = []
    for part in work.parts(at_a_time):
        logits = model.run_with_hooks(part.tokens, fwd_hooks=hooks, **LAST)
        found.append(read(logits[:, -1], part.answers))
    return joined(found, dim=0)


def heads(
    model: TransformerBridge, work: Work, layers: list[int], at_a_time: int, clean: Found
) -> Found:
    found = joined([heads_of(model, work, layer, at_a_time) for layer in layers], dim=0)
    return {**found, "effect": found["logprob"].exp() - clean["logprob"].exp()}


def heads_of(model: TransformerBridge, work: Work, layer: int, at_a_time: int) -> Found:
    """All heads of a block in one batch: each head has its own copy of the prompts."""
    n_heads = len(work.vectors[layer])

    def write(z: Tensor, hook: object) -> Tensor:
        rows = z.unflatten(0, (n_heads, -1))
        for head in range(n_heads):
            rows[head, :, -1, head] = work.vectors[layer, head]
        return z

    hooks = [(f"blocks.{layer}.attn.hook_z", write)]
    found = []
    for part in work.parts(at_a_time):
        tokens = part.tokens.repeat(n_heads, 1)
        logits = model.run_with_hooks(tokens, fwd_hooks=hooks, **LAST)
        one = read(logits[:, -1], part.answers.repeat(n_heads))
        found.append({key: values.unflatten(0, (n_heads, -1)) for key, values in one.items()})
    return joined(found, dim=1)


def cached(model: TransformerBridge, tokens: Tensor, **where: int) -> Tensor:
    """The residual stream after every block, `[layer, prompt, token, d_model]`."""
    _, cache = model.run_with_cache(
        tokens, names_filter=lambda name: name.endswith("hook_resid_post"), **where, **LAST
    )
    return torch.stack([cache["resid_post", layer] for layer in range(model.cfg.n_layers)])


def lens(model: TransformerBridge, work: Work, layers: list[int], at_a_time: int, _: None) -> Found:
    found = []
    for part in work.parts(at_a_time):
        last = cached(model, part.tokens, pos_slice=-1).flatten(1, -2)
        logits = (model.unembed(model.ln_final(here[None]))[0] for here in last)
        found.append(stacked([read(row, part.answers) for row in logits]))
    return joined(found, dim=1)


def stream(
    model: TransformerBridge, work: Work, layers: list[int], at_a_time: int, _: None
) -> Found:
    return {"stream": torch.cat([cached(model, w.tokens) for w in work.parts(at_a_time)], dim=1)}
