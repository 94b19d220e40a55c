"""Counts the matrix products that the engines would run, batch by batch, without running them."""

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar, NamedTuple

from icl_mech.cost.sizes import Sizes
from icl_mech.cost.work import Cost, Work
from icl_mech.model.batching import even
from icl_mech.model.chunked_logits import chunk_width
from icl_mech.model.engine import ROWS_PER_TOKEN
from icl_mech.model.shared_engine import KEPT_PER_TOKEN, KEPT_PER_TOKEN_ACCELERATOR


class Edited(NamedTuple):
    """A branch: how many tokens it runs (from the edited one to the last), and its first block."""

    n_tokens: int
    entry: int


@dataclass(frozen=True)
class Limits:
    """How much runs at once.

    Attributes:
        n_bytes: bytes of one number.
        tokens: the number of tokens that run through a block together.
        device: the kind of device.
    """

    n_bytes: int
    tokens: int
    device: str


def in_parts(n: int, together: int) -> Iterator[tuple[int, int]]:
    """Cut n items into parts of one size; yield (number of parts, size), first of the full parts.

    >>> list(in_parts(10, 4))
    [(2, 4), (1, 2)]
    """
    for times, items in ((n // together, together), (1, n % together)):
        if times and items:
            yield times, items


class CountedEngine(ABC):
    """Counts the work of an engine. All prompts of a call are assumed to have one length.

    Attributes:
        copies: how many copies of attention's scores are in memory at once.
        grouped: whether query heads that share keys read them together.
        fused: whether whole prompts go through fused attention.
    """

    copies: ClassVar[int] = 2
    grouped: ClassVar[bool] = True
    fused: ClassVar[bool] = False

    def __init__(self, sizes: Sizes, limits: Limits) -> None:
        self.sizes, self.limits = sizes, limits
        self._parts: dict[str, Work] = defaultdict(Work)
        self._peak = self._kept = 0

    @property
    def cost(self) -> Cost:
        """The cost of everything counted so far."""
        weights = self.sizes.weights * self.limits.n_bytes
        return Cost(dict(self._parts), weights, weights + self._peak)

    def repeat(self, times: int) -> None:
        """Multiply everything counted so far, because all tasks cost the same."""
        for part, work in self._parts.items():
            self._parts[part] = work * times

    # --- calls of an engine ----------------------------------------------------------------------

    @abstractmethod
    def groups(self, n: int, size: int, shared: int, own: int) -> None:
        """`branch_residuals`: n groups of prompts that share their first tokens."""

    @abstractmethod
    def evaluate(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        """`evaluate`: every branch of every prompt."""

    @abstractmethod
    def last_streams(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        """`last_streams`: as `evaluate`, but without a readout."""

    @abstractmethod
    def generate(self, n: int, length: int, branches: Sequence[Edited], n_new: int) -> None:
        """`generate`: `n_new` tokens after every branch of every prompt."""

    @abstractmethod
    def continuations(
        self, n: int, length: int, branches: Sequence[Edited], n_each: int, n_tokens: int
    ) -> None:
        """`sequence_logprob`: `n_each` continuations of `n_tokens` tokens, in every branch."""

    @abstractmethod
    def gradients(self, n: int, length: int, branch: Edited, n_steps: int, n_batches: int) -> None:
        """`AnswerGradients`: `n_steps` steps with one branch of n prompts, on batches in turn.

        Products are differentiated only with respect to their rows, because weights are frozen.
        """

    def observe(self, n: int, length: int, patterns: bool = False) -> None:
        """`observe`: whole prompts once. If `patterns` are read, attention is not fused."""
        whole = self.fused and not patterns
        for times, rows in self.batches(n, length):
            self.blocks("prompts", times, rows, length, length, self.sizes.n_layers, whole)

    def read(self, n_rows: int) -> None:
        """`read`: final norm and unembedding of rows."""
        together = even(n_rows, ROWS_PER_TOKEN * self.limits.tokens)
        for times, rows in in_parts(n_rows, together):
            self.unembed(times, rows)

    def top_of_means(self, n_groups: int, rows: int) -> None:
        """`top_of_means`: the best tokens of groups of rows."""
        for times, groups in self.batches(n_groups, rows):
            self.unembed(times, groups * rows)

    def distances(self, n: int, n_others: int) -> None:
        """`distances` of each row to `n_others` others: two passes over the vocabulary."""
        for times, rows in self.batches(n, 1 + n_others):
            for _ in ("normalisers", "sums"):
                self.unembed(times, rows * (1 + n_others))

    def train(
        self, n_steps: int, n: int, length: int, n_read: int, n_adapted: int, rank: int
    ) -> None:
        """`n_steps` updates of low-rank adapters in the first blocks, on n prompts each.

        It counts the forward pass, the backward pass to the rows of every product, and the
        adapters' own products and gradients. The activations of all blocks are kept.
        """
        s = self.sizes
        for _ in ("forward", "back"):
            self.blocks("prompts", n_steps, n, length, length, s.n_layers)
            self.logits(n_steps, n * n_read)
        for width, out in s.block:
            for _ in ("forward", "rows", "weights"):
                self.product("prompts", n_steps * n_adapted, n * length, width, rank)
                self.product("prompts", n_steps * n_adapted, n * length, rank, out)
        kept = s.n_layers * self.kept_by_block(n * length, length)
        adapters = n_adapted * sum(rank * (width + out) for width, out in s.block)
        self.hold(kept + 4 * adapters + 3 * n * n_read * s.d_vocab)

    def predict(self, n: int, length: int) -> None:
        """`HookedModel.predict`."""
        self.groups(n, 1, length - 1, 1)
        self.read(n)

    # --- counting --------------------------------------------------------------------------------

    def batches(self, n: int, size: int) -> Iterator[tuple[int, int]]:
        """Batches of n items of one size: (number of batches, items in each)."""
        return in_parts(n, max(1, self.limits.tokens // size))

    def blocks(
        self,
        part: str,
        times: int,
        rows: int,
        queries: int,
        keys: int,
        n_layers: int,
        fused: bool = False,
    ) -> None:
        """Count blocks on `rows` rows of `queries` tokens, each of which has `keys` keys.

        Fused attention neither reads nor writes scores.
        """
        s = self.sizes
        for width, out in s.block:
            self.product(part, times * n_layers, rows * queries, width, out)
        if fused:
            width = s.n_heads * s.d_head
            numbers = 2 * queries * width + 2 * keys * s.n_kv_heads * s.d_head + queries * keys
            one = Work(4 * queries * keys * width, numbers * self.limits.n_bytes)
            self._parts[part] += one * (times * n_layers * rows)
        else:
            # Query heads that share keys are rows of one product, or each has its own copy.
            together = s.n_heads // s.n_kv_heads if self.grouped else 1
            heads = times * n_layers * rows * s.n_heads // together
            self.product(part, heads, queries * together, s.d_head, keys)
            self.product(part, heads, queries * together, keys, s.d_head)
        self.hold(
            # Scores, their masked and softmax copies, and the masks of two kinds of blocks. They
            # are counted for fused attention too, because some families do compute scores.
            rows * queries * keys * (self.copies * s.n_heads + 4)
            # Keys and values, repeated for every head.
            + rows * keys * 2 * s.n_heads * s.d_head
            # The stream, what is added to it, queries, and the inside of the MLP.
            + rows * queries * (5 * s.d_model + 2 * s.n_heads * s.d_head + 3 * s.d_mlp)
        )

    def kept_by_block(self, tokens: int, keys: int) -> int:
        """How many numbers a block keeps for the backward pass of tokens with `keys` keys each."""
        s = self.sizes
        # Queries and keys before and after rotation, values and outputs, for every head.
        per_token = 6 * s.d_model + 6 * s.n_heads * s.d_head + 4 * s.d_mlp
        return tokens * (per_token + 2 * s.n_heads * keys)

    def unembed(self, times: int, rows: int) -> None:
        """Count the logits of rows, computed one chunk of the vocabulary at a time."""
        s, limits = self.sizes, self.limits
        width = chunk_width(limits.device, s.d_vocab, limits.n_bytes * rows)
        n_full, rest = divmod(s.d_vocab, width)
        self.product("readout", times * n_full, rows, s.d_model, width)
        if rest:
            self.product("readout", times, rows, s.d_model, rest)
        # Logits, a buffer to compare them with targets, and the rows with a new best token.
        self.hold(3 * rows * width + rows * s.d_model)

    def logits(self, times: int, rows: int) -> None:
        """Count whole rows of logits."""
        self.product("readout", times, rows, self.sizes.d_model, self.sizes.d_vocab)
        self.hold(3 * rows * self.sizes.d_vocab)

    def product(self, part: str, times: int, n: int, width: int, out: int) -> None:
        """Count a product of an [n, width] and a [width, out] matrix."""
        numbers = n * width + width * out + n * out
        self._parts[part] += Work(2 * n * width * out, numbers * self.limits.n_bytes) * times

    def keep(self, numbers: int) -> None:
        """Note that so many numbers stay in memory during later calls of `observe` and `read`."""
        self._kept += numbers

    def hold(self, numbers: int) -> None:
        """Note that so many numbers are in memory at once, besides the weights."""
        self._peak = max(self._peak, (self._kept + numbers) * self.limits.n_bytes)


class SharedCount(CountedEngine):
    """Counts what `SharedEngine` does."""

    fused = True

    def groups(self, n: int, size: int, shared: int, own: int) -> None:
        for times, rows in self.batches(n, max(shared, size * own)):
            self._prefill(times, rows, shared)
            self.blocks("prompts", times, rows, size * own, shared + own, self.sizes.n_layers)
            self._kept = 0

    def evaluate(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        for times, rows in self.batches(n, length):
            self._prefill(times, rows, length)
            held = 0
            for n_tokens, chunk in self._chunks(rows, branches):
                self._branches(times, rows, length - n_tokens, n_tokens, chunk)
                fresh = rows * len(chunk)
                if held and held + fresh > ROWS_PER_TOKEN * self.limits.tokens:
                    self.unembed(times, held)
                    held = 0
                held += fresh
            if held:
                self.unembed(times, held)
            self._kept = 0

    def last_streams(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        for times, rows in self.batches(n, length):
            self._prefill(times, rows, length)
            for n_tokens, chunk in self._chunks(rows, branches):
                self._branches(times, rows, length - n_tokens, n_tokens, chunk)
            self._kept = 0

    def generate(self, n: int, length: int, branches: Sequence[Edited], n_new: int) -> None:
        for times, rows in self._ended(n, length, branches, n_new):
            self.unembed(times, rows)
            for step in range(1, n_new):
                self.blocks("branches", times, rows, 1, length + step, self.sizes.n_layers)
                self.unembed(times, rows)

    def continuations(
        self, n: int, length: int, branches: Sequence[Edited], n_each: int, n_tokens: int
    ) -> None:
        more = n_each * (n_tokens - 1)
        for times, rows in self._ended(n, length, branches, n_tokens):
            self.unembed(times, rows)
            if more:
                keys = length + n_tokens - 1
                self.blocks("branches", times, rows, more, keys, self.sizes.n_layers)
                self.unembed(times, rows * more)

    def gradients(self, n: int, length: int, branch: Edited, n_steps: int, n_batches: int) -> None:
        before = length - branch.n_tokens
        for times, rows in self.batches(n, length):
            self._prefill(times * n_batches, rows, length)
        # All batches are in memory, together with the graph of one.
        self._kept = n_batches * self._kept_of(n * length)
        for times, rows in self.batches(n, branch.n_tokens):
            for _ in ("forward", "back"):
                self._branches(times * n_steps, rows, before, branch.n_tokens, [branch.entry])
                self.logits(times * n_steps, rows)
            n_layers = self.sizes.n_layers - branch.entry
            self.hold(n_layers * self.kept_by_block(rows * branch.n_tokens, length))
        self._kept = 0

    def _ended(
        self, n: int, length: int, branches: Sequence[Edited], n_new: int
    ) -> Iterator[tuple[int, int]]:
        """Count branches whose keys and values are kept for new tokens; yield (times, rows)."""
        s = self.sizes
        for times, rows in self.batches(n, length + n_new):
            self._prefill(times, rows, length)
            clean = self._kept
            for n_tokens, chunk in self._chunks(rows, branches, length + n_new):
                self._branches(times, rows, length - n_tokens, n_tokens, chunk)
                ended = rows * len(chunk)
                # A step copies them, one token longer, while the old ones are still in memory.
                per_token = 4 * s.n_layers * s.n_kv_heads * s.d_head
                self._kept = clean + ended * (length + n_new) * per_token
                yield times, ended
                self._kept = clean
            self._kept = 0

    def _chunks(
        self, rows: int, branches: Sequence[Edited], kept: int = 0
    ) -> Iterator[tuple[int, list[int]]]:
        """Yield branches that run together: the tokens of each, and the blocks that they enter.

        Args:
            rows: the number of prompts that run each branch.
            branches: all of them.
            kept: how many tokens of a branch keep their keys and values.
        """
        limits = self.limits
        share = KEPT_PER_TOKEN.get(limits.device, KEPT_PER_TOKEN_ACCELERATOR)
        for n_tokens, members in groupby(sorted(branches), key=lambda b: b.n_tokens):
            entries = [b.entry for b in members]
            step = limits.tokens // (n_tokens * rows)
            if kept:
                step = min(step, share * limits.tokens // (kept * rows))
            step = max(1, step)
            for start in range(0, len(entries), step):
                yield n_tokens, entries[start : start + step]

    def _prefill(self, times: int, rows: int, length: int) -> None:
        """Count whole prompts whose keys and values are kept; the last block runs only in part."""
        s = self.sizes
        self._kept = self._kept_of(rows * length)
        self.blocks("prompts", times, rows, length, length, s.n_layers - 1, self.fused)
        for width, out in s.attention_in:
            self.product("prompts", times, rows * length, width, out)

    def _kept_of(self, tokens: int) -> int:
        """How many numbers the keys, values and streams of tokens have in all blocks."""
        s = self.sizes
        return tokens * s.n_layers * (2 * s.n_kv_heads * s.d_head + s.d_model)

    def _branches(
        self, times: int, rows: int, before: int, n_tokens: int, entries: Sequence[int]
    ) -> None:
        """Count branches that run side by side, each from its first block; none sees another."""
        entering, queries = Counter(entries), 0
        for layer in range(self.sizes.n_layers):
            queries += entering[layer] * n_tokens
            if queries:
                self.blocks("branches", times, rows, queries, before + n_tokens, 1)


class PlainCount(CountedEngine):
    """Counts what `PlainEngine` does. Transformers' attention copies scores to add the mask."""

    copies = 3
    grouped = False

    def groups(self, n: int, size: int, shared: int, own: int) -> None:
        self.observe(n * size, shared + own)

    def evaluate(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        for times, rows in self.batches(n * len(branches), length):
            self._whole(times, rows, length)
            self.unembed(times, rows)

    def last_streams(self, n: int, length: int, branches: Sequence[Edited]) -> None:
        for times, rows in self.batches(n * len(branches), length):
            self._whole(times, rows, length)

    def generate(self, n: int, length: int, branches: Sequence[Edited], n_new: int) -> None:
        for times, rows in self.batches(n * len(branches), length + n_new):
            for step in range(n_new):
                self._whole(times, rows, length + step)
                self.unembed(times, rows)

    def continuations(
        self, n: int, length: int, branches: Sequence[Edited], n_each: int, n_tokens: int
    ) -> None:
        cells = n * len(branches) * n_each
        for times, rows in self.batches(cells, length + n_tokens):
            self._whole(times, rows, length + n_tokens - 1)
            self.unembed(times, rows * n_tokens)

    def gradients(self, n: int, length: int, branch: Edited, n_steps: int, n_batches: int) -> None:
        for times, rows in self.batches(n, length):
            for _ in ("forward", "back"):
                self._whole(times * n_steps, rows, length)
                self.logits(times * n_steps, rows)
            n_layers = self.sizes.n_layers - branch.entry
            self.hold(n_layers * self.kept_by_block(rows * length, length))

    def _whole(self, times: int, rows: int, length: int) -> None:
        self.blocks("branches", times, rows, length, length, self.sizes.n_layers)
