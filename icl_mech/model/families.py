"""Families of models that the engine cannot run, refused by name before their weights are read.

The engine runs blocks one at a time on tokens of its own choice (see `blocks`). That needs a
decoder whose blocks have attention, keep nothing of earlier tokens but their keys and values, and
are called with named arguments that can be made for any position. Families that are not refused
here are tried when they are loaded (see `verification`).
"""

from collections.abc import Sequence
from difflib import get_close_matches
from importlib.metadata import version
from typing import Any

from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES

from icl_mech.errors import ModelError

NEEDED = (
    "Expected a decoder whose blocks are called alike, with attention in every block and no other "
    "memory; Llama, Qwen2, Gemma, GPT-2, GPT-NeoX, OLMo, Phi-3 and Mistral are some"
)


def refuse_config(name: str, config: Any, architectures: Sequence[str] = ()) -> None:
    """Refuse a family that cannot be edited, by its configuration.

    Args:
        name: of the model, for the message.
        config: the Transformers configuration.
        architectures: by default those that the configuration names.

    Raises:
        ModelError: saying what the family is, and what would be needed.
    """
    named = list(architectures or getattr(config, "architectures", None) or [])
    architecture = next(iter(named), type(config).__name__)
    why = _reason(architecture, config)
    if why is None and named and not set(named) & set(SUPPORTED_ARCHITECTURES):
        near = get_close_matches(architecture, SUPPORTED_ARCHITECTURES, n=1, cutoff=0.8)
        hint = f" (it has one for {near[0]})" if near else ""
        why = f"TransformerLens {version('transformer-lens')} has no adapter for it{hint}"
    if why is not None:
        raise ModelError(f"{name}: {architecture} cannot be edited: {why}. {NEEDED}")


def _reason(architecture: str, config: Any) -> str | None:
    """Why the engine cannot run a family that TransformerLens knows; None if it can."""
    match architecture:
        case "FalconForCausalLM" if getattr(config, "new_decoder_architecture", False):
            return (
                "it is a new-style Falcon, whose fused queries, keys and values are cut by groups; "
                "TransformerLens cuts them as the old style has it, and would need a cut by groups"
            )
        case "FalconForCausalLM":
            return (
                "TransformerLens wraps Falcon's blocks in functions without named arguments; "
                "the engine needs the names to make a block's mask and positions itself"
            )
        case "FalconH1ForCausalLM":
            return (
                "each of its blocks runs a state-space mixer (Mamba) beside attention; the engine "
                "would need to share and to branch the mixer's state, as it does keys and values"
            )
        case "OPTForCausalLM" if (
            config.word_embed_proj_dim != config.hidden_size or not config.do_layer_norm_before
        ):
            return (
                "it is an OPT (350M) that has no norm after its last block and narrows the stream "
                "before the unembedding; the engine would need to read out through both"
            )
        case "Llama4ForCausalLM" | "Llama4ForConditionalGeneration":
            return (
                "Llama 4 sees chunks of a prompt in most blocks, and turns queries by one complex "
                "table; the engine would need masks by chunk and that table for any position"
            )
    return None
