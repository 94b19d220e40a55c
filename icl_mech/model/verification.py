"""Making sure that the trunk knows enough positions, and that it gives the model's own numbers."""

from typing import Any

import torch

from icl_mech.errors import InputError, ModelError, NotFiniteError, first_line
from icl_mech.model.batching import out_of_memory
from icl_mech.model.blocks import Blocks
from icl_mech.model.prefix_cache import advance, prefill
from icl_mech.model.readout import read

#: Largest difference in log probability (nats) between the trunk and a plain forward.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
TOLERANCE_HALF = 0.5
#: Positions are rehearsed in steps of this many, so that growing prompts do not each start anew.
STEP = 32
_NOT_ALIKE = (
    "one of its blocks fails when it is run by itself, with a mask, positions and keys and values "
    "that the engine made (its error follows from that call, and stands above this one)"
)


def rehearse(trunk: Blocks, n_positions: int, share: float = 1.0) -> None:
    """Prepare the trunk for prompts of `n_positions` tokens, once.

    Args:
        trunk: of the model.
        n_positions: tokens of the longest prompt.
        share: factor on the usual size of a slice of logits, as in `read`.

    Raises:
        InputError: where the model does not read that many, or is in training mode.
        ModelError: where the trunk cannot replay this architecture. (Where memory runs out, that
            error is passed on.)
    """
    refuse_training(trunk.bridge)
    if n_positions <= trunk.n_rehearsed:
        return
    limit = getattr(trunk.bridge.cfg, "n_ctx", None) or n_positions
    if n_positions > limit:
        raise InputError(
            f"a prompt of {n_positions} tokens; the model reads at most {limit}: "
            "use fewer shots or a shorter template"
        )
    try:
        worst = _error(trunk, min(STEP * -(-n_positions // STEP), limit), share)
    except NotFiniteError:
        trunk.forget()
        raise
    except Exception as error:
        trunk.forget()
        if out_of_memory(error):
            raise
        # Our own errors say in words what is wrong; what a library raises says nothing to a reader.
        why = first_line(error) if isinstance(error, ModelError) else _NOT_ALIKE
        raise ModelError(_unsupported(trunk, why)) from error
    if not worst <= TOLERANCE.get(trunk.dtype, TOLERANCE_HALF):
        trunk.forget()
        raise ModelError(
            _unsupported(trunk, f"log probabilities differ by {worst:.2g} from a plain forward")
        )


def _error(trunk: Blocks, n_positions: int, share: float) -> float:
    """Rehearse, and return how far the trunk's log probabilities are from the model's own.

    The first half runs as a context, the second half twice, as two branches of it: what the
    engine does, on one prompt.
    """
    if n_positions > STEP and not trunk.n_rehearsed:
        trunk.rehearse(STEP)  # to be compared with: a long prompt's tables may be others
    expected = trunk.rehearse(n_positions)
    half = n_positions // 2
    lengths = torch.tensor([half], device=trunk.device)
    start = prefill(trunk, trunk.rehearsal_tokens[:, :half], lengths, half, keys_only=True)
    positions = torch.arange(half, n_positions, device=trunk.device)[None]
    rest = trunk.embed(trunk.rehearsal_tokens[:, half:], positions)
    both = torch.stack([rest, rest], dim=1)
    hidden = advance(trunk, start.context, {0: both}, torch.stack([positions, positions], dim=1))
    top = expected.argmax(dim=-1, keepdim=True)
    wide = torch.promote_types(expected.dtype, torch.float32)
    theirs = expected.to(wide).log_softmax(dim=-1).gather(1, top)
    ours = read(trunk.bridge, hidden[0, :, -1], top.expand(2, 1), share=share).logprob
    return float((ours - theirs).abs().max())


def refuse_training(bridge: Any) -> None:
    """Raise InputError where dropout would make every run another."""
    if bridge.original_model.training:
        raise InputError(
            "the model is in training mode, where dropout makes every run another; "
            "expected evaluation mode: call .eval() on the bridge first"
        )


def _unsupported(trunk: Blocks, why: str) -> str:
    return (
        f"{trunk.bridge.cfg.architecture} cannot be edited: {why}. Expected a decoder whose "
        "blocks take positions and a mask; Llama, Qwen2, Gemma, GPT-2 and GPT-NeoX do"
    )
