"""Runs prompts with edits in place, and new tokens after them, without running old tokens again.

Each prompt runs once. For each edit, the edited token and the tokens after it run again. Their keys
and values are kept, and every new token attends to them, as it would in one long forward pass with
the edit's hook in place. Several answers after the same prompt and edit run as branches of one
prefix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.model.blocks import Blocks
from icl_mech.model.branches import Branch, Tails, run_branches
from icl_mech.model.prefix_cache import Prefill, Prefix, advance
from icl_mech.model.readout import Readout


@dataclass(frozen=True)
class Ended:
    """A batch of prompts that ran with edits in place; one row per (prompt, branch).

    Attributes:
        blocks: the model's blocks.
        prefix: keys and values of all of a row's tokens, the edited ones included.
        last: the residual stream after the last block at the row's last token.
        lengths: tokens of each row.
    """

    blocks: Blocks
    prefix: Prefix
    last: Float[Tensor, "row d_model"]
    lengths: Int[Tensor, "row"]

    @staticmethod
    def of(
        blocks: Blocks, start: Prefill, prompts: Int[Tensor, "prompt"], branches: Sequence[Branch]
    ) -> "Ended":
        """Run the prompts' tails with the edits; keep the keys and values for later tokens.

        Args:
            blocks: the model's blocks.
            start: the prompts after one pass without edits.
            prompts: their indices among all prompts.
            branches: branches that begin at the same token, sorted by `entry`.
        """
        tails = Tails.of(branches, prompts, start.lengths)
        own: dict[int, tuple[Tensor, Tensor]] = {}

        def keep(layer: int, keys: Tensor, values: Tensor) -> None:
            own[layer] = keys, values

        last = run_branches(blocks, start, branches, tails, keep)
        n = len(branches)
        before = start.prefix.before(tails.first)
        steps = torch.arange(tails.n_tokens, device=tails.first.device)
        real = tails.first[:, None] + steps < start.lengths[:, None]
        seen = torch.cat([before.positions, tails.positions.masked_fill(~real, -1)], dim=1)

        def whole(layer: int, which: int) -> Tensor:
            clean = (start.prefix.keys, start.prefix.values)[which][layer]
            earlier = (before.keys, before.values)[which][layer]
            tail = _tails(clean, own[layer][which] if layer in own else None, tails, n)
            earlier = repeat(earlier, "p h k d -> (p b) h k d", b=n)
            return torch.cat([earlier, tail], dim=2)

        prefix = Prefix(
            [whole(layer, 0) for layer in range(blocks.n_layers)],
            [whole(layer, 1) for layer in range(blocks.n_layers)],
            repeat(seen, "p k -> (p b) k", b=n),
        )
        lengths = start.lengths.repeat_interleave(n)
        return Ended(blocks, prefix, last.flatten(0, 1), lengths)

    def rows(self, kept: Int[Tensor, "kept"]) -> "Ended":
        """Only these rows."""
        return replace(
            self, prefix=self.prefix.rows(kept), last=self.last[kept], lengths=self.lengths[kept]
        )

    def step(self, tokens: Int[Tensor, "row"]) -> "Ended":
        """Run one more token at the end of every row."""
        positions = self.lengths[:, None, None]
        embedded = self.blocks.embed(tokens[:, None], positions[:, 0])
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def keep(layer: int, k: Tensor, v: Tensor) -> None:
            keys.append(k)
            values.append(v)

        hidden = advance(self.blocks, self.prefix, {0: embedded[:, None]}, positions, keep=keep)
        prefix = self.prefix.then(keys, values, positions[:, 0])
        return replace(self, prefix=prefix, last=hidden[:, 0, 0], lengths=self.lengths + 1)

    def logprob(
        self,
        continuations: Int[Tensor, "row continuation token"],
        readout: Callable[[Tensor, Tensor], Readout],
    ) -> Float[Tensor, "row continuation"]:
        """Summed log probability of each continuation; -1 is padding, and all padding gives NaN."""
        first, later = continuations[..., 0], continuations[..., 1:]
        total = readout(self.last, first).logprob
        real = later >= 0
        if not bool(real.any()):
            return total
        n_branches, n_tokens = later.shape[1:]
        steps = torch.arange(n_tokens, device=later.device)
        positions = repeat(self.lengths[:, None] + steps, "r t -> r b t", b=n_branches)
        # Token 0 stands in for padding; no earlier token attends to it.
        said = continuations[..., :-1].clamp_min(0)
        embedded = self.blocks.embed(said.flatten(1), positions.flatten(1))
        entering = rearrange(embedded, "r (b t) d -> r b t d", b=n_branches)
        hidden = advance(self.blocks, self.prefix, {0: entering}, positions)
        rest = torch.zeros(later.shape, dtype=total.dtype, device=total.device)
        rest[real] = readout(hidden[real], later[real][:, None]).logprob[:, 0]
        return total + rest.sum(dim=-1)


def _tails(
    clean: Float[Tensor, "prompt head key d"],
    own: Float[Tensor, "prompt head own d"] | None,
    tails: Tails,
    n_branches: int,
) -> Float[Tensor, "row head token d"]:
    """Keys (or values) of the tails in one block.

    Branches that have entered this block have their own. Below its first block, a branch has those
    of the prompt without edits.
    """
    positions = tails.positions.to(clean.device)
    at = positions[:, None, :, None].expand(-1, clean.shape[1], -1, clean.shape[3])
    below = rearrange(clean.gather(2, at), "p h t d -> p 1 h t d")
    if own is None:
        return repeat(below, "p 1 h t d -> (p b) h t d", b=n_branches)
    entered = rearrange(own, "p h (b t) d -> p b h t d", t=tails.n_tokens)
    rest = below.expand(-1, n_branches - entered.shape[1], -1, -1, -1)
    return torch.cat([entered, rest], dim=1).flatten(0, 1)
