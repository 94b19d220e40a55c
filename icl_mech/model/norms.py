"""Runs the norms of a bridge without the computations that only hooks need.

TransformerLens's norms compute the scale and the normalised stream, pass them to `hook_scale` and
`hook_normalized`, and then let Transformers' own norm compute the output from the start. If neither
hook is used, Transformers' norm alone gives the same output, to the last bit.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from torch import Tensor, nn
from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge

#: The method of a norm that computes the output twice.
_TWICE = "_hf_autograd_forward_with_hooks"
#: Attributes of a hook point that hold its hooks, of TransformerLens and of torch.
_KEPT = ("fwd_hooks", "bwd_hooks", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks")


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
