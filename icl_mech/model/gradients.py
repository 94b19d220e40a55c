"""Gradients of the answer's probability with respect to every head's output."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import InputError, NotFiniteError
from icl_mech.model.edits import HOOKS
from icl_mech.model.engine import Engine, Tokens, join_each
from icl_mech.model.network import Unembedding, is_quantised, module_of, refuse_no_hooks
from icl_mech.model.verification import refuse_training
from icl_mech.progress import Tick, silent


def head_gradients(
    engine: Engine,
    prompts: Sequence[Tokens],
    answers: Sequence[int],
    rivals: Sequence[Sequence[int]] | None = None,
    tick: Tick = silent,
) -> tuple[Float[Tensor, "prompt layer head d_head"], Float[Tensor, "prompt layer head d_head"]]:
    """Every head's output at the last token, and a gradient with respect to it.

    The gradient is that of p(answer) or, with rivals, of the answer's logit minus the rivals' mean
    logit. Several prompts run at a time, fewer when memory runs out. (TransformerLens 3 has no
    function for activations with their gradients; that of version 4 takes only a bridge.)

    Raises:
        InputError: where weights are quantised (gradients through them mean little or nothing),
            the model is in training mode, or the numbers of prompts, answers and rivals differ.
        NotFiniteError: where an output or a gradient is not finite.
        ModelError: where not even one prompt fits into memory.
    """
    bridge = engine.bridge
    refuse_quantised(bridge, *NO_GRADIENTS)
    refuse_training(bridge)
    refuse_no_hooks(bridge, [HOOKS["z"]])
    n, n_rivals = len(prompts), len(prompts) if rivals is None else len(rivals)
    if not n or not len(answers) == n_rivals == n:
        raise InputError(
            f"{len(answers)} answers and {n_rivals} sets of rivals for {n} prompts; expected one "
            "of each per prompt, and at least one"
        )

    def run(rows: list[int]) -> tuple[Tensor, ...]:
        metric = _metric([answers[r] for r in rows], rivals and [rivals[r] for r in rows])
        with torch.enable_grad(), frozen(bridge), _recording(bridge) as heads:
            last, at = engine.last_tokens([prompts[r] for r in rows])
            # The metric is a sum over prompts, so each prompt's gradient is that of its own term.
            found = torch.autograd.grad(metric(Unembedding.of(bridge).logits(last)), heads)
        outputs, gradients = (
            torch.stack([_at(values.detach(), at) for values in each], dim=1)
            for each in (heads, found)
        )
        _refuse_not_finite(outputs, gradients)
        tick(len(rows))
        wide = torch.promote_types(outputs.dtype, torch.float32)
        return outputs.to(wide), gradients.to(wide)

    with torch.inference_mode(False):
        engine.prepare(max(map(len, prompts)))
        outputs, gradients = engine.in_batches([len(t) for t in prompts], run, join_each)
    return outputs, gradients


@contextmanager
def _recording(bridge: Any) -> Iterator[list[Tensor]]:
    """Record every head's output of one forward pass, block by block, in autograd's graph.

    The graph begins at the stream that enters block 0, so that gradients exist even if the weights
    are frozen.
    """
    heads: list[Tensor] = []

    def begin(stream: Tensor, hook: Any) -> Tensor:
        return stream.detach().requires_grad_(torch.is_grad_enabled())

    def keep(z: Tensor, hook: Any) -> Tensor:
        if torch.is_grad_enabled():
            # A bridge's activation here may be a view outside the graph; the returned copy is used.
            z = z.clone()
            heads.append(z)
        return z

    hooks: list[tuple[str, Callable[..., Tensor]]] = [(HOOKS["resid_pre"].format(0), begin)]
    hooks += [(HOOKS["z"].format(layer), keep) for layer in range(bridge.cfg.n_layers)]
    with bridge.hooks(fwd_hooks=hooks):
        yield heads


@contextmanager
def frozen(bridge: Any) -> Iterator[None]:
    """Freeze the weights temporarily, so that autograd keeps nothing for their gradients."""
    trained = [p for p in module_of(bridge).parameters() if p.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


def _at(values: Tensor, index: Int[Tensor, "prompt"]) -> Tensor:
    """Pick one token of each prompt, and move it to the index's device."""
    rows = torch.arange(len(index), device=values.device)
    return values[rows, index.to(values.device)].to(index.device)


def _metric(
    answers: Sequence[int], rivals: Sequence[Sequence[int]] | None
) -> Callable[[Tensor], Tensor]:
    """A sum over prompts, so that each prompt's gradient is that of its own term."""

    def metric(logits: Tensor) -> Tensor:
        wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
        rows = torch.arange(len(answers), device=wide.device)
        if rivals is None:
            return wide.softmax(dim=-1)[rows, list(answers)].sum()
        others = [row[list(of)].mean() for row, of in zip(wide, rivals, strict=True)]
        return (wide[rows, list(answers)] - torch.stack(others)).sum()

    return metric


#: The arguments of `refuse_quantised` for head gradients.
NO_GRADIENTS = ("attribution patching needs gradients", "the exact AIE needs no gradients")


def refuse_quantised(bridge: Any, why: str, instead: str) -> None:
    """Raise InputError where the bridge's weights are quantised.

    Args:
        bridge: the model.
        why: what needs floating-point weights.
        instead: what works with quantised weights too.
    """
    if is_quantised(bridge):
        raise InputError(
            f"{why}, and this model's weights are quantised; expected floating-point weights "
            f"({instead})"
        )


def _refuse_not_finite(outputs: Tensor, gradients: Tensor) -> None:
    """Raise NotFiniteError where heads or gradients are NaN or infinite."""
    for values, what in ((outputs, "outputs"), (gradients, "gradients")):
        if not bool(torch.isfinite(values).all()):
            raise NotFiniteError(
                f"the {what} of attention heads are not finite numbers (NaN or infinity); "
                "expected finite ones. Try dtype='float32', or check the weights"
            )
