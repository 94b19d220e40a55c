"""Builds a TransformerLens bridge around a Transformers model, or takes a bridge as it is."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from icl_mech.errors import InputError, ModelError, first_line
from icl_mech.model.adapted import is_adapter_layer, is_peft_model
from icl_mech.model.families import refuse_config
from icl_mech.model.network import (
    architecture_of,
    device_of,
    is_quantised,
    logits_after,
    some_tokens,
)
from icl_mech.model.sources import label
from icl_mech.model.verification import refuse_training, tolerance_of


def as_bridge(model: nn.Module, tokenizer: Any = None) -> Any:
    """Return a model that can be hooked: the object itself, or a bridge around it.

    Args:
        model: a `TransformerBridge`, a `HookedTransformer`, a Transformers model for causal
            language modelling, or peft's wrapper of one.
        tokenizer: of a Transformers model.

    Raises:
        InputError: where it is another kind of module, has no tokenizer, is in training mode, is in
            a bridge already, or its weights are not loaded.
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
        device_of(model)
        return model
    inner = _base_of(model) if is_peft_model(model) else model
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
    if any(isinstance(part, GeneralizedComponent) for part in inner.modules()):
        raise InputError(
            f"the {kind} is in a bridge already, which has replaced parts of it; expected that "
            "bridge (.bridge of what load_model gave), or the model loaded anew"
        )
    name = label(str(inner.config.name_or_path or "")) or type(inner).__name__
    refuse_config(name, inner.config, [type(inner).__name__])
    # Checked before parts of the model are replaced, so that the caller can try again.
    refuse_other_tokenizer(name, tokenizer, inner.get_output_embeddings().weight.shape[0])
    try:
        # A copy: TransformerLens adds BOS and padding tokens to a tokenizer that lacks them.
        return bridge_round(inner, deepcopy(tokenizer), name)
    except (InputError, ModelError):
        raise
    except (RuntimeError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{name}: TransformerLens builds no bridge round a {type(inner).__name__} "
            f"({type(error).__name__}: {first_line(error)})"
        ) from error


def _base_of(model: Any) -> Any:
    """The model to which peft has added its adapters.

    Raises:
        InputError: where the adapter is virtual tokens before every prompt.
    """
    if model.active_peft_config.is_prompt_learning:
        raise InputError(
            f"the adapter of the {type(model).__name__} is of the kind "
            f"{model.peft_type}, which puts virtual tokens before every prompt; expected one "
            "inside the model's weights, such as LoRA"
        )
    return model.get_base_model()


def refuse_other_tokenizer(name: str, tokenizer: Any, size: int, sink: int = 0) -> None:
    """Raise ModelError where the tokenizer has ids that the model has no embeddings for.

    Args:
        name: of the model, for the message.
        tokenizer: the one to check.
        size: the number of the model's embeddings.
        sink: the token that prompts begin with.
    """
    beyond = [(i, t) for t, i in tokenizer.get_vocab().items() if i >= size]
    # Added tokens, for images and the like, may have ids beyond a text model's embeddings. (Listing
    # them takes half a second for a large vocabulary.)
    added = set(tokenizer.get_added_vocab().values()) if beyond else set()
    if sink >= size or any(i not in added for i, _ in beyond):
        worst, text = max(beyond)
        raise ModelError(
            f"{name}: the tokenizer gives numbers up to {worst} ({text!r}), and the model "
            f"has embeddings for {size} tokens; expected the tokenizer that the model was "
            "trained with"
        )


def is_hookable(model: Any) -> bool:
    """Whether it is a TransformerLens model: a bridge, or a `HookedTransformer` of version 3."""
    classes = [f"{c.__module__.split('.')[0]}.{c.__name__}" for c in type(model).__mro__]
    return "transformer_lens.HookedTransformer" in classes or isinstance(model, TransformerBridge)


@torch.no_grad()
def bridge_round(model: PreTrainedModel, tokenizer: Any, name: str) -> TransformerBridge:
    """Build a bridge around a model, on the model's device.

    Args:
        model: in evaluation mode; its modules become part of the bridge.
        tokenizer: the model's tokenizer.
        name: the model's name in results.

    Raises:
        InputError: where the model is in training mode, or its weights are not loaded.
        ModelError: where the model is not causal, or TransformerLens computes other numbers than
            Transformers.
    """
    embedding = model.get_input_embeddings().weight
    device = device_of(model)
    tokens = torch.tensor([some_tokens(embedding.shape[0], 8)], device=device)
    refuse_training(model)
    _refuse_packed_unembedding(model, name)
    try:
        logits = model(tokens).logits
    except Exception as error:  # of any library that the model's layers come from
        raise ModelError(
            f"{name}: the {type(model).__name__} itself fails on a text of {tokens.shape[1]} "
            f"tokens ({type(error).__name__}: {first_line(error)})"
        ) from error
    _refuse_two_ways(model, name, tokens, logits)
    expected = logits[:, -1]
    # TransformerLens would read the tokenizer a second time, to make it prepend BOS. With this
    # entry it keeps the caller's tokenizer, and the bridge looks at what that tokenizer does.
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


def _refuse_packed_unembedding(model: Any, name: str) -> None:
    """Raise ModelError where the unembedding is quantised: logits are computed in slices of it."""
    if not model.get_output_embeddings().weight.is_floating_point():
        raise ModelError(
            f"{name}: the unembedding is quantised; expected floating-point numbers there, as "
            "Transformers leaves them unless it is told otherwise"
        )


def _refuse_two_ways(model: Any, name: str, tokens: Tensor, logits: Tensor) -> None:
    """Raise ModelError where a later token changes the logits after earlier tokens."""
    other = tokens.clone()
    other[0, -1] = tokens[0, 0]
    moved = (model(other).logits - logits).abs().amax(dim=-1)[0]
    # Other tokens in the same batch may change a number's last digits.
    exact = logits.dtype in (torch.float32, torch.float64) and not is_quantised(model)
    if moved[:-1].max() > (1e-3 if exact else 0.1) * moved[-1]:
        raise ModelError(
            f"{name}: {type(model).__name__} reads both ways: the last token of a text changes "
            "what it says after the first ones; expected a causal language model"
        )


def _refuse_other_logits(bridge: Any, tokens: Tensor, expected: Tensor) -> None:
    """Raise ModelError where TransformerLens computes other logits than Transformers did."""
    wide = torch.promote_types(expected.dtype, torch.float32)
    said = logits_after(bridge, tokens).to(wide).log_softmax(dim=-1)
    theirs = expected.to(wide).log_softmax(dim=-1)
    top = theirs.argmax(dim=-1, keepdim=True)
    miss = float((said - theirs).gather(1, top).abs())
    if not miss <= tolerance_of(expected.dtype):
        adapted = any(is_adapter_layer(part) for part in bridge.original_model.modules())
        hint = adapted * (
            ". It reads a projection of queries, keys and values together past its adapter: merge "
            "that first, load_model(model.merge_and_unload(), tokenizer=...)"
        )
        raise ModelError(
            f"{architecture_of(bridge)} cannot be edited: through TransformerLens its log "
            f"probabilities differ by {miss:.2g} from those of Transformers{hint}"
        )
