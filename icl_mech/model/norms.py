"""Runs norms without the computations that only hooks need, and in fewer passes over memory.

TransformerLens's norms compute the scale and the normalised stream, pass them to `hook_scale` and
`hook_normalized`, and then let Transformers' own norm compute the output from the start. If neither
hook is used, Transformers' norm alone gives the same output, to the last bit.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge

#: The method of a norm that computes the output twice.
_TWICE = "_hf_autograd_forward_with_hooks"
#: Attributes of a hook point that hold its hooks, of TransformerLens and of torch.
_KEPT = ("fwd_hooks", "bwd_hooks", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks")

#: The names under which Transformers' RMS norms keep the number that is added to the mean square.
_EPSILON = ("variance_epsilon", "eps")


def norms_in(module: nn.Module) -> list[NormalizationBridge]:
    """The norms in a module that compute their output twice (none in a `HookedTransformer`)."""
    theirs = getattr(NormalizationBridge, _TWICE, None)
    return [
        norm
        for norm in module.modules()
        if isinstance(norm, NormalizationBridge) and getattr(type(norm), _TWICE, None) is theirs
    ]


@contextmanager
def computed_once(norms: Sequence[NormalizationBridge]) -> Iterator[None]:
    """Let norms without hooks inside compute their output only once, temporarily."""
    changed = [norm for norm in norms if not _watched(norm)]
    for norm in changed:
        setattr(norm, _TWICE, partial(_once, norm))
    try:
        yield
    finally:
        for norm in changed:
            delattr(norm, _TWICE)


def _once(norm: NormalizationBridge, x: Tensor) -> Tensor:
    """The output of Transformers' own norm, in the number format of the input."""
    out: Tensor = norm.original_component(x)
    return out.to(x.dtype)


def _watched(norm: NormalizationBridge) -> bool:
    """Whether a hook is set on the scale or on the normalised stream."""
    points = (norm.hook_scale, norm.hook_normalized)
    return any(getattr(point, kept, None) for point in points for kept in _KEPT)


def quicker(module: nn.Module) -> nn.Module:
    """A twin of an RMS norm that takes fewer passes over memory; any other module itself.

    Transformers computes `x * rsqrt(mean(x^2) + eps) * weight` operation by operation, as PyTorch's
    own `rms_norm` does on a CPU. The twin shares the weight and all hooks of the module, and leaves
    to it what is differentiated, and what is not float32. Whether it computes the same is tried on
    a few numbers.
    """
    known: Any = module
    eps = next((getattr(known, name) for name in _EPSILON if hasattr(known, name)), None)
    weight = getattr(known, "weight", None)
    if (
        not isinstance(eps, float)
        or not isinstance(weight, nn.Parameter)
        or weight.ndim != 1
        or weight.dtype != torch.float32
        or weight.device.type != "cpu"
        or len(signature(type(module).forward).parameters) != 2
    ):
        return module
    some = torch.arange(2.0 * len(weight)).view(2, -1).sin()
    with torch.no_grad():
        expected = type(known).forward(known, some)
        for one_more in (False, True):
            twin = copy.copy(known)  # shares parameters and hooks
            vars(twin)["forward"] = partial(_rms_norm, twin, torch.tensor(eps), one_more)
            if torch.allclose(twin.forward(some), expected, rtol=1e-5, atol=1e-6):
                return twin
    return module


def _rms_norm(module: Any, eps: Tensor, one_more: bool, x: Tensor) -> Tensor:
    """`x * rsqrt(mean(x^2) + eps) * weight`, or in Gemma `* (1 + weight)`.

    The mean square comes from the vector norm, which reads `x` once and writes no squares. (That
    of very long vectors has no finite gradient.)
    """
    if torch.is_grad_enabled() or x.dtype != torch.float32:
        own: Tensor = type(module).forward(module, x)
        return own
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    out = x * torch.addcmul(eps, length, length, value=1 / x.shape[-1]).rsqrt_()
    weight = module.weight
    return out.addcmul_(out, weight) if one_more else out.mul_(weight)
