"""Logits of many rows, one chunk of the vocabulary at a time.

Gemma's vocabulary has 262,144 entries: a row of logits is a megabyte, and reducing it from main
memory costs more than computing it. Here all rows go through one chunk of the vocabulary at a
time, small enough to stay in the processor's cache, and everything is reduced on the way.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import NotFiniteError
from icl_mech.model.network import Unembedding

#: Bytes of logits in one chunk: on a CPU few enough for its cache, on a GPU enough to keep it
#: busy.
CHUNK_BYTES = {"cpu": 8 * 2**20}
CHUNK_BYTES_ACCELERATOR = 256 * 2**20


class ChunkedLogits:
    """Final norm and unembedding of residual vectors.

    Args:
        bridge: the TransformerLens model whose `Unembedding` is used.
        resid: vectors that are read as the residual stream after the last block.
        share: factor on the usual size of a chunk; below 1 where memory is short.

    Attributes:
        d_vocab: entries of the vocabulary.
        width: vocabulary entries in one chunk.
        dtype: of the logits: at least float32.
    """

    def __init__(
        self, bridge: Any, resid: Float[Tensor, "row d_model"], share: float = 1.0
    ) -> None:
        unembedding = Unembedding.of(bridge)
        self.hidden = unembedding.hidden(resid)
        self._w_u, self._b_u = unembedding.w_u, unembedding.b_u
        self._transform = unembedding.transform
        self.d_vocab: int = self._w_u.shape[1]
        self.dtype = torch.promote_types(self.hidden.dtype, torch.float32)
        chunk_bytes = CHUNK_BYTES.get(self.hidden.device.type, CHUNK_BYTES_ACCELERATOR)
        row_bytes = max(1, len(resid)) * self.hidden.element_size()
        self.width = min(self.d_vocab, max(64, int(chunk_bytes * share) // row_bytes))

    def at(self, tokens: Int[Tensor, "row target"]) -> Float[Tensor, "row target"]:
        """The logits of a few tokens per row, different tokens for each row."""
        return self._transform(self.raw(tokens)).to(self.dtype)

    def raw(self, tokens: Int[Tensor, "row target"]) -> Float[Tensor, "row target"]:
        """Logits of these tokens as the unembedding gives them, before any scale or soft cap."""
        columns = self._w_u[:, tokens.flatten()].unflatten(1, tokens.shape)  # d_model row target
        return torch.einsum("rd,drt->rt", self.hidden, columns) + self._b_u[tokens]

    def __iter__(self) -> Iterator[tuple[slice, Float[Tensor, "row chunk"]]]:
        """Yield every chunk's token range and its logits, which the caller may overwrite."""
        n_rows, hidden = len(self.hidden), self.hidden
        # One buffer for all chunks: allocating one per chunk would take as long as the reduction.
        buffer = torch.empty(n_rows * self.width, dtype=hidden.dtype, device=hidden.device)
        for start in range(0, self.d_vocab, self.width):
            ids = slice(start, min(start + self.width, self.d_vocab))
            out = buffer[: n_rows * (ids.stop - start)].view(n_rows, -1)
            logits = torch.addmm(self._b_u[ids], hidden, self._w_u[:, ids], out=out)
            yield ids, self._transform(logits).to(self.dtype)


class Best:
    """Keeps the k largest numbers of every row, given one chunk of columns at a time."""

    def __init__(self, n_rows: int, k: int, like: Tensor) -> None:
        self.values = torch.full((n_rows, k), -torch.inf, dtype=like.dtype, device=like.device)
        self.ids = torch.zeros((n_rows, k), dtype=torch.long, device=like.device)

    def see(
        self, part: Float[Tensor, "row chunk"], largest: Float[Tensor, "row"], start: int
    ) -> None:
        """Take in a chunk that begins at token `start`; `largest` is each row's largest number."""
        # Sort only the rows whose chunk holds a number above their k-th best so far (few do).
        rows = (largest > self.values[:, -1]).nonzero()[:, 0]
        if not len(rows):
            return
        k = self.values.shape[1]
        found = part[rows].topk(min(k, part.shape[1]), dim=1)
        values = torch.cat([self.values[rows], found.values], dim=1)
        ids = torch.cat([self.ids[rows], found.indices + start], dim=1)
        merged = values.topk(k, dim=1)
        self.values[rows] = merged.values
        self.ids[rows] = ids.gather(1, merged.indices)

    def lead(self, top: Int[Tensor, "row"]) -> None:
        """Put token `top` first in every row, where several tie for the largest number."""
        first = self.ids[:, :1].clone()
        self.ids = torch.where(self.ids == top[:, None], first, self.ids)
        self.ids[:, 0] = top


def refuse_not_finite(*values: Tensor) -> None:
    """Raise NotFiniteError where a number computed from logits is NaN or infinite.

    >>> refuse_not_finite(torch.tensor([1.0]))
    """
    if not all(bool(torch.isfinite(v).all()) for v in values):
        raise NotFiniteError(
            "the model returns logits that are not finite numbers (NaN or infinity); "
            "expected finite logits. Try dtype='float32', or check the weights"
        )
