"""The shared engine: it captures activations and evaluates edits, and runs only what changes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, TypeVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.model.blocks import Blocks
from icl_mech.model.branches import Branch, Tails, reads_top, run_branches, take
from icl_mech.model.engine import (
    ROWS_PER_TOKEN,
    Engine,
    Tokens,
    join,
    join_lists,
    join_readouts,
    padded,
)
from icl_mech.model.generation import Generation, greedy
from icl_mech.model.prefix_cache import AfterBlock, Prefill, advance, prefill, run_through
from icl_mech.model.readout import Readout
from icl_mech.model.shared_generation import Ended
from icl_mech.model.verification import verify
from icl_mech.progress import Tick, silent

T = TypeVar("T")

#: Tokens whose keys and values are kept during generation, per token of the budget. On a CPU they
#: are small beside the weights, and each generated token of a batch reads all weights once, so
#: larger batches pay off. The budget of other devices is large enough.
KEPT_PER_TOKEN = {"cpu": 8}
KEPT_PER_TOKEN_ACCELERATOR = 1


class SharedEngine(Engine):
    """Runs the tokens and blocks that prompts and edits share only once.

    Attributes:
        blocks: runs the model's blocks one at a time.

    Raises:
        ReplayError: where the model is a `HookedTransformer`, of a family whose blocks are known
            not to run one at a time, or has a block without attention.
    """

    name = "shared"
    gives_streams = True

    def __init__(self, bridge: Any, budget: int | None = None) -> None:
        super().__init__(bridge, budget)
        self.blocks = Blocks(bridge)

    @property
    def windows(self) -> list[int | None]:
        """See `Engine`; None for a block that sees all earlier tokens."""
        return self.blocks.windows

    @torch.no_grad()
    def prepare(self, n_positions: int) -> None:
        """Record and verify the calls of the blocks (see `verification.verify`)."""
        self.blocks.renew()
        self.retried(lambda: verify(self.blocks, n_positions, self.budget.share))

    @torch.no_grad()
    def branch_residuals(
        self, groups: Sequence[Sequence[Tokens]], tick: Tick = silent
    ) -> Float[Tensor, "group branch layer d_model"]:
        """See `Engine`. Tokens that the prompts of a group share (the demonstrations) run once."""
        shared = [min(_common(group), min(map(len, group)) - 1) for group in groups]
        self.prepare(max(len(t) for group in groups for t in group))

        def run(rows: list[int]) -> Tensor:
            start = self.prefill([groups[r][0][: shared[r]] for r in rows], keys_only=True)
            suffixes = [[t[shared[r] :] for t in groups[r]] for r in rows]
            ends = self.tensor([[len(t) - 1 for t in group] for group in suffixes])
            n_tokens = int(ends.max()) + 1
            flat = self.tensor(padded([t for group in suffixes for t in group]))
            # A shorter branch is padded with its last token, to which no real token attends.
            steps = torch.arange(n_tokens, device=ends.device)
            positions = start.lengths[:, None, None] + torch.minimum(steps, ends[..., None])
            embedded = self.blocks.embed(flat.view(len(rows), -1), positions.flatten(1))
            entering = rearrange(embedded, "p (b s) d -> p b s d", s=n_tokens)
            layers: list[Tensor] = []
            advance(
                self.blocks,
                start.prefix,
                {0: entering},
                positions,
                lambda _, hidden: layers.append(take(hidden.to(ends.device), ends)),
            )
            tick(ends.numel())
            return torch.stack(layers, dim=2)

        sizes = [max(n, sum(len(t) - n for t in g)) for n, g in zip(shared, groups, strict=True)]
        return self.in_batches(sizes, run, join)

    def pass_over(self, prompts: Sequence[Tokens], after_block: AfterBlock | None = None) -> None:
        """See `Engine`."""
        run_through(self.blocks, self.tensor(padded(prompts)), after_block)

    @torch.no_grad()
    def evaluate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        targets: Int[Tensor, "prompt target"],
        tick: Tick = silent,
    ) -> Readout:
        """See `Engine`.

        Only the first edited token and those after it run, from the first edited block on.
        """
        self.prepare(max(map(len, prompts)))

        def run(rows: list[int]) -> Readout:
            ours, parts = targets[rows], list[Readout]()
            order: list[int] = []
            held: list[Tensor] = []
            # Few edits of an early token fit into one chunk. Their rows are collected and read
            # together, because each reading goes through the whole unembedding.
            enough = ROWS_PER_TOKEN * self.budget.tokens
            for chunk, last in self._run_each(prompts, rows, branches, tick):
                if held and len(rows) * sum(h.shape[1] for h in [*held, last]) > enough:
                    parts.append(self._read(held, ours))
                    held = []
                held.append(last)
                order += chunk
            readout = Readout.cat([*parts, self._read(held, ours)], dim=1)
            return readout.take(torch.tensor(order).argsort(), dim=1)

        targets = targets.to(self.device)
        return self.in_batches([len(t) for t in prompts], run, join_readouts)

    @torch.no_grad()
    def last_streams(
        self, prompts: Sequence[Tokens], branches: Sequence[Branch], tick: Tick = silent
    ) -> Float[Tensor, "prompt branch d_model"]:
        """See `Engine`."""
        self.prepare(max(map(len, prompts)))

        def run(rows: list[int]) -> Tensor:
            order: list[int] = []
            parts: list[Tensor] = []
            for chunk, last in self._run_each(prompts, rows, branches, tick):
                parts.append(last)
                order += chunk
            return torch.cat(parts, dim=1)[:, torch.tensor(order).argsort()]

        return self.in_batches([len(t) for t in prompts], run, join)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        max_new_tokens: int,
        stop: str,
        tick: Tick,
    ) -> list[list[Generation]]:
        """See `Engine`."""

        def run(ended: Ended, rows: list[int]) -> list[Generation]:
            return greedy(self, ended, max_new_tokens, stop)

        return self._each(prompts, branches, max_new_tokens, run, tick)

    @torch.no_grad()
    def sequence_logprob(
        self,
        prompts: Sequence[Tokens],
        continuations: Int[Tensor, "prompt continuation token"],
        branches: Sequence[Branch],
        tick: Tick,
    ) -> Float[Tensor, "prompt branch continuation"]:
        """See `Engine`."""
        continuations = continuations.to(self.device)
        n_longest = continuations.shape[2]

        def run(ended: Ended, rows: list[int]) -> list[Tensor]:
            n = len(ended.last) // len(rows)
            ours = repeat(continuations[rows], "p c t -> (p b) c t", b=n)
            step = max(1, self.budget.tokens // (len(ours) * max(1, n_longest - 1)))
            parts = [ended.logprob(part, self.readout) for part in ours.split(step, dim=1)]
            return list(torch.cat(parts, dim=1))

        found = self._each(prompts, branches, n_longest, run, tick)
        return torch.stack([torch.stack(of_prompt) for of_prompt in found])

    def last_tokens(
        self, prompts: Sequence[Tokens]
    ) -> tuple[Float[Tensor, "prompt d_model"], Int[Tensor, "prompt"]]:
        """See `Engine`.

        Activations at the last token affect only the last token of later blocks. So all tokens
        before it run without gradients, as a prefix.
        """
        with torch.no_grad():
            start = self.prefill(prompts, keys_only=True)
            last = start.lengths - 1
            before = start.prefix.before(last)
        positions = last[:, None]
        entering = self.blocks.embed(self.tensor([tokens[-1:] for tokens in prompts]), positions)
        hidden = advance(self.blocks, before, {0: entering[:, None]}, positions[:, None])
        return hidden[:, 0, 0], torch.zeros_like(last)

    # --- implementation --------------------------------------------------------------------------

    def prefill(self, prompts: Sequence[Tokens], *, start: int = 0, keys_only: bool) -> Prefill:
        """Run whole prompts once (see `prefix_cache.prefill`)."""
        lengths = self.tensor([len(t) for t in prompts])
        return prefill(self.blocks, self.tensor(padded(prompts)), lengths, start, keys_only)

    def _run_each(
        self, prompts: Sequence[Tokens], rows: list[int], branches: Sequence[Branch], tick: Tick
    ) -> Iterator[tuple[list[int], Float[Tensor, "prompt branch d_model"]]]:
        """Run branches of a batch in chunks; yield each chunk's indices and final streams.

        The streams are those after the last block at each branch's last token.

        Args:
            prompts: all of them.
            rows: those of this batch.
            branches: to run on each.
            tick: as in `evaluate`.
        """
        first = min(min(branch.positions) for branch in branches)
        keys_only = not reads_top(branches, [len(t) for t in prompts])
        start = self.prefill([prompts[r] for r in rows], start=first, keys_only=keys_only)
        indices = self.tensor(rows)
        for chunk in self._chunks(prompts, rows, branches):
            chosen = [branches[i] for i in chunk]
            tails = Tails.of(chosen, indices, start.lengths)
            yield chunk, run_branches(self.blocks, start, chosen, tails)
            tick(len(rows) * len(chunk))

    def _read(
        self,
        streams: Sequence[Float[Tensor, "prompt _ d_model"]],
        targets: Int[Tensor, "prompt target"],
    ) -> Readout:
        """Read the final streams of several chunks of branches in one batch."""
        last = torch.cat(list(streams), dim=1)
        n_branches = last.shape[1]
        readout = self.readout(last.flatten(0, 1), repeat(targets, "p t -> (p b) t", b=n_branches))
        return readout.reshape(len(last), n_branches)

    def _chunks(
        self,
        prompts: Sequence[Tokens],
        rows: list[int],
        branches: Sequence[Branch],
        kept: int = 0,
    ) -> Iterator[list[int]]:
        """Yield the indices of branches that run together, sorted by the block that they enter.

        They have the same first edited token in every prompt.

        Args:
            prompts: all of them.
            rows: those of this batch.
            branches: to run on each.
            kept: how many tokens of a branch keep their keys and values, for the longest prompt.
        """
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, branch in enumerate(branches):
            groups[tuple(branch.positions[r] for r in rows)].append(i)
        for positions, members in groups.items():
            members.sort(key=lambda i: branches[i].entry)
            suffix = max(len(prompts[r]) - p for r, p in zip(rows, positions, strict=True))
            step = self.budget.tokens // (suffix * len(rows))
            if kept:
                share = KEPT_PER_TOKEN.get(self.device.type, KEPT_PER_TOKEN_ACCELERATOR)
                step = min(step, share * self.budget.tokens // (kept * len(rows)))
            step = max(1, step)
            for i in range(0, len(members), step):
                yield members[i : i + step]

    def _each(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        n_new: int,
        run: Callable[[Ended, list[int]], list[T]],
        tick: Tick,
    ) -> list[list[T]]:
        """The result of `run` for every (prompt, branch), in batches that fit into the budget."""
        self.prepare(max(map(len, prompts)) + n_new)
        first = min(min(branch.positions) for branch in branches)
        keys_only = not reads_top(branches, [len(t) for t in prompts])

        def batch(rows: list[int]) -> list[list[T]]:
            ours = [prompts[r] for r in rows]
            start = self.prefill(ours, start=first, keys_only=keys_only)
            found: dict[int, list[T]] = {}
            kept = max(map(len, ours)) + n_new
            for chunk in self._chunks(prompts, rows, branches, kept):
                chosen = [branches[i] for i in chunk]
                made = run(Ended.of(self.blocks, start, self.tensor(rows), chosen), rows)
                # Rows are prompts x branches.
                found |= {i: made[c :: len(chunk)] for c, i in enumerate(chunk)}
                tick(len(made))
            return [[found[i][p] for i in range(len(branches))] for p in range(len(rows))]

        return self.in_batches([len(t) + n_new for t in prompts], batch, join_lists)


def _common(sequences: Sequence[Tokens]) -> int:
    """Length of the longest prefix that all sequences share."""
    columns: Iterable[tuple[int, ...]] = zip(*sequences, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
