"""How far two next-token distributions are apart, without whole rows of either."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.model.chunked_logits import ChunkedLogits, refuse_not_finite


def distances(
    bridge: Any,
    first: Float[Tensor, "row d_model"],
    second: Float[Tensor, "row d_model"],
    share: float = 1.0,
) -> tuple[Float[Tensor, "row"], Float[Tensor, "row"]]:
    """KL(first || second) in nats, and total variation, of rows read after the last block.

    The vocabulary is passed over twice, chunk by chunk: first for each row's normaliser, then for
    the sums over tokens.

    Args:
        bridge: as in `readout.read`.
        first, second: residual streams, a row of one beside a row of the other.
        share: as in `readout.read`.

    Returns:
        For every row sum(p * log(p / q)), and half of sum(|p - q|), which is between 0 and 1.

    Raises:
        NotFiniteError: where the model's logits are NaN or infinite.
    """
    logits = ChunkedLogits(bridge, torch.cat([first, second]), share)
    n = len(first)
    total = torch.full((2 * n,), -torch.inf, dtype=logits.dtype, device=logits.hidden.device)
    for _, part in logits:
        total = torch.logaddexp(total, part.logsumexp(dim=1))
    refuse_not_finite(total)
    kl, apart = torch.zeros_like(total[:n]), torch.zeros_like(total[:n])
    for _, part in logits:
        log_p, log_q = part.sub_(total[:, None]).split(n)
        p, q = log_p.exp(), log_q.exp()
        apart += (p - q).abs().sum(dim=1)
        kl += (p * (log_p - log_q)).sum(dim=1)
    return kl.clamp_min(0), apart / 2
