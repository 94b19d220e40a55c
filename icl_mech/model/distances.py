"""Distances between next-token distributions, computed without whole rows of logits."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.model.chunked_logits import ChunkedLogits, refuse_not_finite


def distances(
    bridge: Any,
    first: Float[Tensor, "row d_model"],
    second: Float[Tensor, "row other d_model"],
    share: float = 1.0,
) -> tuple[Float[Tensor, "row other"], Float[Tensor, "row other"]]:
    """KL divergence (first || second) in nats, and total variation, of next-token distributions.

    Two passes go over the vocabulary, chunk by chunk: the first computes each row's normaliser, the
    second the sums over tokens.

    Args:
        bridge: as in `readout.read`.
        first: residual streams after the last block.
        second: for each of them, the streams that it is compared with.
        share: as in `readout.read`.

    Returns:
        For every pair sum(p * log(p / q)), and half of sum(|p - q|), which is between 0 and 1.

    Raises:
        NotFiniteError: where the model's logits are NaN or infinite.
    """
    n, n_others, _ = second.shape
    logits = ChunkedLogits(bridge, torch.cat([first, second.flatten(0, 1)]), share)
    n_rows, device = n * (1 + n_others), logits.hidden.device
    total = torch.full((n_rows,), -torch.inf, dtype=logits.dtype, device=device)
    for _, part in logits:
        total = torch.logaddexp(total, part.logsumexp(dim=1))
    refuse_not_finite(total)
    kl = torch.zeros((n, n_others), dtype=logits.dtype, device=device)
    apart = torch.zeros_like(kl)
    for _, part in logits:
        part.sub_(total[:, None])
        log_p, log_q = part[:n, None], part[n:].view(n, n_others, -1)
        p = log_p.exp()
        apart += (p - log_q.exp()).abs().sum(dim=2)
        kl += (p * (log_p - log_q)).sum(dim=2)
    return kl.clamp_min(0), apart / 2
