"""How the answer's probability would change with every head's output: one backward pass."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from transformer_lens.tools.analysis.attribution_patching import cache_activation_and_gradient

from icl_mech.errors import InputError, NotFiniteError
from icl_mech.model.edits import HOOKS
from icl_mech.model.engine import Tokens
from icl_mech.model.rehearsal import refuse_training
from icl_mech.progress import Tick, silent


class _LastLogits:
    """A bridge that computes logits for the last token only, as a gradient tool needs them.

    Logits of every token, and their gradients, are a hundred megabytes for one prompt of Gemma.
    """

    def __init__(self, bridge: Any) -> None:
        self._bridge = bridge
        self.cfg, self.hook_dict, self.hooks = bridge.cfg, bridge.hook_dict, bridge.hooks

    def __call__(self, tokens: Tensor) -> Tensor:
        return self._bridge(tokens, logits_to_keep=1)


def head_gradients(
    bridge: Any,
    prompts: Sequence[Tokens],
    answers: Sequence[int],
    rivals: Sequence[Sequence[int]] | None = None,
    tick: Tick = silent,
) -> tuple[Float[Tensor, "prompt layer head d_head"], Float[Tensor, "prompt layer head d_head"]]:
    """Every head's output at the last token, and a gradient with respect to it.

    The gradient is that of p(answer), or, with rivals, of the answer's logit minus their mean.

    Through TransformerLens's `cache_activation_and_gradient`; prompts of one length would run
    together, but the unembedding of a large vocabulary leaves little to gain.

    Raises:
        InputError: where weights are quantised (gradients through them mean little or nothing),
            the model is in training mode, or prompts, answers and rivals are not as many.
        NotFiniteError: where an output or a gradient is not a number.
    """
    refuse_quantised(bridge)
    refuse_training(bridge)
    n, n_rivals = len(prompts), len(prompts) if rivals is None else len(rivals)
    if not n or not len(answers) == n_rivals == n:
        raise InputError(
            f"{len(answers)} answers and {n_rivals} sets of rivals for {n} prompts; expected one "
            "of each per prompt, and at least one"
        )
    n_layers = bridge.cfg.n_layers
    names = [HOOKS["z"].format(layer) for layer in range(n_layers)]
    device = next(bridge.original_model.parameters()).device
    outputs, gradients = [], []
    for row, tokens in enumerate(prompts):
        metric = _metric(answers[row], None if rivals is None else rivals[row])
        with torch.inference_mode(False), torch.enable_grad(), _with_gradients(bridge):
            cache = cache_activation_and_gradient(
                _LastLogits(bridge),
                torch.tensor([list(tokens)], device=device),
                metric,
                # The backward pass ends at the first hook named: it has to lie before all heads.
                names_filter=lambda name: name in ("hook_embed", *names),
            )
        outputs.append(torch.stack([cache.activations[name][0, -1] for name in names]))
        gradients.append(torch.stack([_known(cache.gradients[name])[0, -1] for name in names]))
        _refuse_not_finite(outputs[-1], gradients[-1])
        tick(1)
    wide = torch.promote_types(outputs[0].dtype, torch.float32)
    return torch.stack(outputs).to(wide), torch.stack(gradients).to(wide)


@contextmanager
def _with_gradients(bridge: Any) -> Iterator[None]:
    """Gradients reach the heads of a frozen model too: its embedding is thawed for the while."""
    weight = bridge.original_model.get_input_embeddings().weight
    frozen = not weight.requires_grad
    weight.requires_grad_(True)
    try:
        yield
    finally:
        weight.requires_grad_(not frozen)


def _metric(answer: int, rivals: Sequence[int] | None) -> Callable[[Tensor], Tensor]:
    def metric(logits: Tensor) -> Tensor:
        last = logits[0, -1].to(torch.promote_types(logits.dtype, torch.float32))
        if rivals is None:
            return last.softmax(dim=-1)[answer]
        return last[answer] - last[list(rivals)].mean()

    return metric


def refuse_quantised(bridge: Any) -> None:
    """Raise InputError where the bridge's weights are quantised."""
    model = bridge.original_model
    quantised = getattr(model, "is_quantized", False) or any(
        not p.is_floating_point() for p in model.parameters()
    )
    if quantised:
        raise InputError(
            "attribution patching needs gradients, and this model's weights are quantised; "
            "expected floating-point weights (the exact AIE needs no gradients)"
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
