"""What an edit does to a model, by plain Transformers and PyTorch hooks.

It shares no code with TransformerLens or with the package's engines, to be compared with both.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from transformers import PreTrainedModel

from icl_mech.model import Edit


@dataclass(frozen=True)
class Places:
    """Names of a family's modules; all but `blocks` are inside a block.

    Attributes:
        blocks: the list of blocks.
        attn_out, mlp_out: whose output attention and the MLP add to the stream.
        z: whose input is the heads' outputs: the output projection.
        mid: whose input is the stream between attention and MLP; None where there is no such place.
        mixer: what stands in attention's place in some blocks.
        factor: the configuration's number by which the block multiplies `attn_out`.
        mlp_factor: the same for `mlp_out`.
    """

    blocks: str = "model.layers"
    attn_out: str = "self_attn"
    mlp_out: str = "mlp"
    z: str = "self_attn.o_proj"
    mid: str | None = "post_attention_layernorm"
    mixer: str | None = None
    factor: str | None = None
    mlp_factor: str | None = None


_GEMMA = Places(
    attn_out="post_attention_layernorm",
    mlp_out="post_feedforward_layernorm",
    mid="pre_feedforward_layernorm",
)
#: By the configuration's `model_type`; all others are as Llama.
PLACES = {
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    "olmo2": Places(
        attn_out="post_attention_layernorm", mlp_out="post_feedforward_layernorm", mid="mlp"
    ),
    "gpt2": Places("transformer.h", "attn", "mlp", "attn.c_proj", "ln_2"),
    "gpt_neo": Places("transformer.h", "attn", "mlp", "attn.attention.out_proj", "ln_2"),
    "gptj": Places("transformer.h", "attn", "mlp", "attn.out_proj", None),
    "gpt_neox": Places("gpt_neox.layers", "attention", "mlp", "attention.dense", None),
    "cohere": Places(mid=None),
    "falcon": Places(
        "transformer.h",
        "self_attention",
        "mlp",
        "self_attention.dense",
        "post_attention_layernorm",
    ),
    # Attention and MLP of these add the stream themselves.
    "bloom": Places(
        "transformer.h",
        "self_attention.dense",
        "mlp.dense_4h_to_h",
        "self_attention.dense",
    ),
    "mpt": Places("transformer.blocks", "attn", "ffn.down_proj", "attn.out_proj", "norm_2"),
    "opt": Places(
        "model.decoder.layers", "self_attn", "fc2", "self_attn.out_proj", "final_layer_norm"
    ),
    "granite": Places(factor="residual_multiplier", mlp_factor="residual_multiplier"),
    "llama4_text": Places(mlp_out="feed_forward"),
    "mamba": Places("backbone.layers", mid=None),
    "mamba2": Places("backbone.layers", mid=None),
    "falcon_h1": Places(
        mlp_out="feed_forward", mid="pre_ff_layernorm", factor="attention_out_multiplier"
    ),
    "jamba": Places(mlp_out="feed_forward", mid="pre_ff_layernorm", mixer="mamba"),
    "qwen3_next": Places(mixer="linear_attn"),
}


def places(model: PreTrainedModel) -> Places:
    """The names for a model."""
    return PLACES.get(model.config.model_type, Places())


def block_of(model: PreTrainedModel, layer: int) -> Module:
    """One of its blocks."""
    block: Module = attrgetter(places(model).blocks)(model)[layer]
    return block


def sites(model: PreTrainedModel, layer: int) -> list[str]:
    """The sites that a block has, as `Edit` calls them."""
    block, names = block_of(model, layer), places(model)
    found = ["resid_pre", "resid_post"]
    for site in ("attn_out", "mlp_out", "z"):
        with suppress(AttributeError):
            attrgetter(getattr(names, site))(block)
            found.append(site)
    # Where both read the stream that enters the block, or norms follow both, there is no place.
    between = names.mid is not None and hasattr(block, names.mid)
    parallel = getattr(model.config, "use_parallel_residual", False)
    last_norms = not getattr(model.config, "do_layer_norm_before", True)
    return found + ["resid_mid"] * (between and not parallel and not last_norms)


def reference_logprobs(
    model: PreTrainedModel, tokens: list[int], edit: Edit | None = None
) -> Tensor:
    """Log probabilities of the token after `tokens`, `[d_vocab]`, with one edit or none.

    Args:
        model: without a bridge round it, which would change its modules.
        tokens: of one prompt.
        edit: whose position is an index, and whose value is one vector; where it requires a
            gradient, there is one.
    """
    if edit is None:
        return _forward(model, tokens)
    assert isinstance(edit.position, int)
    at, value, names = edit.position % len(tokens), edit.value * edit.scale, places(model)
    block = block_of(model, edit.layer)
    factor = 1.0

    def written(old: Tensor) -> Tensor:
        new = old.clone()
        row = new.reshape(-1, new.shape[-1])[at]  # some modules see all tokens as one batch
        if edit.head is not None:
            row = row.unflatten(0, (model.config.num_attention_heads, -1))[edit.head]
        row.copy_(value / factor if edit.mode == "replace" else row + value / factor)
        return new

    def on_output(module: Module, args: tuple, output: Any) -> Any:
        return (written(output[0]), *output[1:]) if isinstance(output, tuple) else written(output)

    def on_input(module: Module, args: tuple, kwargs: dict[str, Any]) -> tuple:
        if args:
            return (written(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": written(kwargs["hidden_states"])}

    if edit.site == "resid_pre":
        handle = block.register_forward_pre_hook(on_input, with_kwargs=True)
    elif edit.site == "resid_post":
        handle = block.register_forward_hook(on_output)
    elif edit.site == "z":
        handle = attrgetter(names.z)(block).register_forward_pre_hook(on_input, with_kwargs=True)
    elif edit.site == "mlp_out":
        factor = getattr(model.config, names.mlp_factor) if names.mlp_factor else 1.0
        handle = attrgetter(names.mlp_out)(block).register_forward_hook(on_output)
    else:
        factor = getattr(model.config, names.factor) if names.factor else 1.0
        if edit.site == "resid_mid" and edit.mode == "replace":
            # The clean stream is known, so replacing it is adding the difference.
            clean = _input(model, tokens, getattr(block, names.mid))
            edit = replace(edit, mode="add")
            value = value - clean.reshape(-1, clean.shape[-1])[at]
        mixed = names.mixer is not None and hasattr(block, names.mixer)
        name = names.mixer if mixed else names.attn_out
        handle = attrgetter(name)(block).register_forward_hook(on_output)
    try:
        return _forward(model, tokens, edit.value.requires_grad)
    finally:
        handle.remove()


def _forward(model: PreTrainedModel, tokens: list[int], graph: bool = False) -> Tensor:
    """One plain forward of one prompt."""
    with torch.set_grad_enabled(graph):
        logits = model(torch.tensor([tokens]), use_cache=False).logits
    return logits[0, -1].float().log_softmax(dim=-1)


def _input(model: PreTrainedModel, tokens: list[int], module: Module) -> Tensor:
    """What enters a module in a forward without edits."""
    seen: list[Tensor] = []

    def keep(module: Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        _forward(model, tokens)
    finally:
        handle.remove()
    return seen[0]
