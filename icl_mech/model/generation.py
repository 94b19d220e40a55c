"""Greedy generation, and the probability of whole answers, after prompts with edits in them.

Each prompt runs once. Each edit re-runs the edited token and the tokens after it. The keys and
values of these tokens are kept, and every new token attends to them, as it would in one long
forward pass with the edit's hook in place. Several answers after the same prompt and edit run as
branches of one prefix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.branches import Branch, Tails, reads_top, run_branches
from icl_mech.model.engine import Engine, Tokens
from icl_mech.model.prefix_cache import Prefill, Prefix, advance
from icl_mech.progress import Tick

T = TypeVar("T")


@dataclass(frozen=True)
class Generation:
    """What the model generated after a prompt.

    Attributes:
        tokens: the generated ids; an end-of-text token is left out.
        text: the generated text, up to the stop. It is data: escape it before it goes into HTML.
        cut: whether the limit of new tokens was reached before the model ended the text.
    """

    tokens: tuple[int, ...]
    text: str
    cut: bool


@dataclass(frozen=True)
class Ended:
    """A batch of prompts with edits in place, a row per (prompt, branch).

    Attributes:
        prefix: keys and values of all of a row's tokens, the edited ones included.
        last: the residual stream after the last block at the prompt's last token.
        lengths: tokens of each row's prompt.
    """

    prefix: Prefix
    last: Float[Tensor, "row d_model"]
    lengths: Int[Tensor, "row"]

    def rows(self, kept: Int[Tensor, "kept"]) -> "Ended":
        """Only these rows."""
        return Ended(self.prefix.rows(kept), self.last[kept], self.lengths[kept])


class Generator:
    """Generates and scores text after prompts, with edits in place."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.blocks = engine.blocks

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        max_new_tokens: int,
        stop: str,
        tick: Tick,
    ) -> list[list[Generation]]:
        """Greedy generations, see `HookedModel.generate`; outer list over prompts."""
        if max_new_tokens < 1:
            raise InputError(f"max_new_tokens is {max_new_tokens}; expected at least 1")
        if not stop:
            raise InputError("stop is empty; expected text that ends an answer")

        def run(ended: Ended, rows: list[int]) -> list[Generation]:
            return self._greedy(ended, max_new_tokens, stop)

        return self._each(prompts, branches, max_new_tokens, run, tick)

    @torch.no_grad()
    def sequence_logprob(
        self,
        prompts: Sequence[Tokens],
        continuations: Sequence[Sequence[Tokens]],
        branches: Sequence[Branch],
        tick: Tick,
    ) -> Float[Tensor, "prompt branch continuation"]:
        """Log probabilities, see `HookedModel.sequence_logprob`."""
        _check(prompts, continuations)
        n_most = max(map(len, continuations))
        n_longest = max(len(c) for of_prompt in continuations for c in of_prompt)
        padded = torch.full((len(prompts), n_most, n_longest), -1)
        for p, of_prompt in enumerate(continuations):
            for c, tokens in enumerate(of_prompt):
                padded[p, c, : len(tokens)] = torch.as_tensor(tokens)
        padded = padded.to(self.blocks.device)

        def run(ended: Ended, rows: list[int]) -> list[Tensor]:
            ours = repeat(padded[rows], "p c t -> (p b) c t", b=len(ended.last) // len(rows))
            step = max(1, self.engine.budget.tokens // (len(ours) * max(1, n_longest - 1)))
            parts = [self._logprob(ended, part) for part in ours.split(step, dim=1)]
            return list(torch.cat(parts, dim=1))

        found = self._each(prompts, branches, n_longest, run, tick)
        return torch.stack([torch.stack(of_prompt) for of_prompt in found])

    # --- implementation ---------------------------------------------------------------------

    def _each(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        n_new: int,
        run: Callable[[Ended, list[int]], list[T]],
        tick: Tick,
    ) -> list[list[T]]:
        """The result of `run` for every (prompt, branch), in batches that fit into the budget."""
        longest = max(map(len, prompts)) + n_new
        self.engine.prepare(longest)
        first = min(min(branch.positions) for branch in branches)
        keys_only = not reads_top(branches, [len(t) for t in prompts])

        def batch(rows: list[int]) -> list[list[T]]:
            ours = [prompts[r] for r in rows]
            start = self.engine.prefill(ours, start=first, keys_only=keys_only)
            found: dict[int, list[T]] = {}
            width = max(map(len, ours)) + n_new
            for chunk in self.engine.chunks(prompts, rows, branches, width):
                ended = self._end(start, rows, [branches[i] for i in chunk])
                made = run(ended, rows)
                # Rows are prompts x branches.
                found |= {i: made[c :: len(chunk)] for c, i in enumerate(chunk)}
                tick(len(made))
            return [[found[i][p] for i in range(len(branches))] for p in range(len(rows))]

        def join(parts: list[list[list[T]]], order: Int[Tensor, "row"]) -> list[list[T]]:
            rows = [row for part in parts for row in part]
            return [rows[i] for i in order.tolist()]

        return self.engine.in_batches([len(t) + n_new for t in prompts], batch, join)

    def _end(self, start: Prefill, rows: list[int], branches: Sequence[Branch]) -> Ended:
        """Run the prompts' tails with the edits; keep the keys and values for later tokens."""
        tails = Tails.of(branches, self.engine.tensor(rows), start.lengths)
        own: dict[int, tuple[Tensor, Tensor]] = {}

        def keep(layer: int, keys: Tensor, values: Tensor) -> None:
            own[layer] = keys, values

        last = run_branches(self.blocks, start, branches, tails, keep)
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

        n_layers = self.blocks.n_layers
        prefix = Prefix(
            [whole(layer, 0) for layer in range(n_layers)],
            [whole(layer, 1) for layer in range(n_layers)],
            repeat(seen, "p k -> (p b) k", b=n),
        )
        return Ended(prefix, last.flatten(0, 1), start.lengths.repeat_interleave(n))

    def _greedy(self, ended: Ended, max_new_tokens: int, stop: str) -> list[Generation]:
        """Append the most probable token until every row has ended; ended rows are dropped."""
        tokens: list[list[int]] = [[] for _ in ended.last]
        done: dict[int, Generation] = {}
        running = list(range(len(tokens)))
        for step in range(max_new_tokens):
            nothing = torch.zeros_like(ended.lengths)[:, None]
            said = self.engine.readout(ended.last, nothing).top
            for row, token in zip(running, said.tolist(), strict=True):
                tokens[row].append(token)
                generation = self._ended_text(tokens[row], stop, step + 1 == max_new_tokens)
                if generation is not None:
                    done[row] = generation
            going = [i for i, row in enumerate(running) if row not in done]
            if not going:
                break
            running = [running[i] for i in going]
            kept = self.engine.tensor(going)
            ended = self._step(ended.rows(kept) if len(going) < len(said) else ended, said[kept])
        return [done[row] for row in range(len(tokens))]

    def _step(self, ended: Ended, tokens: Int[Tensor, "row"]) -> Ended:
        """Run one more token at the end of every row."""
        positions = ended.lengths[:, None, None]
        embedded = self.blocks.embed(tokens[:, None], positions[:, 0])
        keys: list[Tensor] = []
        values: list[Tensor] = []

        def keep(layer: int, k: Tensor, v: Tensor) -> None:
            keys.append(k)
            values.append(v)

        hidden = advance(self.blocks, ended.prefix, {0: embedded[:, None]}, positions, keep=keep)
        prefix = ended.prefix.then(keys, values, positions[:, 0])
        return replace(ended, prefix=prefix, last=hidden[:, 0, 0], lengths=ended.lengths + 1)

    def _ended_text(self, tokens: list[int], stop: str, at_limit: bool) -> Generation | None:
        """The finished generation if these tokens end it, else None."""
        if tokens[-1] in self._end_tokens:
            text = self._decode(tokens[:-1])
            return Generation(tuple(tokens[:-1]), text, cut=False)
        text = self._decode(tokens)
        if stop in text:
            return Generation(tuple(tokens), text.partition(stop)[0], cut=False)
        return Generation(tuple(tokens), text, cut=True) if at_limit else None

    def _decode(self, tokens: list[int]) -> str:
        return str(self.blocks.bridge.tokenizer.decode(tokens))

    @property
    def _end_tokens(self) -> set[int]:
        """Tokens that end a text, by the tokenizer and by the model's generation config."""
        config = getattr(self.blocks.bridge.original_model, "generation_config", None)
        of_model = getattr(config, "eos_token_id", None)
        several = of_model if isinstance(of_model, list) else [of_model]
        return {t for t in (self.blocks.bridge.tokenizer.eos_token_id, *several) if t is not None}

    def _logprob(
        self, ended: Ended, continuations: Int[Tensor, "row continuation token"]
    ) -> Float[Tensor, "row continuation"]:
        """Summed log probability of each continuation; -1 is padding, and all padding gives NaN."""
        first, later = continuations[..., 0], continuations[..., 1:]
        total = self.engine.readout(ended.last, first).logprob
        real = later >= 0
        if not bool(real.any()):
            return total
        n_branches, n_tokens = later.shape[1:]
        steps = torch.arange(n_tokens, device=later.device)
        positions = repeat(ended.lengths[:, None] + steps, "r t -> r b t", b=n_branches)
        # Token 0 stands in for padding; no earlier token attends to it.
        said = continuations[..., :-1].clamp_min(0)
        embedded = self.blocks.embed(said.flatten(1), positions.flatten(1))
        entering = rearrange(embedded, "r (b t) d -> r b t d", b=n_branches)
        hidden = advance(self.blocks, ended.prefix, {0: entering}, positions)
        rest = torch.zeros(later.shape, dtype=total.dtype, device=total.device)
        rest[real] = self.engine.readout(hidden[real], later[real][:, None]).logprob[:, 0]
        return total + rest.sum(dim=-1)


def _tails(
    clean: Float[Tensor, "prompt head key d"],
    own: Float[Tensor, "prompt head own d"] | None,
    tails: Tails,
    n_branches: int,
) -> Float[Tensor, "row head token d"]:
    """Keys (or values) of the tails in one block.

    A branch that has entered this block has its own; below its first block a branch has those of
    the prompt without edits.
    """
    at = tails.positions[:, None, :, None].expand(-1, clean.shape[1], -1, clean.shape[3])
    below = rearrange(clean.gather(2, at), "p h t d -> p 1 h t d")
    if own is None:
        return repeat(below, "p 1 h t d -> (p b) h t d", b=n_branches)
    entered = rearrange(own, "p h (b t) d -> p b h t d", t=tails.n_tokens)
    rest = below.expand(-1, n_branches - entered.shape[1], -1, -1, -1)
    return torch.cat([entered, rest], dim=1).flatten(0, 1)


def _check(prompts: Sequence[Tokens], continuations: Sequence[Sequence[Tokens]]) -> None:
    if len(continuations) != len(prompts):
        raise InputError(
            f"continuations of {len(continuations)} prompts for {len(prompts)} prompts; expected "
            "some for each"
        )
    if not all(continuations) or not all(len(c) for of in continuations for c in of):
        raise InputError("an empty continuation, or none; expected at least one token for each")
