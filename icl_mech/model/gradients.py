"""Gradients of the answer's probability with respect to every head's output.

A head's output at the last token affects only the last token of later blocks. So all tokens before
it run without gradients, as a prefix, and only the last one needs a backward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.tools.analysis.attribution_patching import cache_activation_and_gradient

from icl_mech.errors import InputError, NotFiniteError
from icl_mech.model.edits import HOOKS
from icl_mech.model.engine import Engine, Tokens, join_each
from icl_mech.model.prefix_cache import Prefix, advance
from icl_mech.model.verification import refuse_training
from icl_mech.progress import Tick, silent


class _LastTokens:
    """Runs every prompt's last token after a prefix, with the interface of a bridge."""

    def __init__(self, engine: Engine, prefix: Prefix, positions: Int[Tensor, "prompt 1"]) -> None:
        self._blocks, self._prefix, self._positions = engine.blocks, prefix, positions
        bridge = engine.bridge
        self._bridge = bridge
        self.cfg, self.hook_dict, self.hooks = bridge.cfg, bridge.hook_dict, bridge.hooks

    def __call__(self, tokens: Int[Tensor, "prompt 1"]) -> Float[Tensor, "prompt d_vocab"]:
        entering = self._blocks.embed(tokens, self._positions)[:, None]
        hidden = advance(self._blocks, self._prefix, {0: entering}, self._positions[:, None])
        normed = self._bridge.ln_final(hidden[:, 0])[:, 0]
        logits = normed @ self._bridge.unembed.W_U + self._bridge.unembed.b_U
        return self._bridge.adapter.apply_output_logits_transform(logits)


def head_gradients(
    engine: Engine,
    prompts: Sequence[Tokens],
    answers: Sequence[int],
    rivals: Sequence[Sequence[int]] | None = None,
    tick: Tick = silent,
) -> tuple[Float[Tensor, "prompt layer head d_head"], Float[Tensor, "prompt layer head d_head"]]:
    """Every head's output at the last token, and a gradient with respect to it.

    The gradient is that of p(answer), or, with rivals, of the answer's logit minus their mean.
    Through TransformerLens's `cache_activation_and_gradient`, several prompts at a time, fewer
    where memory runs out.

    Raises:
        InputError: where weights are quantised (gradients through them mean little or nothing),
            the model is in training mode, or prompts, answers and rivals are not as many.
        NotFiniteError: where an output or a gradient is not a number.
        ModelError: where not even one prompt fits into memory.
    """
    bridge = engine.bridge
    refuse_quantised(bridge, *NO_GRADIENTS)
    refuse_training(bridge)
    n, n_rivals = len(prompts), len(prompts) if rivals is None else len(rivals)
    if not n or not len(answers) == n_rivals == n:
        raise InputError(
            f"{len(answers)} answers and {n_rivals} sets of rivals for {n} prompts; expected one "
            "of each per prompt, and at least one"
        )
    names = [HOOKS["z"].format(layer) for layer in range(bridge.cfg.n_layers)]

    def run(rows: list[int]) -> tuple[Tensor, ...]:
        metric = _metric([answers[r] for r in rows], rivals and [rivals[r] for r in rows])
        ours = [prompts[r] for r in rows]
        with torch.no_grad():
            start = engine.prefill(ours, keys_only=True)
            last = start.lengths - 1
            before = start.prefix.before(last)
        with torch.enable_grad(), _with_gradients(bridge):
            cache = cache_activation_and_gradient(
                _LastTokens(engine, before, last[:, None]),
                engine.tensor([tokens[-1:] for tokens in ours]),
                metric,
                # The backward pass ends at the first hook named: it must come before all heads.
                names_filter=lambda name: name in ("hook_embed", *names),
            )
        outputs = torch.stack([cache.activations[name][:, 0] for name in names], dim=1)
        gradients = torch.stack([_known(cache.gradients[name])[:, 0] for name in names], dim=1)
        _refuse_not_finite(outputs, gradients)
        tick(len(rows))
        wide = torch.promote_types(outputs.dtype, torch.float32)
        return outputs.to(wide), gradients.to(wide)

    with torch.inference_mode(False):
        with torch.no_grad():
            engine.prepare(max(map(len, prompts)))
        outputs, gradients = engine.in_batches([len(t) for t in prompts], run, join_each)
    return outputs, gradients


@contextmanager
def _with_gradients(bridge: Any) -> Iterator[None]:
    """Let the embedding require a gradient meanwhile: a frozen model works too."""
    weight = bridge.original_model.get_input_embeddings().weight
    frozen = not weight.requires_grad
    weight.requires_grad_(True)
    try:
        yield
    finally:
        weight.requires_grad_(not frozen)


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


#: What `refuse_quantised` says where gradients are asked for.
NO_GRADIENTS = ("attribution patching needs gradients", "the exact AIE needs no gradients")


def refuse_quantised(bridge: Any, why: str, instead: str) -> None:
    """Raise InputError where the bridge's weights are quantised.

    Args:
        bridge: the model.
        why: what needs floating-point weights.
        instead: what works with quantised weights too.
    """
    model = bridge.original_model
    quantised = getattr(model, "is_quantized", False) or any(
        not p.is_floating_point() for p in model.parameters()
    )
    if quantised:
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


def _known(gradient: Tensor | None) -> Tensor:
    assert gradient is not None, "the gradient never reached this head"
    return gradient
