"""Functions that work for a bridge and for a `HookedTransformer`: modules, logits, forward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import align_module_device
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from icl_mech.errors import InputError
from icl_mech.model.norms import computed_once, norms_in


def is_bridge(bridge: Any) -> bool:
    """Whether it is a `TransformerBridge`, not a `HookedTransformer`."""
    return hasattr(bridge, "original_model")


def module_of(bridge: Any) -> nn.Module:
    """The module that holds the weights: a bridge's Transformers model, else the model itself."""
    module: nn.Module = getattr(bridge, "original_model", bridge)
    return module


def device_of(bridge: Any) -> torch.device:
    """The device for a model's input tokens; weights may be on several devices, or on disk.

    Raises:
        InputError: where weights are not loaded at all.
    """
    module = module_of(bridge)
    first, *others = [parameter.device for parameter in module.parameters()]
    if all(device.type != "meta" for device in (first, *others)):
        return first
    # Accelerate keeps these weights elsewhere; its hooks name the device where they are used.
    hooks = (getattr(inner, "_hf_hook", None) for inner in module.modules())
    devices = (getattr(hook, "execution_device", None) for hook in hooks)
    used = next((device for device in devices if device is not None), None)
    if used is None:
        raise InputError(
            f"weights of the {type(bridge).__name__} are on the device 'meta', and hold no "
            "numbers; expected a model whose weights have been loaded"
        )
    return first if first.type != "meta" else torch.device(used)


def is_quantised(bridge: Any) -> bool:
    """Whether a model has quantised weights."""
    model = module_of(bridge)
    return bool(getattr(model, "is_quantized", False)) or any(
        not parameter.is_floating_point() for parameter in model.parameters()
    )


def places_of(bridge: Any) -> str:
    """Where a model's weights are: one device, or several, as in `"cuda:0+cpu+disk"`."""
    spread = getattr(module_of(bridge), "hf_device_map", None)
    if not spread:
        return str(device_of(bridge))
    named = (f"cuda:{place}" if isinstance(place, int) else str(place) for place in spread.values())
    return "+".join(dict.fromkeys(named))


@contextmanager
def at_hand(module: nn.Module) -> Iterator[None]:
    """Make sure that a module's weights are loaded, also if accelerate keeps them on disk."""
    with ExitStack() as stack:
        for inner in module.modules():
            if hasattr(inner, "_hf_hook"):
                stack.enter_context(align_module_device(inner))
        yield


def trains(bridge: Any) -> bool:
    """Whether it is a Transformers model in training mode, so that dropout acts."""
    module = module_of(bridge)
    return isinstance(module, PreTrainedModel) and module.training


def architecture_of(bridge: Any) -> str:
    """The name of the model's class in Transformers."""
    named = getattr(bridge.cfg, "architecture", None) or getattr(
        bridge.cfg, "original_architecture", None
    )
    return str(named or type(bridge).__name__)


def context_length(bridge: Any) -> int | None:
    """The most tokens that a model can read; None if there is no limit, as in Mamba."""
    limit = getattr(bridge.cfg, "n_ctx", None)
    config = getattr(module_of(bridge), "config", None)
    if config is not None and not any(getattr(config, name, None) for name in CONTEXT):
        return None  # `n_ctx` is then invented by TransformerLens
    return int(limit) if limit else None


def sliding_window(bridge: Any) -> int | None:
    """The sliding window in a model's configuration, whether or not any block uses it."""
    config = getattr(module_of(bridge), "config", None)
    found = getattr(config, "sliding_window", None) or getattr(config, "window_size", None)
    return int(found) if found else None


def reads_length(bridge: Any) -> bool:
    """Whether a model's position tables depend on the longest prompt of the batch.

    >>> from types import SimpleNamespace
    >>> model = nn.Module()
    >>> model.config = SimpleNamespace(rope_parameters={"rope_type": "dynamic"})
    >>> reads_length(model)
    True
    """
    config = getattr(module_of(bridge), "config", None)
    found = getattr(config, "rope_parameters", None) or {}
    # There is one set of parameters, or one for each kind of block.
    each = [found, *(v for v in found.values() if isinstance(v, dict))]
    return any(parameters.get("rope_type") in ("dynamic", "longrope") for parameters in each)


def some_tokens(d_vocab: int, n: int) -> list[int]:
    """Arbitrary tokens for trying a model: all different if its vocabulary is large enough.

    >>> some_tokens(10, 4)
    [3, 0, 7, 4]
    """
    return [(7 * i + 3) % d_vocab for i in range(n)]


#: Names of the context length in configurations of Transformers.
CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")


def refuse_no_hooks(bridge: Any, names: Sequence[str]) -> None:
    """Raise InputError unless every block has each hook; a name has a `{}` for the block."""
    known = bridge.hook_dict
    for name in names:
        for layer in range(bridge.cfg.n_layers):
            if name.format(layer) not in known:
                raise InputError(
                    f"{architecture_of(bridge)} has no {name.format(layer)!r}, which this question "
                    "reads in every block; expected a model with attention in each"
                )


@dataclass(frozen=True)
class Unembedding:
    """Computes logits from the residual stream after the last block.

    Attributes:
        norm: the final norm, of `[batch, token, d_model]`. (OPT 350M has none; a projection narrows
            the stream instead.)
        w_u: the unembedding, `[d_model, d_vocab]`.
        b_u: its bias, `[d_vocab]`.
        transform: applied to the logits afterwards: a factor (Cohere) or a soft cap (Gemma 2).
        place: the device of the norm's weights (a model may lie on several devices).
    """

    norm: Callable[[Tensor], Tensor]
    w_u: Float[Tensor, "d_model d_vocab"]
    b_u: Float[Tensor, "d_vocab"]
    transform: Callable[[Tensor], Tensor]
    place: torch.device

    def logits(self, resid: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
        """Whole rows of logits; `ChunkedLogits` takes less memory."""
        return self.transform(self.hidden(resid) @ self.w_u + self.b_u)

    def hidden(self, resid: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_hidden"]:
        """The unembedding's input: the normed stream, in the number format of `w_u`.

        (Mamba's stream stays float32 in a half-precision model.)
        """
        return self.norm(resid[None].to(self.place))[0].to(self.w_u)

    @staticmethod
    def of(bridge: Any) -> "Unembedding":
        """The unembedding of a model."""
        norm = getattr(bridge, "ln_final", None) or bridge.project_out
        adapter = getattr(bridge, "adapter", None)
        transform = _soft_cap(bridge) if adapter is None else adapter.apply_output_logits_transform
        with at_hand(bridge.unembed), at_hand(norm):
            w_u, b_u = bridge.unembed.W_U, bridge.unembed.b_U
            place = next((p.device for p in norm.parameters()), w_u.device)
            return Unembedding(norm, w_u, b_u, transform, place)


def _soft_cap(bridge: Any) -> Callable[[Tensor], Tensor]:
    """The soft cap of a `HookedTransformer` on its logits; the identity if it has none."""
    cap = float(getattr(bridge.cfg, "output_logits_soft_cap", None) or 0)
    return (lambda logits: cap * torch.tanh(logits / cap)) if cap > 0 else (lambda logits: logits)


class _ReachedError(Exception):
    """Raised after the last block; holds the residual stream that left it."""

    def __init__(self, stream: Tensor) -> None:
        super().__init__()
        self.stream = stream


def final_stream(
    bridge: Any, tokens: Int[Tensor, "row token"]
) -> Float[Tensor, "row token d_model"]:
    """The residual stream after the last block, by one forward pass that stops there.

    All hooks of the blocks act in this pass. It computes no logits: over a vocabulary of 262,144,
    the logits of all tokens would take more time and memory than the blocks.
    """

    def stop(block: Any, args: Any, out: Any) -> None:
        raise _ReachedError(out[0] if isinstance(out, tuple) else out)

    handle = bridge.blocks[-1].register_forward_hook(stop)
    try:
        # A mask of ones: if the tokenizer pads with the end-of-text token, the first token of a
        # prompt could otherwise be taken for padding.
        with computed_once(norms_in(bridge.blocks)):
            bridge(tokens, attention_mask=torch.ones_like(tokens))
    except _ReachedError as reached:
        return reached.stream.to(tokens.device)
    finally:
        handle.remove()
    raise AssertionError("the model never reached the end of its last block")


def logits_after(bridge: Any, tokens: Int[Tensor, "row token"]) -> Float[Tensor, "row d_vocab"]:
    """The model's own logits after the last token, by its ordinary forward pass."""
    only_last = {"logits_to_keep": 1} if is_bridge(bridge) else {}
    logits: Tensor = bridge(tokens, attention_mask=torch.ones_like(tokens), **only_last)
    return logits[:, -1]
