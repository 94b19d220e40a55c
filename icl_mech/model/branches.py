"""Branches (copies of a prompt's last tokens with edits in them), and how they run."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from einops import repeat
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.model.blocks import Blocks
from icl_mech.model.edits import ORDER, PlacedEdit
from icl_mech.model.knockouts import Hidden, PlacedKnockout
from icl_mech.model.prefix_cache import Keeper, Prefill, advance
from icl_mech.model.writing import Write, writing


@dataclass(frozen=True)
class Branch:
    """Edits and knockouts that are applied together; most branches have only one.

    All branches of a prompt share the tokens before the first edited token and the blocks below
    the first edited block. A token whose attention is cut counts as edited.
    """

    edits: tuple[PlacedEdit, ...]
    n_layers: int
    knockouts: tuple[PlacedKnockout, ...] = ()

    @property
    def _changes(self) -> Sequence[PlacedEdit | PlacedKnockout]:
        return [*self.edits, *self.knockouts]

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """The index of each prompt's first edited token."""
        return tuple(map(min, zip(*(c.positions for c in self._changes), strict=True)))

    @cached_property
    def entry(self) -> int:
        """The first block that the branch runs through; `n_layers` if it runs through none."""
        return min(c.entry(self.n_layers) for c in self._changes)

    def overwrites(self, ends: tuple[int, ...]) -> bool:
        """Whether the branch replaces the final residual stream at the last token."""
        above = self.entry == self.n_layers and self.positions == ends
        return above and any(e.edit.mode == "replace" for e in self.edits)

    def writes(self, prompts: Sequence[int], rows: Sequence[int]) -> Iterator[Write]:
        """The edits in a batch of whole prompts.

        Args:
            prompts: indices of the edited prompts among all prompts.
            rows: the row of each in the batch.
        """
        for placed in self.edits:
            yield Write(
                placed,
                placed.edit.layer % self.n_layers,
                prompts=torch.tensor(prompts),
                rows=torch.tensor(rows),
                columns=torch.tensor([placed.positions[p] for p in prompts]),
            )

    def at_entry(self) -> list[PlacedEdit]:
        """Edits of the residual stream that enters the branch, written before any block runs."""
        return sorted(
            (
                e
                for e in self.edits
                if e.entry(self.n_layers) == self.entry
                and e.edit.site in ("resid_pre", "resid_post")
            ),
            # An edit of block l - 1's output comes before one of block l's input.
            key=lambda e: e.edit.site == "resid_pre",
        )

    def inside(self) -> list[PlacedEdit]:
        """All other edits; TransformerLens hooks write them while the blocks run."""
        direct = self.at_entry()
        return sorted(
            (e for e in self.edits if not any(e is d for d in direct)),
            key=lambda e: (e.edit.layer % self.n_layers, ORDER.index(e.edit.site)),
        )


@dataclass(frozen=True)
class Tails:
    """The tokens that a batch of branches runs: from the first edited token to the last.

    Attributes:
        rows: indices of the prompts among all prompts.
        first: position of each prompt's first edited token.
        positions: of every token. A shorter tail is padded with copies of its last token, to which
            no earlier token attends.
    """

    rows: Int[Tensor, "prompt"]
    first: Int[Tensor, "prompt"]
    positions: Int[Tensor, "prompt token"]

    @staticmethod
    def of(branches: Sequence[Branch], rows: Tensor, lengths: Int[Tensor, "prompt"]) -> "Tails":
        """The tails of branches that have the same first edited token."""
        first = torch.tensor(branches[0].positions, device=rows.device)[rows]
        steps = torch.arange(int((lengths - first).max()), device=rows.device)
        return Tails(rows, first, torch.minimum(first[:, None] + steps, lengths[:, None] - 1))

    @property
    def n_tokens(self) -> int:
        """Tokens per branch, padding included."""
        return self.positions.shape[1]

    @property
    def batch(self) -> Int[Tensor, "prompt"]:
        """Indices of the prompts within the batch."""
        return torch.arange(len(self.first), device=self.first.device)

    def offset(self, placed: PlacedEdit) -> Int[Tensor, "prompt"]:
        """The index of an edit's token in each tail."""
        return torch.tensor(placed.positions, device=self.rows.device)[self.rows] - self.first


def entering(branch: Branch, start: Prefill, tails: Tails) -> Float[Tensor, "prompt token d_model"]:
    """The residual stream that enters a branch's first block, with its edits there written."""
    columns = tails.positions - start.start
    if branch.entry < len(start.resid_pre):
        stream = start.resid_pre[branch.entry][tails.batch[:, None], columns]
    else:  # after the last block: the edits replace it
        stream = torch.zeros_like(start.resid_pre[0][tails.batch[:, None], columns])
    for placed in branch.at_entry():
        here = tails.batch, tails.offset(placed)
        stream[here] = placed.written(tails.rows, stream[here])
    return stream


def run_branches(
    blocks: Blocks,
    start: Prefill,
    branches: Sequence[Branch],
    tails: Tails,
    keep: Keeper | None = None,
) -> Float[Tensor, "prompt branch d_model"]:
    """Run branches and return the final residual stream at the last token of each.

    Args:
        blocks: the model's blocks.
        start: the prompts after one pass without edits.
        branches: sorted by `entry`.
        tails: the tokens of the branches.
        keep: as in `advance`.
    """
    groups: dict[int, list[Tensor]] = defaultdict(list)
    for branch in branches:
        groups[branch.entry].append(entering(branch, start, tails))
    prefix = start.prefix.before(tails.first)
    hidden = Hidden.of(
        [branch.knockouts for branch in branches],
        tails.rows,
        tails.first,
        tails.n_tokens,
        prefix.positions.shape[1],
        blocks.bridge.cfg.n_heads,
    )
    with writing(blocks.bridge, _writes(branches, tails)):
        stream = advance(
            blocks,
            prefix,
            {layer: torch.stack(group, dim=1) for layer, group in sorted(groups.items())},
            repeat(tails.positions, "p s -> p b s", b=len(branches)),
            keep=keep,
            hidden=hidden,
        )
    ends = start.lengths - 1 - tails.first
    return take(stream, ends[:, None].expand(-1, len(branches)))


def take(
    hidden: Float[Tensor, "prompt branch token d"], at: Int[Tensor, "prompt branch"]
) -> Float[Tensor, "prompt branch d"]:
    """Pick one token of every branch."""
    index = at[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
    return hidden.gather(2, index)[:, :, 0]


def reads_top(branches: Sequence[Branch], lengths: Sequence[int]) -> bool:
    """Whether a branch needs the stream after the last block, because its edits keep part of it."""
    ends = tuple(n - 1 for n in lengths)
    return any(b.entry == b.n_layers and not b.overwrites(ends) for b in branches)


def _writes(branches: Sequence[Branch], tails: Tails) -> list[Write]:
    """The edits of branches inside the blocks, with their indices in the tails' activations."""
    return [
        Write(
            placed,
            placed.edit.layer % branch.n_layers,
            prompts=tails.rows,
            rows=tails.batch,
            columns=index * tails.n_tokens + tails.offset(placed),
        )
        for index, branch in enumerate(branches)
        for placed in branch.inside()
    ]
