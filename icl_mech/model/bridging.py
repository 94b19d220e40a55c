"""Builds a TransformerLens bridge round a model of Transformers, and takes models as they are."""

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from icl_mech.errors import InputError, ModelError, first_line
from icl_mech.model.families import refuse_config
from icl_mech.model.network import architecture_of, device_of, logits_after, some_tokens
from icl_mech.model.sources import label
from icl_mech.model.verification import refuse_training, tolerance_of


def as_bridge(model: nn.Module, tokenizer: Any = None) -> Any:
    """A model object as something to hook: itself, or a bridge round a model of Transformers.

    Args:
        model: a `TransformerBridge`, a `HookedTransformer`, a Transformers model for causal
            language modelling, or peft's wrapper of one.
        tokenizer: of a Transformers model.

    Raises:
        InputError: where it is another kind of module, or has no tokenizer.
        ModelError: where the family cannot be edited.
    """
    kind = type(model).__name__
    if is_hookable(model):
        if tokenizer is not None:
            raise InputError(f"tokenizer= beside a {kind}; expected none: it has its own")
        if getattr(model, "tokenizer", None) is None:
            raise InputError(
                f"the {kind} has no tokenizer; expected one: pass tokenizer= where it is made"
            )
        return model
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(inner, PreTrainedModel) or inner.get_output_embeddings() is None:
        raise InputError(
            f"model is a {kind}; expected a TransformerBridge, a HookedTransformer, or a causal "
            "language model of Transformers (or the name or folder of one)"
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        what = "no tokenizer" if tokenizer is None else f"a {type(tokenizer).__name__} as tokenizer"
        raise InputError(
            f"a {kind} with {what}; expected tokenizer=, as AutoTokenizer.from_pretrained gives it"
        )
    name = label(str(inner.config.name_or_path or "")) or type(inner).__name__
    refuse_config(name, inner.config, [type(inner).__name__])
    try:
        return bridge_round(inner, tokenizer, name)
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{name}: TransformerLens builds no bridge round a {type(inner).__name__} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


def is_hookable(model: Any) -> bool:
    """Whether it is a TransformerLens model already: a bridge, or version 3's other class."""
    classes = [f"{c.__module__.split('.')[0]}.{c.__name__}" for c in type(model).__mro__]
    return "transformer_lens.HookedTransformer" in classes or isinstance(model, TransformerBridge)


@torch.no_grad()
def bridge_round(model: PreTrainedModel, tokenizer: Any, name: str) -> TransformerBridge:
    """A bridge round a model, where the model is.

    Args:
        model: in evaluation mode; its modules go into the bridge.
        tokenizer: its own.
        name: what results call it.

    Raises:
        InputError: where the model is in training mode.
        ModelError: where TransformerLens computes other numbers than Transformers.
    """
    embedding = model.get_input_embeddings().weight
    device = device_of(model)
    tokens = torch.tensor([some_tokens(embedding.shape[0], 8)], device=device)
    refuse_training(model)
    expected = model(tokens).logits[:, -1]
    # TransformerLens would read the tokenizer a second time, to make it prepend BOS. The caller's
    # begins no text by itself, and the bridge looks at what the tokenizer does.
    kept = dict(tokenizer.init_kwargs)
    tokenizer.init_kwargs["add_bos_token"] = True
    try:
        bridge = TransformerBridge.boot_transformers(
            model.config.name_or_path or name,
            hf_model=model,
            tokenizer=tokenizer,
            device=device,
            dtype=model.dtype,
        )
    finally:
        tokenizer.init_kwargs = kept
    bridge.cfg.model_name = name
    _refuse_other_logits(bridge, tokens, expected)
    return bridge


def _refuse_other_logits(bridge: Any, tokens: Tensor, expected: Tensor) -> None:
    """Raise ModelError where TransformerLens computes something else than Transformers did."""
    wide = torch.promote_types(expected.dtype, torch.float32)
    said = logits_after(bridge, tokens).to(wide).log_softmax(dim=-1)
    theirs = expected.to(wide).log_softmax(dim=-1)
    top = theirs.argmax(dim=-1, keepdim=True)
    miss = float((said - theirs).gather(1, top).abs())
    if not miss <= tolerance_of(expected.dtype):
        raise ModelError(
            f"{architecture_of(bridge)} cannot be edited: through TransformerLens its log "
            f"probabilities differ by {miss:.2g} from those of Transformers"
        )
