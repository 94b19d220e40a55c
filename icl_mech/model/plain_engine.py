"""The plain engine: one full forward pass for every prompt and edit, many of them in a batch.

It only needs a causal model. So it runs models that the shared engine cannot run block by block:
those with ALiBi or chunked attention, state-space models and hybrids. TransformerLens hooks write
the edits. Logits are computed only at the tokens that are read.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import ModelError
from icl_mech.model.branches import Branch
from icl_mech.model.edits import HOOKS
from icl_mech.model.engine import (
    Engine,
    Tokens,
    join,
    join_lists,
    join_readouts,
    padded,
)
from icl_mech.model.generation import Generation, greedy
from icl_mech.model.knockouts import Cut, cutting
from icl_mech.model.network import (
    architecture_of,
    final_stream,
    logits_after,
    reads_length,
    some_tokens,
)
from icl_mech.model.prefix_cache import AfterBlock
from icl_mech.model.readout import Readout
from icl_mech.model.verification import refuse_training, rounded_up, tolerance_of
from icl_mech.model.writing import Write, writing
from icl_mech.progress import Tick, silent

T = TypeVar("T")


@dataclass(frozen=True)
class Rows:
    """The rows of one batch, each with a prompt and a branch.

    Attributes:
        tokens: of every row; a row may be longer than its prompt.
        prompts: the index of the prompt that each row begins with, among all prompts.
        branches: the edits of each row.
    """

    tokens: Sequence[Tokens]
    prompts: list[int]
    branches: list[Branch]

    def writes(self) -> Iterator[Write]:
        """The edits of the batch, each with its rows."""
        members: dict[int, list[int]] = {}
        for row, branch in enumerate(self.branches):
            members.setdefault(id(branch), []).append(row)
        for rows in members.values():
            yield from self.branches[rows[0]].writes([self.prompts[row] for row in rows], rows)

    def cuts(self) -> list[Cut]:
        """The knockouts of the batch, each with its row."""
        return [
            Cut(row, placed, prompt)
            for row, (prompt, branch) in enumerate(zip(self.prompts, self.branches, strict=True))
            for placed in branch.knockouts
        ]


class PlainEngine(Engine):
    """Runs every edit of every prompt as a full forward pass.

    Attributes:
        pads: whether prompts of several lengths share a batch. This is false if padding on the
            right changes the results of a prompt (position tables that depend on the longest
            prompt).
    """

    name = "plain"

    def __init__(self, bridge: Any, budget: int | None = None) -> None:
        super().__init__(bridge, budget)
        self.n_verified = 0
        self.pads = not reads_length(bridge)

    @torch.no_grad()
    def prepare(self, n_positions: int) -> None:
        """Check that the stream after the last block gives the model's logits, and test padding."""
        refuse_training(self.bridge)
        if n_positions > self.n_verified:
            n = rounded_up(self.bridge, n_positions)
            self.retried(lambda: self._verify(n))
            self.n_verified = n

    @torch.no_grad()
    def branch_residuals(
        self, groups: Sequence[Sequence[Tokens]], tick: Tick = silent
    ) -> Float[Tensor, "group branch layer d_model"]:
        """See `Engine`."""
        prompts = [tokens for group in groups for tokens in group]
        last = [[len(tokens) - 1] for tokens in prompts]
        found = self.token_activations(prompts, last, HOOKS["resid_post"])
        tick(len(prompts))
        return rearrange(found, "(g b) layer 1 d -> g b layer d", g=len(groups))

    def pass_over(self, prompts: Sequence[Tokens], after_block: AfterBlock | None = None) -> None:
        """See `Engine`. Hooks see the residual stream; `after_block` is not called."""
        self._stream(prompts)

    @torch.no_grad()
    def evaluate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        targets: Int[Tensor, "prompt target"],
        tick: Tick = silent,
    ) -> Readout:
        """See `Engine`."""
        targets = targets.to(self.device)

        def read(ran: Ran) -> Readout:
            return self.readout(ran.last, targets[ran.batch.prompts])

        found = self._each(prompts, branches, read, join_readouts, tick)
        return found.reshape(len(prompts), len(branches))

    @torch.no_grad()
    def last_streams(
        self, prompts: Sequence[Tokens], branches: Sequence[Branch], tick: Tick = silent
    ) -> Float[Tensor, "prompt branch d_model"]:
        """See `Engine`."""
        found = self._each(prompts, branches, lambda ran: ran.last, join, tick)
        return found.view(len(prompts), len(branches), -1)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        max_new_tokens: int,
        stop: str,
        tick: Tick,
    ) -> list[list[Generation]]:
        """See `Engine`. The whole text runs again for every new token."""
        self.prepare(max(map(len, prompts)) + max_new_tokens)
        pairs = [(p, branch) for p in range(len(prompts)) for branch in branches]

        def run(rows: list[int]) -> list[Generation]:
            made = greedy(
                self, self.run(_rows(prompts, [pairs[r] for r in rows])), max_new_tokens, stop
            )
            tick(len(rows))
            return made

        sizes = [len(prompts[p]) + max_new_tokens for p, _ in pairs]
        found = self.in_batches(sizes, run, join_lists)
        n = len(branches)
        return [found[i : i + n] for i in range(0, len(found), n)]

    @torch.no_grad()
    def sequence_logprob(
        self,
        prompts: Sequence[Tokens],
        continuations: Int[Tensor, "prompt continuation token"],
        branches: Sequence[Branch],
        tick: Tick,
    ) -> Float[Tensor, "prompt branch continuation"]:
        """See `Engine`."""
        _, n_continuations, n_longest = continuations.shape
        self.prepare(max(map(len, prompts)) + n_longest)
        said = [[[t for t in c if t >= 0] for c in of] for of in continuations.tolist()]
        cells = [
            (p, branch, said[p][c])
            for p in range(len(prompts))
            for branch in branches
            for c in range(n_continuations)
        ]

        def run(rows: list[int]) -> Tensor:
            ours = [cells[r] for r in rows]
            batch = _rows(prompts, [(p, branch) for p, branch, _ in ours])
            whole = [[*prompts[p], *tokens[:-1]] for p, _, tokens in ours]
            ran = self.run(replace(batch, tokens=whole))
            places = [
                (row, len(prompts[p]) - 1 + i, token)
                for row, (p, _, tokens) in enumerate(ours)
                for i, token in enumerate(tokens)
            ]
            tick(sum(1 for r in rows if r % n_continuations == 0))
            at, column, token = self.tensor(places).unbind(dim=1)
            logprob = self.readout(ran.stream[at, column], token[:, None]).logprob[:, 0]
            total = logprob.new_zeros(len(rows)).index_add_(0, at, logprob)
            nothing = self.tensor([not tokens for *_, tokens in ours]).bool()
            return total.masked_fill(nothing, torch.nan)

        sizes = [len(prompts[p]) + len(tokens) for p, _, tokens in cells]
        found = self.in_batches(sizes, run, join)
        return found.view(len(prompts), len(branches), n_continuations)

    def last_tokens(
        self, prompts: Sequence[Tokens]
    ) -> tuple[Float[Tensor, "prompt d_model"], Int[Tensor, "prompt"]]:
        """See `Engine`."""
        ends = self.tensor([len(t) - 1 for t in prompts])
        return self._stream(prompts)[torch.arange(len(ends), device=ends.device), ends], ends

    # --- implementation --------------------------------------------------------------------------

    def _each(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        read: Callable[["Ran"], T],
        joined: Callable[[list[T], Int[Tensor, "row"]], T],
        tick: Tick,
    ) -> T:
        """Run every (prompt, branch) in batches, and return what `read` takes from each batch."""
        self.prepare(max(map(len, prompts)))
        pairs = [(p, branch) for p in range(len(prompts)) for branch in branches]

        def run(rows: list[int]) -> T:
            found = read(self.run(_rows(prompts, [pairs[r] for r in rows])))
            tick(len(rows))
            return found

        return self.in_batches([len(prompts[p]) for p, _ in pairs], run, joined)

    def run(self, rows: Rows) -> "Ran":
        """Run a batch, with its edits in place."""
        with writing(self.bridge, list(rows.writes())), cutting(self.bridge, rows.cuts()):
            return Ran(self, rows, self._stream(rows.tokens))

    def _stream(self, sequences: Sequence[Tokens]) -> Float[Tensor, "row token d_model"]:
        """The residual stream after the last block."""
        return final_stream(self.bridge, self.tensor(padded(sequences)))

    def _verify(self, n_positions: int) -> None:
        """Compare with the model's own logits, and compare a padded row with the same row alone.

        Raises:
            ModelError: where the stream after the last block does not give the model's logits.
        """
        long = some_tokens(self.bridge.cfg.d_vocab, n_positions)
        short = long[: max(1, n_positions // 2)]
        expected = logits_after(self.bridge, self.tensor([long]))[0]
        top = int(expected.argmax())
        wide = torch.promote_types(expected.dtype, torch.float32)
        theirs = expected.to(wide).log_softmax(dim=-1)[top]
        tolerance = tolerance_of(self.dtype)
        alone = [self._top_logprob([tokens], top)[0] for tokens in (long, short)]
        if not (alone[0] - theirs).abs() <= tolerance:
            raise ModelError(
                f"{architecture_of(self.bridge)} cannot be edited: the residual stream after its "
                f"last block, read through norm and unembedding, misses the model's own log "
                f"probability by {float((alone[0] - theirs).abs()):.2g}; expected less than "
                f"{tolerance}"
            )
        together = self._top_logprob([long, short], top)
        self.pads = self.pads and bool(((torch.stack(alone) - together).abs() <= tolerance).all())

    def _top_logprob(self, sequences: Sequence[Tokens], token: int) -> Float[Tensor, "row"]:
        """Log probability of one token after each sequence."""
        last, _ = self.last_tokens(sequences)
        return self.readout(last, self.tensor([[token]] * len(sequences))).logprob[:, 0]


@dataclass(frozen=True)
class Ran:
    """A batch after its forward pass (`generation.Continued`).

    Attributes:
        engine: the engine that ran the batch.
        batch: its rows.
        stream: the residual stream after the last block.
    """

    engine: PlainEngine
    batch: Rows
    stream: Float[Tensor, "row token d_model"]

    @property
    def last(self) -> Float[Tensor, "row d_model"]:
        """The residual stream at each row's last token."""
        ends = torch.tensor([len(t) - 1 for t in self.batch.tokens], device=self.stream.device)
        return self.stream[torch.arange(len(ends), device=ends.device), ends]

    def rows(self, kept: Int[Tensor, "kept"]) -> "Ran":
        """Only these rows."""
        chosen = kept.tolist()
        batch = Rows(
            [self.batch.tokens[i] for i in chosen],
            [self.batch.prompts[i] for i in chosen],
            [self.batch.branches[i] for i in chosen],
        )
        return Ran(self.engine, batch, self.stream[kept])

    def step(self, tokens: Int[Tensor, "row"]) -> "Ran":
        """The same rows with one more token each, run from their beginning."""
        longer = [[*old, new] for old, new in zip(self.batch.tokens, tokens.tolist(), strict=True)]
        return self.engine.run(replace(self.batch, tokens=longer))


def _rows(prompts: Sequence[Tokens], pairs: Sequence[tuple[int, Branch]]) -> Rows:
    return Rows([prompts[p] for p, _ in pairs], [p for p, _ in pairs], [b for _, b in pairs])
