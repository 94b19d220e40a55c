"""The shared-prefix engine: capture residuals and evaluate edits, re-running only what changes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, TypeVar

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.batching import Budget, runs
from icl_mech.model.blocks import Blocks
from icl_mech.model.branches import Branch, Tails, reads_top, run_branches, take
from icl_mech.model.prefix_cache import Prefill, advance, prefill
from icl_mech.model.readout import Readout, read, top_of_means
from icl_mech.model.verification import verify
from icl_mech.progress import Tick, silent

Tokens = Sequence[int]
Pick = Callable[[Tensor, list[int]], Tensor]
T = TypeVar("T")

#: The number of tokens that run through a block at once: on a CPU enough for full speed and few
#: enough for its cache, on other devices enough to keep them busy.
BUDGET = {"cpu": 512}
BUDGET_ACCELERATOR = 8192


class Engine:
    """Runs token sequences through a bridge; tokens and blocks that they share run once.

    Attributes:
        budget: how many tokens run at once.
        n_read, n_tied: how often a top token was read, and how often it was not the only one.
    """

    def __init__(self, bridge: Any, budget: int | None = None) -> None:
        self.bridge = bridge
        self.blocks = Blocks(bridge)
        device = self.blocks.device.type
        self.budget = Budget(budget or BUDGET.get(device, BUDGET_ACCELERATOR))
        self.n_read = self.n_tied = 0

    # --- what `HookedModel` calls ----------------------------------------------------------------

    @torch.no_grad()
    def branch_residuals(
        self, groups: Sequence[Sequence[Tokens]], tick: Tick = silent
    ) -> Float[Tensor, "group branch layer d_model"]:
        """Residual stream at the last token after every block.

        The prompts of a group share their first tokens (the demonstrations), which run once.
        """
        shared = [min(_common(group), min(map(len, group)) - 1) for group in groups]
        self.prepare(max(len(t) for group in groups for t in group))

        def run(rows: list[int]) -> Tensor:
            start = self.prefill([groups[r][0][: shared[r]] for r in rows], keys_only=True)
            suffixes = [[t[shared[r] :] for t in groups[r]] for r in rows]
            ends = self.tensor([[len(t) - 1 for t in group] for group in suffixes])
            n_tokens = int(ends.max()) + 1
            tokens = self.tensor([[_pad(t, n_tokens) for t in group] for group in suffixes])
            # A shorter branch is padded by repeating its last token, which no real token sees.
            steps = torch.arange(n_tokens, device=ends.device)
            positions = start.lengths[:, None, None] + torch.minimum(steps, ends[..., None])
            embedded = self.blocks.embed(tokens.flatten(1), positions.flatten(1))
            entering = rearrange(embedded, "p (b s) d -> p b s d", s=n_tokens)
            layers: list[Tensor] = []
            advance(
                self.blocks,
                start.prefix,
                {0: entering},
                positions,
                lambda _, hidden: layers.append(take(hidden, ends)),
            )
            tick(ends.numel())
            return torch.stack(layers, dim=2)

        sizes = [max(n, sum(len(t) - n for t in g)) for n, g in zip(shared, groups, strict=True)]
        return self.in_batches(sizes, run, _join)

    @torch.no_grad()
    def observe(
        self, prompts: Sequence[Tokens], picks: Sequence[tuple[str, Pick]]
    ) -> tuple[Float[Tensor, "prompt layer *shape"], ...]:
        """Run prompts once and keep, at every block, only what each pick takes from its hook.

        Args:
            prompts: token ids.
            picks: a hook's name with a `{}` for the block, as in `"blocks.{}.attn.hook_z"`, and
                what to keep of its activation: a function of the activation `[prompt, ...]` and
                the indices of the prompts in it, whose result begins with those prompts.

        Raises:
            InputError: where there are no prompts.
        """
        if not prompts:
            raise InputError("no prompts; expected at least one")
        self.prepare(max(map(len, prompts)))

        def run(rows: list[int]) -> tuple[Tensor, ...]:
            kept: list[list[Tensor]] = [[] for _ in picks]

            def keeper(pick: Pick, into: list[Tensor]) -> Callable[..., None]:
                def keep(activation: Tensor, hook: Any) -> None:
                    into.append(pick(activation, rows).clone())

                return keep

            hooks = [
                (name.format(layer), keeper(pick, into))
                for (name, pick), into in zip(picks, kept, strict=True)
                for layer in range(self.blocks.n_layers)
            ]
            with self.bridge.hooks(fwd_hooks=hooks):
                longest = max(len(prompts[r]) for r in rows)
                # Only what the picks take is kept, none of the residual stream.
                self.prefill([prompts[r] for r in rows], start=longest, keys_only=False)
            return tuple(torch.stack(layers, dim=1) for layers in kept)

        return self.in_batches([len(t) for t in prompts], run, join_each)

    def token_activations(
        self, prompts: Sequence[Tokens], positions: Sequence[Sequence[int]], hook: str
    ) -> Float[Tensor, "prompt layer position *shape"]:
        """One hook's activation at chosen tokens of every prompt, at every block."""
        return self.observe(prompts, [(hook, self.at_tokens(positions))])[0]

    def at_tokens(self, positions: Sequence[Sequence[int]]) -> Pick:
        """For `observe`: keep these tokens of each prompt (the same number for each)."""

        def pick(activation: Tensor, rows: list[int]) -> Tensor:
            wanted = self.tensor([list(positions[r]) for r in rows])
            return activation[torch.arange(len(rows))[:, None], wanted]

        return pick

    @torch.no_grad()
    def evaluate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        targets: Int[Tensor, "prompt target"],
        tick: Tick = silent,
    ) -> Readout:
        """Read the answer in each branch of each prompt: a `[prompt, branch]` readout.

        Only the first edited token and what follows it are run, from the first edited block on.
        """
        self.prepare(max(map(len, prompts)))
        first = min(min(branch.positions) for branch in branches)
        keys_only = not reads_top(branches, [len(t) for t in prompts])

        def run(rows: list[int]) -> Readout:
            start = self.prefill([prompts[r] for r in rows], start=first, keys_only=keys_only)
            parts: list[Readout] = []
            order: list[int] = []
            for chunk in self.chunks(prompts, rows, branches):
                chosen = [branches[i] for i in chunk]
                parts.append(self._edited(start, self.tensor(rows), chosen, targets[rows]))
                order += chunk
                tick(len(rows) * len(chunk))
            readout = Readout.cat(parts, dim=1)
            return readout.take(torch.tensor(order).argsort(), dim=1)

        targets = targets.to(self.blocks.device)
        return self.in_batches([len(t) for t in prompts], run, _join_readouts)

    @torch.no_grad()
    def read(
        self,
        resid: Float[Tensor, "row d_model"],
        targets: Int[Tensor, "row target"],
        n_best: int = 0,
    ) -> Readout:
        """Final norm, unembedding and readout of residual vectors."""

        def run(rows: list[int]) -> Readout:
            ours = resid[rows].to(self.blocks.device, self.blocks.dtype)
            return self.readout(ours, targets[rows].to(self.blocks.device), n_best)

        return self.in_batches([1] * len(resid), run, _join_readouts)

    @torch.no_grad()
    def top_of_means(
        self,
        vectors: Float[Tensor, "group row d_model"],
        k: int,
        allowed: Bool[Tensor, "vocab"] | None,
    ) -> tuple[Tensor, ...]:
        """Ids and mean log probabilities `[group, k]`, see `readout.top_of_means`."""

        def run(rows: list[int]) -> tuple[Tensor, ...]:
            ours = vectors[rows].to(self.blocks.device, self.blocks.dtype)
            passed = None if allowed is None else allowed.to(self.blocks.device)
            return top_of_means(self.bridge, ours, k, passed, self.budget.share)

        return self.in_batches([vectors.shape[1]] * len(vectors), run, join_each)

    # --- shared with generation and gradients ----------------------------------------------------

    def prepare(self, n_positions: int) -> None:
        """Prepare the blocks for prompts of `n_positions` tokens, see `verification.verify`.

        Raises:
            InputError, ModelError: as there, and where not even one prompt fits into memory.
        """
        while True:
            try:
                return verify(self.blocks, n_positions, self.budget.share)
            except Exception as error:
                if not self.budget.survives(error):
                    raise

    def readout(
        self,
        resid: Float[Tensor, "row d_model"],
        targets: Int[Tensor, "row target"],
        n_best: int = 0,
    ) -> Readout:
        """Read rows in one batch, see `readout.read`, and count how many were read and tied."""
        found = read(self.bridge, resid, targets, n_best, self.budget.share)
        self.n_read += found.tied.numel()
        self.n_tied += int(found.tied.sum())
        return found

    def _edited(
        self,
        start: Prefill,
        rows: Int[Tensor, "prompt"],
        branches: Sequence[Branch],
        targets: Int[Tensor, "prompt target"],
    ) -> Readout:
        """Run branches that begin at the same token, and read each one's last token."""
        tails = Tails.of(branches, rows, start.lengths)
        last = run_branches(self.blocks, start, branches, tails)
        readout = self.readout(
            last.flatten(0, 1),
            repeat(targets, "p t -> (p b) t", b=len(branches)),
        )
        return readout.reshape(len(rows), len(branches))

    def chunks(
        self,
        prompts: Sequence[Tokens],
        rows: list[int],
        branches: Sequence[Branch],
        width: int | None = None,
    ) -> Iterator[list[int]]:
        """Branches that run together: from the same token, in order of the blocks they enter.

        Args:
            prompts: all of them.
            rows: those of this batch.
            branches: to run on each.
            width: tokens that a branch takes of the budget; by default those that it runs.
        """
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, branch in enumerate(branches):
            groups[tuple(branch.positions[r] for r in rows)].append(i)
        for positions, members in groups.items():
            members.sort(key=lambda i: branches[i].entry)
            suffix = max(len(prompts[r]) - p for r, p in zip(rows, positions, strict=True))
            step = max(1, self.budget.tokens // ((width or suffix) * len(rows)))
            for i in range(0, len(members), step):
                yield members[i : i + step]

    def prefill(self, prompts: Sequence[Tokens], *, start: int = 0, keys_only: bool) -> Prefill:
        lengths = self.tensor([len(t) for t in prompts])
        tokens = self.tensor([_pad(t, int(lengths.max())) for t in prompts])
        return prefill(self.blocks, tokens, lengths, start, keys_only)

    def in_batches(
        self,
        sizes: list[int],
        run: Callable[[list[int]], T],
        join: Callable[[list[T], Int[Tensor, "row"]], T],
    ) -> T:
        """Run items of similar size together, as many as fit, and put them back in order."""
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        parts: list[T] = []
        done = 0
        while done < len(order):
            rest = order[done:]
            batch = next(runs([sizes[i] for i in rest], self.budget.tokens))
            try:
                parts.append(run(rest[batch]))
            except Exception as error:
                if not self.budget.survives(error):
                    raise
                continue
            done += batch.stop
        return join(parts, torch.tensor(order).argsort())

    def tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.long, device=self.blocks.device)


def _join(parts: list[Tensor], order: Int[Tensor, "row"]) -> Tensor:
    return torch.cat(parts)[order]


def join_each(parts: list[tuple[Tensor, ...]], order: Int[Tensor, "row"]) -> tuple[Tensor, ...]:
    return tuple(_join(list(part), order) for part in zip(*parts, strict=True))


def _join_readouts(parts: list[Readout], order: Int[Tensor, "row"]) -> Readout:
    return Readout.cat(parts).take(order)


def _common(sequences: Sequence[Tokens]) -> int:
    """Length of the longest prefix that all sequences share."""
    columns: Iterable[tuple[int, ...]] = zip(*sequences, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _pad(tokens: Tokens, length: int) -> list[int]:
    """Right-pad by repeating the last token, which no real token attends to."""
    return [*tokens, *[tokens[-1]] * (length - len(tokens))]
