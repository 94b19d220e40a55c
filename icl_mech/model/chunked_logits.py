"""Computes the logits of many rows, one chunk of the vocabulary at a time.

Gemma's vocabulary has 262,144 entries: a row of logits takes a megabyte, and reducing it from main
memory takes longer than computing it. Here all rows go through one chunk of the vocabulary at a
time. A chunk is small enough to stay in the processor's cache, and it is reduced at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_mech.errors import NotFiniteError
from icl_mech.model.network import Unembedding

#: Bytes of logits in one chunk: few enough for a CPU's cache, or enough to keep a GPU busy.
CHUNK_BYTES = {"cpu": 8 * 2**20}
CHUNK_BYTES_ACCELERATOR = 256 * 2**20
#: Vocabulary entries in a block, of which `Peaks` finds the largest logit first.
BLOCK = 64
#: Up to this share of all blocks, `Peaks.n_above` searches only the blocks that qualify.
FEW = 0.2
#: The most entries in one chunk on a CPU, where wider matrix products are slower.
WIDEST = 32 * BLOCK


class ChunkedLogits:
    """Final norm and unembedding of residual vectors.

    Args:
        bridge: the TransformerLens model whose `Unembedding` is used.
        resid: vectors that are read as the residual stream after the last block.
        share: factor on the usual size of a chunk; below 1 where memory is short.

    Attributes:
        d_vocab: entries of the vocabulary.
        width: vocabulary entries in one chunk.
        dtype: of the logits, at least float32.
    """

    def __init__(
        self, bridge: Any, resid: Float[Tensor, "row d_model"], share: float = 1.0
    ) -> None:
        unembedding = Unembedding.of(bridge)
        self.hidden = unembedding.hidden(resid)
        self._w_u, self._b_u = unembedding.w_u, unembedding.b_u
        self._biased = bool(self._b_u.any())
        self._transform = unembedding.transform
        self.d_vocab: int = self._w_u.shape[1]
        self.dtype = torch.promote_types(self.hidden.dtype, torch.float32)
        row_bytes = max(1, len(resid)) * self.hidden.element_size()
        self.width = chunk_width(self.hidden.device.type, self.d_vocab, row_bytes, share)

    def at(self, tokens: Int[Tensor, "row target"]) -> Float[Tensor, "row target"]:
        """The logits of a few tokens per row, different tokens for each row."""
        return self._transform(self.raw(tokens)).to(self.dtype)

    def raw(self, tokens: Int[Tensor, "row target"]) -> Float[Tensor, "row target"]:
        """The logits of these tokens from the unembedding, before any scale or soft cap."""
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
            if self._biased:
                logits = torch.addmm(self._b_u[ids], hidden, self._w_u[:, ids], out=out)
            else:
                logits = torch.mm(hidden, self._w_u[:, ids], out=out)
            yield ids, self._transform(logits).to(self.dtype)


def chunk_width(device: str, d_vocab: int, row_bytes: int, share: float = 1.0) -> int:
    """Vocabulary entries in one chunk: a multiple of `BLOCK`, or the whole vocabulary.

    >>> chunk_width("cpu", d_vocab=262_144, row_bytes=4 * 1159), chunk_width("cpu", 257, 4)
    (1792, 257)

    Args:
        device: the kind of device.
        d_vocab: entries of the vocabulary.
        row_bytes: bytes of one entry's logits in all rows.
        share: factor on the usual size of a chunk.
    """
    chunk_bytes = int(CHUNK_BYTES.get(device, CHUNK_BYTES_ACCELERATOR) * share)
    width = max(BLOCK, chunk_bytes // row_bytes // BLOCK * BLOCK)
    return min(d_vocab, width, WIDEST if device == "cpu" else width)


@dataclass(frozen=True)
class Peaks:
    """The largest logits of one chunk: of every block of its entries, and of every row.

    One pass over the chunk finds them. The largest logits of a row are in the blocks with the
    largest peaks, so a search for them does not have to pass over the whole chunk again.

    Attributes:
        start: the token that the chunk begins with.
        blocks: the chunk itself.
        of_blocks: the largest logit of each block.
        largest: the largest logit of each row.
    """

    start: int
    blocks: Float[Tensor, "row block entry"]
    of_blocks: Float[Tensor, "row block"]
    largest: Float[Tensor, "row"]

    @staticmethod
    def of(part: Float[Tensor, "row chunk"], start: int) -> "Peaks":
        """The peaks of a chunk that begins at token `start`.

        A chunk that cannot be cut into whole blocks is one block.
        """
        width = part.shape[1]
        blocks = part.unflatten(1, (-1, width if width % BLOCK else BLOCK))
        of_blocks = blocks.amax(dim=2)
        return Peaks(start, blocks, of_blocks, of_blocks.amax(dim=1))

    def n_above(
        self, bar: Float[Tensor, "row"], scratch: Float[Tensor, "row width"]
    ) -> Int[Tensor, "row"]:
        """How many logits of each row are above its bar; `scratch` is overwritten.

        Only blocks whose peak is above the bar hold such logits. If few blocks qualify, only those
        are searched (on a CPU).
        """
        near = self.of_blocks > bar[:, None]
        if near.device.type == "cpu" and int(near.sum()) <= FEW * near.numel():
            rows, blocks = near.nonzero(as_tuple=True)
            counts = (self.blocks[rows, blocks] > bar[rows, None]).sum(dim=1)
            return torch.zeros_like(near[:, 0], dtype=torch.long).index_add_(0, rows, counts)
        # The flags are floats: on a CPU, summing booleans takes three times as long.
        flags = scratch[:, : self.blocks[0].numel()]
        torch.gt(self.blocks.flatten(1), bar[:, None], out=flags)
        return flags.sum(dim=1).long()

    def best(
        self, rows: Int[Tensor, "some"], k: int
    ) -> tuple[Float[Tensor, "some k"], Int[Tensor, "some k"]]:
        """The k largest logits of some rows, and their tokens; all if the chunk has fewer."""
        _, n_blocks, n_entries = self.blocks.shape
        highest = self.of_blocks[rows].topk(min(k, n_blocks), dim=1).indices
        near = self.blocks[rows[:, None], highest].flatten(1)
        values, places = near.topk(min(k, near.shape[1]), dim=1)
        block = highest.gather(1, places // n_entries)
        return values, block * n_entries + places % n_entries + self.start

    def top(self, rows: Int[Tensor, "some"]) -> tuple[Int[Tensor, "some"], Bool[Tensor, "some"]]:
        """The token with the largest logit of some rows, and whether other tokens tie with it.

        Of equal logits the first token is taken, because `max` gives the first of equal numbers.
        """
        largest = self.largest[rows, None]
        of_blocks = self.of_blocks[rows]
        block = of_blocks.max(dim=1).indices
        here = self.blocks[rows, block]
        n_equal = torch.stack([(v == largest).sum(dim=1) for v in (of_blocks, here)])
        token = block * self.blocks.shape[2] + here.max(dim=1).indices + self.start
        return token, (n_equal > 1).any(dim=0)


class Top:
    """Keeps the largest logit of every row, given one chunk of the vocabulary at a time.

    Attributes:
        values: the largest logit so far.
        tokens: its token; of equal ones the first.
        tied: whether several tokens have this logit.
    """

    def __init__(self, n_rows: int, dtype: torch.dtype, device: torch.device) -> None:
        self.values = torch.full((n_rows,), -torch.inf, dtype=dtype, device=device)
        self.tokens = torch.zeros(n_rows, dtype=torch.long, device=device)
        self.tied = torch.zeros(n_rows, dtype=torch.bool, device=device)

    def see(self, peaks: Peaks) -> None:
        """Update with the next chunk."""
        # Only rows whose largest logit so far is in this chunk are updated; these are few.
        rows = (peaks.largest >= self.values).nonzero()[:, 0]
        if not len(rows):
            return
        higher = peaks.largest[rows] > self.values[rows]
        tokens, several = peaks.top(rows)
        self.tokens[rows] = torch.where(higher, tokens, self.tokens[rows])
        self.tied[rows] = several | ~higher
        self.values = torch.maximum(self.values, peaks.largest)


class Best:
    """Keeps the k largest logits of every row, given one chunk of the vocabulary at a time."""

    def __init__(self, n_rows: int, k: int, like: Tensor) -> None:
        self.values = torch.full((n_rows, k), -torch.inf, dtype=like.dtype, device=like.device)
        self.ids = torch.zeros((n_rows, k), dtype=torch.long, device=like.device)

    def see(self, peaks: Peaks) -> None:
        """Update with the next chunk."""
        # Only rows with a logit above their k-th best so far are updated; these are few.
        rows = (peaks.largest > self.values[:, -1]).nonzero()[:, 0]
        if not len(rows):
            return
        k = self.values.shape[1]
        found = peaks.best(rows, k)
        values = torch.cat([self.values[rows], found[0]], dim=1)
        ids = torch.cat([self.ids[rows], found[1]], dim=1)
        merged = values.topk(k, dim=1)
        self.values[rows] = merged.values
        self.ids[rows] = ids.gather(1, merged.indices)

    def lead(self, top: Int[Tensor, "row"]) -> None:
        """Put token `top` first in every row, in case several tokens tie for the largest logit."""
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
