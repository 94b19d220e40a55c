"""The shared-prefix engine: capture residuals and evaluate edits, re-running only what changes."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import takewhile
from typing import Any, TypeVar

import torch
from einops import rearrange, repeat
from jaxtyping import Float, Int
from torch import Tensor

from icl_mech.model.batching import Budget, runs
from icl_mech.model.context import Prefill, advance, prefill
from icl_mech.model.edits import HOOKS, PlacedEdit
from icl_mech.model.readout import Readout, read
from icl_mech.model.rehearsal import rehearse
from icl_mech.model.trunk import Trunk

Tokens = Sequence[int]
Tick = Callable[[int], object]
T = TypeVar("T")

#: Tokens that run through a block at once: on a CPU enough for full speed and few enough for its
#: cache, on anything else enough to keep it busy.
BUDGET = {"cpu": 512}
BUDGET_ACCELERATOR = 8192


def silent(n: int) -> None:
    """A tick that nobody watches."""


class Engine:
    """Runs token sequences through a bridge, sharing everything that can be shared."""

    def __init__(self, bridge: Any, budget: int | None = None) -> None:
        self.bridge = bridge
        self.trunk = Trunk(bridge)
        device = self.trunk.device.type
        self.budget = Budget(budget or BUDGET.get(device, BUDGET_ACCELERATOR))

    # --- what callers use -------------------------------------------------------------------

    @torch.no_grad()
    def branch_residuals(
        self, groups: Sequence[Sequence[Tokens]], tick: Tick = silent
    ) -> Float[Tensor, "group branch layer d_model"]:
        """Residual stream at the last token after every block.

        The prompts of a group share their first tokens (the demonstrations), which run once.
        """
        shared = [min(_common(group), min(map(len, group)) - 1) for group in groups]
        rehearse(self.trunk, max(len(t) for group in groups for t in group))

        def run(rows: list[int]) -> Tensor:
            start = self._prefill([groups[r][0][: shared[r]] for r in rows], keys_only=True)
            suffixes = [[t[shared[r] :] for t in groups[r]] for r in rows]
            ends = self._tensor([[len(t) - 1 for t in group] for group in suffixes])
            n_tokens = int(ends.max()) + 1
            tokens = self._tensor([[_pad(t, n_tokens) for t in group] for group in suffixes])
            # Past its last token a branch repeats it, position included: nothing real sees that.
            steps = torch.arange(n_tokens, device=ends.device)
            positions = start.lengths[:, None, None] + torch.minimum(steps, ends[..., None])
            embedded = self.trunk.embed(tokens.flatten(1), positions.flatten(1))
            entering = rearrange(embedded, "p (b s) d -> p b s d", s=n_tokens)
            layers: list[Tensor] = []
            advance(
                self.trunk,
                start.context,
                {0: entering},
                positions,
                lambda _, hidden: layers.append(_take(hidden, ends)),
            )
            tick(ends.numel())
            return torch.stack(layers, dim=2)

        sizes = [max(n, sum(len(t) - n for t in g)) for n, g in zip(shared, groups, strict=True)]
        return self._in_batches(sizes, run, torch.cat)

    @torch.no_grad()
    def token_activations(
        self, prompts: Sequence[Tokens], positions: Sequence[Sequence[int]], hook: str
    ) -> Float[Tensor, "prompt position layer *shape"]:
        """One hook's activation at chosen tokens of every prompt, at every block.

        Args:
            prompts: token ids.
            positions: for each prompt, the same number of token indices.
            hook: the hook's name with a `{}` for the block, as in `"blocks.{}.attn.hook_z"`.
        """
        rehearse(self.trunk, max(map(len, prompts)))

        def run(rows: list[int]) -> Tensor:
            wanted = self._tensor([list(positions[r]) for r in rows])
            layers: list[Tensor] = []

            def keep(activation: Tensor, hook: Any) -> None:
                layers.append(activation[torch.arange(len(rows))[:, None], wanted].clone())

            names = [hook.format(layer) for layer in range(self.trunk.n_layers)]
            with self.bridge.hooks(fwd_hooks=[(name, keep) for name in names]):
                longest = max(len(prompts[r]) for r in rows)
                # Nothing of the stream is kept but what the hook picks.
                self._prefill([prompts[r] for r in rows], start=longest, keys_only=False)
            return torch.stack(layers, dim=2)

        return self._in_batches([len(t) for t in prompts], run, torch.cat)

    @torch.no_grad()
    def evaluate(
        self,
        prompts: Sequence[Tokens],
        edits: Sequence[PlacedEdit],
        targets: Int[Tensor, "prompt target"],
        tick: Tick = silent,
    ) -> Readout:
        """Read the answer after each edit of each prompt: a `[prompt, edit]` readout.

        Only the edited token and what follows it are run, from the edited block on.
        """
        rehearse(self.trunk, max(map(len, prompts)))
        first = min(min(e.positions) for e in edits)
        # What stands after the last block is needed only where an edit there leaves some of it.
        ends = tuple(len(t) - 1 for t in prompts)
        reads_top = any(
            e.entry(self.trunk.n_layers) == self.trunk.n_layers
            and (e.edit.mode == "add" or e.positions != ends)
            for e in edits
        )

        def run(rows: list[int]) -> Readout:
            start = self._prefill([prompts[r] for r in rows], start=first, keys_only=not reads_top)
            parts: list[Readout] = []
            order: list[int] = []
            for chunk in self._chunks(prompts, rows, edits):
                chosen = [edits[i] for i in chunk]
                parts.append(self._edited(start, self._tensor(rows), chosen, targets[rows]))
                order += chunk
                tick(len(rows) * len(chunk))
            readout = Readout.cat(parts, dim=1)
            return readout.take(torch.tensor(order).argsort(), dim=1)

        targets = targets.to(self.trunk.device)
        return self._in_batches([len(t) for t in prompts], run, Readout.cat)

    @torch.no_grad()
    def read(
        self, resid: Float[Tensor, "row d_model"], targets: Int[Tensor, "row target"]
    ) -> Readout:
        """Final norm, unembedding and readout of residual vectors."""

        def run(rows: list[int]) -> Readout:
            ours = resid[rows].to(self.trunk.device, self.trunk.dtype)
            return read(self.bridge, ours, targets[rows].to(self.trunk.device))

        return self._in_batches([1] * len(resid), run, Readout.cat)

    # --- how it is done ---------------------------------------------------------------------

    def _edited(
        self,
        start: Prefill,
        rows: Int[Tensor, "prompt"],
        edits: Sequence[PlacedEdit],
        targets: Int[Tensor, "prompt target"],
    ) -> Readout:
        """Run one branch per edit (all at the same token) and read each branch's last token."""
        at = self._tensor(edits[0].positions)[rows]
        ends = start.lengths - 1 - at
        steps = torch.arange(int(ends.max()) + 1, device=at.device)
        # Past a prompt's last token its branch repeats that token; nothing real sees the repeat.
        real = torch.minimum(at[:, None] + steps, start.lengths[:, None] - 1)
        columns = real - start.start
        batch = torch.arange(len(at), device=at.device)[:, None]

        entering: dict[int, list[Tensor]] = defaultdict(list)
        hooks: dict[tuple[int, str], list[tuple[int, PlacedEdit]]] = defaultdict(list)
        for index, placed in enumerate(edits):
            entry = placed.entry(self.trunk.n_layers)
            resid = placed.edit.site in ("resid_pre", "resid_post")
            if entry < len(start.resid_pre):
                branch = start.resid_pre[entry][batch, columns]
            else:  # after the last block, replaced as a whole
                branch = torch.zeros_like(start.resid_pre[0][batch, columns])
            if resid:
                branch[:, 0] = placed.written(rows, branch[:, 0])
            else:
                hooks[entry, placed.edit.site].append((index, placed))
            entering[entry].append(branch)

        positions = repeat(real, "p s -> p b s", b=len(edits))
        with self._hooked(hooks, rows, len(steps)):
            hidden = advance(
                self.trunk,
                start.context.before(at),
                {layer: torch.stack(group, dim=1) for layer, group in sorted(entering.items())},
                positions,
            )
        last = _take(hidden, ends[:, None].expand(-1, len(edits)))
        readout = read(
            self.bridge,
            last.flatten(0, 1),
            repeat(targets, "p t -> (p b) t", b=len(edits)),
        )
        return readout.reshape(len(rows), len(edits))

    def _hooked(
        self,
        hooks: dict[tuple[int, str], list[tuple[int, PlacedEdit]]],
        rows: Int[Tensor, "prompt"],
        n_tokens: int,
    ) -> AbstractContextManager[Any]:
        """The TransformerLens hooks that write the edits inside blocks."""

        def writer(group: list[tuple[int, PlacedEdit]]) -> Callable[..., Tensor]:
            def write(activation: Tensor, hook: Any) -> Tensor:
                activation = activation.clone()
                branches = activation.unflatten(1, (-1, n_tokens))
                for index, placed in group:
                    head = placed.edit.head
                    token = branches[:, index, 0]
                    target = token if head is None else token[:, head]
                    target.copy_(placed.written(rows, target))
                return activation

            return write

        if not hooks:  # looking up hook points takes longer than a small block
            return nullcontext()
        return self.bridge.hooks(
            fwd_hooks=[
                (HOOKS[site].format(layer), writer(group)) for (layer, site), group in hooks.items()
            ]
        )

    def _chunks(
        self, prompts: Sequence[Tokens], rows: list[int], edits: Sequence[PlacedEdit]
    ) -> Iterator[list[int]]:
        """Edits that run together: at the same token, in the order of the blocks they enter."""
        groups: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, placed in enumerate(edits):
            groups[tuple(placed.positions[r] for r in rows)].append(i)
        for positions, members in groups.items():
            members.sort(key=lambda i: edits[i].entry(self.trunk.n_layers))
            suffix = max(len(prompts[r]) - p for r, p in zip(rows, positions, strict=True))
            step = max(1, self.budget.tokens // (suffix * len(rows)))
            for i in range(0, len(members), step):
                yield members[i : i + step]

    def _prefill(self, prompts: Sequence[Tokens], *, start: int = 0, keys_only: bool) -> Prefill:
        lengths = self._tensor([len(t) for t in prompts])
        tokens = self._tensor([_pad(t, int(lengths.max())) for t in prompts])
        return prefill(self.trunk, tokens, lengths, start, keys_only)

    def _in_batches(
        self, sizes: list[int], run: Callable[[list[int]], T], join: Callable[[list[T]], T]
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
        joined: Any = join(parts)
        back = torch.tensor(order).argsort()
        in_order: Any = joined.take(back) if isinstance(joined, Readout) else joined[back]
        return in_order

    def _tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, dtype=torch.long, device=self.trunk.device)


def _common(sequences: Sequence[Tokens]) -> int:
    """Length of the longest prefix that all sequences share."""
    columns: Iterable[tuple[int, ...]] = zip(*sequences, strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))


def _pad(tokens: Tokens, length: int) -> list[int]:
    """Right-pad by repeating the last token: no family treats it specially, and nobody sees it."""
    return [*tokens, *[tokens[-1]] * (length - len(tokens))]


def _take(
    hidden: Float[Tensor, "prompt branch token d"], at: Int[Tensor, "prompt branch"]
) -> Float[Tensor, "prompt branch d"]:
    """One token of every branch."""
    index = at[..., None, None].expand(-1, -1, 1, hidden.shape[-1])
    return hidden.gather(2, index)[:, :, 0]
