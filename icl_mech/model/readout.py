"""What is read from the last residual stream: top token, log probability and rank of answers.

TransformerLens's `logit_readout` reads either targets or the top tokens, over whole rows of
logits. Gemma's vocabulary has 262,144 entries: a row is a megabyte, and reducing it from main
memory costs more than computing it. Here all rows go through one slice of the vocabulary at a
time, small enough to stay in the processor's cache, and everything is reduced on the way.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import NotFiniteError

#: Bytes of logits that exist at any one time: what a processor's cache holds, or, on a GPU,
#: enough to keep it busy.
SLICE_BYTES = {"cpu": 8 * 2**20}
SLICE_BYTES_ACCELERATOR = 256 * 2**20


@dataclass(frozen=True)
class Readout:
    """What the model says at one position, for any batch shape `...`.

    Attributes:
        top: id of the most probable next token.
        logprob: log probability (nats) of each target token; NaN where a target is padding (-1).
        rank: how many tokens are more probable than the target; -1 where a target is padding.
    """

    top: Int[Tensor, "..."]
    logprob: Float[Tensor, "... target"]
    rank: Int[Tensor, "... target"]

    def reshape(self, *shape: int) -> "Readout":
        """The same readout with its batch axis split into `shape`."""
        n = self.logprob.shape[-1]
        return Readout(
            self.top.reshape(shape),
            self.logprob.reshape(*shape, n),
            self.rank.reshape(*shape, n),
        )

    def take(self, index: Int[Tensor, "taken"], dim: int = 0) -> "Readout":
        """The rows `index` of a batch axis, in that order."""
        index = index.to(self.top.device)
        return Readout(
            self.top.index_select(dim, index),
            self.logprob.index_select(dim, index),
            self.rank.index_select(dim, index),
        )

    @staticmethod
    def cat(parts: list["Readout"], dim: int = 0) -> "Readout":
        """Join readouts along a batch axis."""
        return Readout(
            torch.cat([p.top for p in parts], dim),
            torch.cat([p.logprob for p in parts], dim),
            torch.cat([p.rank for p in parts], dim),
        )


def read(
    bridge: Any, resid: Float[Tensor, "row d_model"], targets: Int[Tensor, "row target"]
) -> Readout:
    """Final norm and unembedding of residual vectors, reduced slice by slice.

    Args:
        bridge: the TransformerLens bridge whose `ln_final`, `W_U`, `b_U` and logit transform
            (Gemma-2's soft cap) are used.
        resid: the residual stream after the last block, one row per question.
        targets: token ids to read for each row; -1 where a row has fewer targets.

    Raises:
        NotFiniteError: where the model's logits are not numbers.
    """
    hidden = bridge.ln_final(resid[None])[0]
    w_u, b_u = bridge.unembed.W_U, bridge.unembed.b_U
    transform = bridge.adapter.apply_output_logits_transform
    n_rows, d_vocab = len(hidden), w_u.shape[1]
    wide = torch.promote_types(hidden.dtype, torch.float32)
    slice_bytes = SLICE_BYTES.get(hidden.device.type, SLICE_BYTES_ACCELERATOR)
    width = max(64, slice_bytes // (max(1, n_rows) * hidden.element_size()))

    # Reused for every slice: fresh memory would cost as much as reducing it.
    buffer = torch.empty(n_rows * width, dtype=hidden.dtype, device=hidden.device)

    def logits(ids: slice) -> Float[Tensor, "row vocab"]:
        out = buffer[: n_rows * (ids.stop - ids.start)].view(n_rows, -1)
        return transform(torch.addmm(b_u[ids], hidden, w_u[:, ids], out=out)).to(wide)

    known = targets.clamp_min(0)
    columns = w_u[:, known.flatten()].unflatten(1, known.shape)  # d_model row target
    wanted = transform(torch.einsum("rd,drt->rt", hidden, columns) + b_u[known]).to(wide)
    best = torch.full((n_rows,), -torch.inf, dtype=wide, device=hidden.device)
    top = torch.zeros(n_rows, dtype=torch.long, device=hidden.device)
    mass = torch.zeros_like(best)
    rank = torch.zeros_like(known)
    above = torch.empty((n_rows, width), dtype=wide, device=hidden.device)
    for start in range(0, d_vocab, width):
        ids = slice(start, min(start + width, d_vocab))
        part = logits(ids)
        part_best, part_top = part.max(dim=1)
        for t in range(targets.shape[1]):
            # Written as floats: on a CPU, summing booleans takes three times as long.
            flags = torch.gt(part, wanted[:, t, None], out=above[:, : part.shape[1]])
            # A target never outranks itself, however its own logit was rounded.
            own = (known[:, t] - start).clamp(0, part.shape[1] - 1)
            inside = (known[:, t] >= start) & (known[:, t] < ids.stop)
            itself = flags.gather(1, own[:, None])[:, 0] * inside
            rank[:, t] += (flags.sum(dim=1) - itself).long()
        new_best = torch.maximum(best, part_best)
        top = torch.where(part_best > best, part_top + start, top)
        mass = mass * (best - new_best).exp() + part.sub_(new_best[:, None]).exp_().sum(dim=1)
        best = new_best
    logprob = wanted - (mass.log() + best)[:, None]
    if not bool(torch.isfinite(mass).all()) or not bool(torch.isfinite(logprob).all()):
        raise NotFiniteError(
            "the model returns logits that are not finite numbers (NaN or infinity); "
            "expected finite logits. Try dtype='float32', or check the weights"
        )
    hidden_targets = targets < 0
    return Readout(
        top, logprob.masked_fill(hidden_targets, torch.nan), rank.masked_fill(hidden_targets, -1)
    )
