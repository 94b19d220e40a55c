"""What the engines would run, counted instead of run: the same batches, and their products."""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from icl_mech.cost.sizes import Sizes
from icl_mech.cost.work import Cost, Work
from icl_mech.model.batching import even
from icl_mech.model.chunked_logits import chunk_width
from icl_mech.model.engine import ROWS_PER_TOKEN


class Edited(NamedTuple):
    """A branch: the tokens it runs, from its edited token to the last, and its first block."""

    n_tokens: int
    entry: int


@dataclass(frozen=True)
class Limits:
    """How much runs at a time.

    Attributes:
        n_bytes: of one number.
        tokens: that run through a block together.
        device: the kind of device.
    """

    n_bytes: int
    tokens: int
    device: str


def in_parts(n: int, together: int) -> Iterator[tuple[int, int]]:
    """How many parts there are of each size, where n items are cut into parts of one size.

    >>> list(in_parts(10, 4))
    [(2, 4), (1, 2)]
    """
    for times, items in ((n // together, together), (1, n % together)):
        if times and items:
            yield times, items


class CountedEngine(ABC):
    """Counts what an engine of the same name does; prompts of a call have one length here."""

    def __init__(self, sizes: Sizes, limits: Limits) -> None:
        self.sizes, self.limits = sizes, limits
        self._parts: dict[str, Work] = defaultdict(Work)
        self._peak = self._kept = 0

    @property
    def cost(self) -> Cost:
        """Of all that was counted so far."""
        weights = self.sizes.weights * self.limits.n_bytes
        return Cost(dict(self._parts), weights, weights + self._peak)

    # --- what an engine is asked -----------------------------------------------------------------

    @abstractmethod
    def groups(self, n: int, size: int, shared: int, own: int) -> None:
        """`branch_residuals`: n groups of prompts that share their first tokens."""

    @abstractmethod
    def evaluate(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        """`evaluate`: every branch of every prompt."""

    def observe(self, n: int, length: int) -> None:
        """`observe`: whole prompts once."""
        for times, rows in self.batches(n, length):
            self.blocks("prompts", times, rows, length, length, self.sizes.n_layers)

    def read(self, n_rows: int) -> None:
        """`read`: final norm and unembedding of rows."""
        together = even(n_rows, ROWS_PER_TOKEN * self.limits.tokens)
        for times, rows in in_parts(n_rows, together):
            self.unembed(times, rows)

    def predict(self, n: int, length: int) -> None:
        """`HookedModel.predict`."""
        self.groups(n, 1, length - 1, 1)
        self.read(n)

    # --- counting --------------------------------------------------------------------------------

    def batches(self, n: int, size: int) -> Iterator[tuple[int, int]]:
        """How often a batch of so many items runs, for n items of a size."""
        return in_parts(n, max(1, self.limits.tokens // size))

    def blocks(
        self, part: str, times: int, rows: int, queries: int, keys: int, n_layers: int
    ) -> None:
        """Rows of tokens through blocks, each of which sees so many keys."""
        s = self.sizes
        for width, out in s.block:
            self.product(part, times * n_layers, rows * queries, width, out)
        heads = times * n_layers * rows * s.n_heads
        self.product(part, heads, queries, s.d_head, keys)
        self.product(part, heads, queries, keys, s.d_head)
        self.hold(
            # Scores, what their softmax makes of them, and the masks of two kinds of blocks.
            rows * queries * keys * (2 * s.n_heads + 4)
            # Keys and values, repeated for every head.
            + rows * keys * 2 * s.n_heads * s.d_head
            # The stream, what is added to it, queries, and the inside of the MLP.
            + rows * queries * (5 * s.d_model + 2 * s.n_heads * s.d_head + 3 * s.d_mlp)
        )

    def unembed(self, times: int, rows: int) -> None:
        """Logits of rows, chunk by chunk of the vocabulary."""
        s, limits = self.sizes, self.limits
        width = chunk_width(limits.device, s.d_vocab, limits.n_bytes * rows)
        n_full, rest = divmod(s.d_vocab, width)
        self.product("readout", times * n_full, rows, s.d_model, width)
        if rest:
            self.product("readout", times, rows, s.d_model, rest)
        # Logits, what a target's are compared with, and the rows that hold a new best token.
        self.hold(3 * rows * width + rows * s.d_model)

    def product(self, part: str, times: int, n: int, width: int, out: int) -> None:
        """A product of an [n, width] and a [width, out] matrix."""
        numbers = n * width + width * out + n * out
        self._parts[part] += Work(2 * n * width * out, numbers * self.limits.n_bytes) * times

    def hold(self, numbers: int) -> None:
        """So many numbers are in memory at a time, beside the weights."""
        self._peak = max(self._peak, (self._kept + numbers) * self.limits.n_bytes)


class SharedCount(CountedEngine):
    """Counts what `SharedEngine` does."""

    def groups(self, n: int, size: int, shared: int, own: int) -> None:
        for times, rows in self.batches(n, max(shared, size * own)):
            self._prefill(times, rows, shared)
            queries = size * own
            self.blocks("prompts", times, rows, queries, shared + queries, self.sizes.n_layers)
            self._kept = 0

    def evaluate(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        ordered = sorted(branches)
        for times, rows in self.batches(n, length):
            self._prefill(times, rows, length)
            held = 0
            for n_tokens, members in groupby(ordered, key=lambda b: b.n_tokens):
                entries = [b.entry for b in members]
                step = max(1, self.limits.tokens // (n_tokens * rows))
                for start in range(0, len(entries), step):
                    chunk = entries[start : start + step]
                    self._branches(times, rows, length - n_tokens, n_tokens, chunk)
                    fresh = rows * len(chunk)
                    if held and held + fresh > ROWS_PER_TOKEN * self.limits.tokens:
                        self.unembed(times, held)
                        held = 0
                    held += fresh
            if held:
                self.unembed(times, held)
            self._kept = 0

    def _prefill(self, times: int, rows: int, length: int) -> None:
        """Whole prompts; the last block stops when it has its keys and values, which are kept."""
        s = self.sizes
        per_token = s.n_layers * (2 * s.n_kv_heads * s.d_head + s.d_model)
        self._kept = rows * length * per_token
        self.blocks("prompts", times, rows, length, length, s.n_layers - 1)
        for width, out in s.attention_in:
            self.product("prompts", times, rows * length, width, out)

    def _branches(
        self, times: int, rows: int, before: int, n_tokens: int, entries: Sequence[int]
    ) -> None:
        """Branches side by side, each from the block that it enters on."""
        entering, queries = Counter(entries), 0
        for layer in range(self.sizes.n_layers):
            queries += entering[layer] * n_tokens
            if queries:
                self.blocks("branches", times, rows, queries, before + queries, 1)


class PlainCount(CountedEngine):
    """Counts what `PlainEngine` does."""

    def groups(self, n: int, size: int, shared: int, own: int) -> None:
        self.observe(n * size, shared + own)

    def evaluate(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        for times, rows in self.batches(n * len(branches), length):
            self.blocks("branches", times, rows, length, length, self.sizes.n_layers)
            self.unembed(times, rows)
