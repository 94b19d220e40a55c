"""Facts about model families that their configuration tells before any weights are read."""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

from icl_mech.errors import ModelError

_NEEDED = (
    "Expected a causal language model (decoder only); Llama, Qwen, Gemma, GPT-2, GPT-NeoX, OLMo, "
    "Mistral and Mamba are some"
)


def refuse_config(name: str, config: Any, architectures: Sequence[str] = ()) -> None:
    """Refuse a family that no engine can edit.

    Args:
        name: of the model, for the message.
        config: the Transformers configuration.
        architectures: names of classes; by default those in the configuration.

    Raises:
        ModelError: naming the family, and the kinds of models that can be edited.
    """
    named = list(architectures or getattr(config, "architectures", None) or [])
    architecture = next(iter(named), type(config).__name__)
    why = _refused(architecture, config)
    if why is None and named and not set(named) & set(SUPPORTED_ARCHITECTURES):
        near = get_close_matches(architecture, SUPPORTED_ARCHITECTURES, n=1, cutoff=0.8)
        hint = f" (it has one for {near[0]})" if near else ""
        why = f"TransformerLens {version('transformer-lens')} has no adapter for it{hint}"
    if why is not None:
        raise ModelError(f"{name}: {architecture} cannot be edited: {why}. {_NEEDED}")


def _refused(architecture: str, config: Any) -> str | None:
    """The reason why a family cannot be edited although TransformerLens may know it, or None."""
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder beside its decoder"
    groups = getattr(config, "num_kv_heads", 1)
    if getattr(config, "new_decoder_architecture", False) and groups != 1:
        return (
            "it is a new-style Falcon, whose fused queries, keys and values are cut by groups; "
            "TransformerLens cuts them as the old style has it"
        )
    return None


def why_not_replayed(config: Any) -> str | None:
    """The reason why the blocks of a family cannot run one at a time; None if no reason is known.

    Other obstacles are found when the model is tried (see `verification`).

    >>> from transformers import FalconConfig, LlamaConfig
    >>> why_not_replayed(LlamaConfig()) is None
    True
    >>> why_not_replayed(FalconConfig())
    "TransformerLens wraps Falcon's blocks in functions without named arguments"
    """
    match getattr(config, "model_type", None):
        case "falcon":
            return "TransformerLens wraps Falcon's blocks in functions without named arguments"
        case "falcon_h1":
            return "each of its blocks runs a state-space mixer (Mamba) beside attention"
        case "opt" if not config.do_layer_norm_before:
            return "it is an OPT (350M) whose norms come after attention and MLP, none at the end"
        case "llama4" | "llama4_text":
            return "Llama 4 sees chunks of a prompt in most blocks"
    return None


def missing_sites(config: Any) -> dict[str, str]:
    """Sites whose hooks exist in a family, but show another activation than the name says, and why.

    >>> from transformers import OPTConfig
    >>> list(missing_sites(OPTConfig(do_layer_norm_before=False)))
    ['resid_mid']
    """
    match getattr(config, "model_type", None):
        case "opt" if not config.do_layer_norm_before:
            return {"resid_mid": "its norms come after attention and MLP"}
        case "bloom" if config.apply_residual_connection_post_layernorm:
            return {"resid_mid": "its MLP adds to the norm of the stream, not to the stream"}
        case "falcon_h1" if config.attention_out_multiplier != 1:
            return {"attn_out": "a factor and a state-space mixer come after the hook"}
    return {}
