"""Checks that running block by block gives the numbers of the model's ordinary forward pass."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError, ModelError, NotFiniteError, first_line
from icl_mech.model.batching import out_of_memory
from icl_mech.model.blocks import Blocks, ReplayError
from icl_mech.model.network import context_length, trains
from icl_mech.model.prefix_cache import advance, prefill
from icl_mech.model.readout import read

#: Largest accepted difference in log probability (nats) between the engine and plain passes.
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
TOLERANCE_HALF = 0.5
#: Lengths are rounded up to a multiple of this, so that slightly longer prompts need no new check.
STEP = 32
_BLOCK_FAILS = (
    "one of its blocks fails when it runs by itself, with the engine's mask, positions, keys and "
    "values (the block's own error is above this one)"
)


def verify(blocks: Blocks, n_positions: int, share: float = 1.0) -> None:
    """Record and verify the blocks' calls for prompts of up to `n_positions` tokens, once.

    Args:
        blocks: the model's blocks.
        n_positions: tokens of the longest prompt.
        share: factor on the usual size of a chunk of logits, as in `read`.

    Raises:
        InputError: where the model cannot read so many tokens, or is in training mode.
        ReplayError: where this architecture cannot run block by block. An out-of-memory error is
            raised as it is.
    """
    refuse_training(blocks.bridge)
    if n_positions <= blocks.n_verified:
        return
    n_positions = rounded_up(blocks.bridge, n_positions)
    try:
        worst = _error(blocks, n_positions, share)
    except NotFiniteError:
        blocks.forget()
        raise
    except Exception as error:
        blocks.forget()
        if out_of_memory(error):
            raise
        # icl-mech's own errors say what is wrong; a library's message would not help a user.
        why = first_line(error) if isinstance(error, ModelError) else _BLOCK_FAILS
        raise ReplayError(blocks.bridge, why) from error
    if not worst <= tolerance_of(blocks.dtype):
        blocks.forget()
        raise ReplayError(
            blocks.bridge, f"log probabilities differ by {worst:.2g} from a plain forward"
        )


def _error(blocks: Blocks, n_positions: int, share: float) -> float:
    """The largest difference in log probability (nats) from the model's own forward pass.

    The calls of that pass are recorded. Then the first half of the tokens runs as a prefix, and the
    second half runs twice, as two branches of it, because the engine runs prompts in this way. If
    that fails or gives other numbers, blocks run in another way from then on (`Blocks.fall_back`).
    """
    if n_positions > STEP and not blocks.n_verified:
        blocks.record(STEP)  # position tables of long prompts are compared with these
    expected = blocks.record(n_positions)
    while True:
        try:
            worst = _missed_by(blocks, expected, share)
        except Exception as error:
            if out_of_memory(error) or isinstance(error, NotFiniteError) or not blocks.fall_back():
                raise
            continue
        if worst <= tolerance_of(blocks.dtype) or not blocks.fall_back():
            return worst


def _missed_by(blocks: Blocks, expected: Float[Tensor, "1 d_vocab"], share: float) -> float:
    """The largest difference when blocks run in the current way (`Blocks.way`)."""
    n_positions = blocks.n_verified
    half = n_positions // 2
    lengths = torch.tensor([half], device=blocks.device)
    start = prefill(blocks, blocks.verification_tokens[:, :half], lengths, half, keys_only=True)
    positions = torch.arange(half, n_positions, device=blocks.device)[None]
    rest = blocks.embed(blocks.verification_tokens[:, half:], positions)
    both = torch.stack([rest, rest], dim=1)
    hidden = advance(blocks, start.prefix, {0: both}, torch.stack([positions, positions], dim=1))
    top = expected.argmax(dim=-1, keepdim=True)
    wide = torch.promote_types(expected.dtype, torch.float32)
    theirs = expected.to(wide).log_softmax(dim=-1).gather(1, top)
    ours = read(blocks.bridge, hidden[0, :, -1], top.expand(2, 1), share=share).logprob
    return float((ours - theirs.to(ours.device)).abs().max())  # it may lie on several devices


def tolerance_of(dtype: torch.dtype) -> float:
    """The largest accepted difference in log probability (nats) for a number format.

    >>> tolerance_of(torch.float32)
    0.001
    """
    return TOLERANCE.get(dtype, TOLERANCE_HALF)


def rounded_up(bridge: Any, n_positions: int) -> int:
    """The prompt length to verify for prompts of up to `n_positions` tokens.

    Raises:
        InputError: where the model cannot read so many tokens.
    """
    limit = context_length(bridge)
    if limit is not None and n_positions > limit:
        raise InputError(
            f"a prompt of {n_positions} tokens; the model reads at most {limit}: "
            "use fewer shots or a shorter template"
        )
    rounded = STEP * -(-n_positions // STEP)
    return rounded if limit is None else min(rounded, limit)


def refuse_training(bridge: Any) -> None:
    """Refuse a model in training mode, where dropout makes every run different.

    Raises:
        InputError: where it is in training mode. (A `HookedTransformer` always is, and has no
            dropout.)
    """
    if trains(bridge):
        raise InputError(
            "the model is in training mode, where dropout makes every run different; "
            "expected evaluation mode: call .eval() on the model first"
        )
