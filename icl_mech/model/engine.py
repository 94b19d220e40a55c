"""The interface of engines, which run prompts through a model with edits or without.

There are two engines. `SharedEngine` runs the tokens and blocks that prompts and edits share only
once; for each edit it runs only the tokens and blocks that the edit can change. It needs a model
whose blocks it can run one at a time. `PlainEngine` runs one full forward pass per prompt and edit,
in batches. It is slower, and exact for any causal model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.batching import Budget, even, runs
from icl_mech.model.branches import Branch
from icl_mech.model.distances import distances
from icl_mech.model.edits import HOOKS
from icl_mech.model.network import device_of, module_of, refuse_no_hooks
from icl_mech.model.precision import Precision, in_full_precision, in_its_precision
from icl_mech.model.prefix_cache import AfterBlock
from icl_mech.model.readout import Readout, read, top_of_means
from icl_mech.model.writing import writing
from icl_mech.progress import Tick, silent

Tokens = Sequence[int]
Pick = Callable[[Tensor, list[int]], Tensor]
T = TypeVar("T")

#: The number of tokens that run through a block at once. On a CPU it is large enough for full speed
#: and small enough for the cache; on other devices it is large enough to keep them busy.
BUDGET = {"cpu": 512}
BUDGET_ACCELERATOR = 8192
#: Rows that are read at once, per token of the budget. The product with the unembedding is faster
#: when more rows share it.
ROWS_PER_TOKEN = 4


class Engine(ABC):
    """Runs token sequences through a model.

    Attributes:
        name: `"shared"` or `"plain"`.
        gives_streams: whether `pass_over` hands over the residual stream, so that it needs no hook.
        bridge: the TransformerLens model.
        n_layers, device, dtype: of the model.
        budget: how many tokens run at once.
        n_read, n_tied: how often a top token was read, and how often another token tied with it.
        pads: whether sequences of several lengths share a batch.
        precision: of float32 matrix products in everything that the engine runs, except its check
            (`prepare`), which runs in full precision.
    """

    name: ClassVar[str]
    gives_streams: ClassVar[bool] = False
    _RUN: ClassVar = (
        "branch_residuals",
        "pass_over",
        "evaluate",
        "generate",
        "sequence_logprob",
        "last_tokens",
    )

    def __init_subclass__(cls) -> None:
        """Make the methods of a subclass multiply in the engine's precision."""
        super().__init_subclass__()
        for name in cls._RUN:
            if name in vars(cls):
                setattr(cls, name, in_its_precision(vars(cls)[name]))
        if "prepare" in vars(cls):
            cls.prepare = in_full_precision(vars(cls)["prepare"])  # type: ignore[method-assign]

    def __init__(self, bridge: Any, budget: int | None = None) -> None:
        self.bridge = bridge
        self.n_layers: int = bridge.cfg.n_layers
        self.device, self.dtype = device_of(bridge), next(module_of(bridge).parameters()).dtype
        self.budget = Budget(budget or BUDGET.get(self.device.type, BUDGET_ACCELERATOR))
        self.n_read = self.n_tied = 0
        self.pads = True
        self.precision = Precision()

    # --- what every engine implements ------------------------------------------------------------

    @abstractmethod
    def prepare(self, n_positions: int) -> None:
        """Check that this engine gives right numbers for prompts of up to `n_positions` tokens.

        Raises:
            InputError: where the model cannot read so many tokens, or is in training mode.
            ModelError: where the engine does not fit the model, or not even one prompt fits into
                memory.
        """

    @abstractmethod
    def branch_residuals(
        self, groups: Sequence[Sequence[Tokens]], tick: Tick = silent
    ) -> Float[Tensor, "group branch layer d_model"]:
        """Residual stream at the last token after every block, for groups of equal size."""

    @abstractmethod
    def pass_over(self, prompts: Sequence[Tokens], after_block: AfterBlock | None = None) -> None:
        """Run whole prompts through every block once, in one batch, so that hooks are called.

        Args:
            prompts: token ids.
            after_block: called with (block, residual stream after it), if the engine gives streams.
        """

    @abstractmethod
    def evaluate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        targets: Int[Tensor, "prompt target"],
        tick: Tick = silent,
    ) -> Readout:
        """Read the next token in each branch of each prompt: a `[prompt, branch]` readout."""

    @abstractmethod
    def last_streams(
        self, prompts: Sequence[Tokens], branches: Sequence[Branch], tick: Tick = silent
    ) -> Float[Tensor, "prompt branch d_model"]:
        """The residual stream after the last block, at the last token, in each branch."""

    @abstractmethod
    def generate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        max_new_tokens: int,
        stop: str,
        tick: Tick,
    ) -> list[list[Any]]:
        """Greedy generations (`Generation`), outer list over prompts, inner over branches."""

    @abstractmethod
    def sequence_logprob(
        self,
        prompts: Sequence[Tokens],
        continuations: Int[Tensor, "prompt continuation token"],
        branches: Sequence[Branch],
        tick: Tick,
    ) -> Float[Tensor, "prompt branch continuation"]:
        """Summed log probability of continuations; -1 is padding, and all padding gives NaN."""

    @abstractmethod
    def last_tokens(
        self, prompts: Sequence[Tokens]
    ) -> tuple[Float[Tensor, "prompt d_model"], Int[Tensor, "prompt"]]:
        """Run prompts so that gradients can flow back from their last tokens.

        Returns:
            The residual stream after the last block at every prompt's last token, and the index of
            that token in the activations that hooks are given during this run.
        """

    # --- what all engines share ------------------------------------------------------------------

    @property
    def windows(self) -> list[int | None] | None:
        """How many tokens back each block sees; None if the engine does not read the masks."""
        return None

    @torch.no_grad()
    @in_its_precision
    def observe(
        self,
        prompts: Sequence[Tokens],
        picks: Sequence[tuple[str, Pick]],
        branch: Branch | None = None,
    ) -> tuple[Float[Tensor, "prompt layer *shape"], ...]:
        """Run prompts once and keep, at every block, only the picked part of each activation.

        Args:
            prompts: token ids.
            picks: pairs of a hook's name, with a `{}` for the block (`"blocks.{}.attn.hook_z"`),
                and a function that returns what to keep. The function takes the activation
                `[prompt, ...]` and the indices of its prompts; the first axis of its result is
                again the prompts.
            branch: edits that are in place meanwhile, without knockouts.

        Raises:
            InputError: where there are no prompts, or a block has no such hook.
        """
        if not prompts:
            raise InputError("no prompts; expected at least one")
        given = HOOKS["resid_post"] if self.gives_streams else None
        refuse_no_hooks(self.bridge, [name for name, _ in picks if name != given])
        self.prepare(max(map(len, prompts)))

        def run(rows: list[int]) -> tuple[Tensor, ...]:
            writes = [] if branch is None else list(branch.writes(rows, range(len(rows))))
            kept = [(name, _Kept(pick, rows, self.n_layers, self.device)) for name, pick in picks]

            def after_block(layer: int, stream: Tensor) -> None:
                for name, one in kept:
                    if name == given:
                        one.take(layer, stream)

            hooks = [
                (name.format(layer), one.hook(layer))
                for name, one in kept
                if name != given
                for layer in range(self.n_layers)
            ]
            # Looking up hook points takes longer than running a small block.
            hooked = self.bridge.hooks(fwd_hooks=hooks) if hooks else nullcontext()
            with writing(self.bridge, writes), hooked:
                self.pass_over([prompts[r] for r in rows], after_block)
            return tuple(one.activations for _, one in kept)

        return self.in_batches([len(t) for t in prompts], run, join_each)

    def token_activations(
        self, prompts: Sequence[Tokens], positions: Sequence[Sequence[int]], hook: str
    ) -> Float[Tensor, "prompt layer position *shape"]:
        """One hook's activation at chosen tokens of every prompt, at every block."""
        return self.observe(prompts, [(hook, self.at_tokens(positions))])[0]

    def at_tokens(self, positions: Sequence[Sequence[int]]) -> Pick:
        """A pick for `observe` that keeps these tokens of each prompt (equally many for each)."""

        def pick(activation: Tensor, rows: list[int]) -> Tensor:
            asked = [list(positions[r]) for r in rows]
            first = asked[0][0] if asked[0] else -1
            if first >= 0 and all(row == [*range(first, first + len(row))] for row in asked):
                return activation[:, first : first + len(asked[0])]  # a view
            wanted = torch.tensor(asked, device=activation.device)
            return activation[torch.arange(len(rows))[:, None], wanted]

        return pick

    @torch.no_grad()
    @in_its_precision
    def read(
        self,
        resid: Float[Tensor, "row d_model"],
        targets: Int[Tensor, "row target"],
        n_best: int = 0,
        entropy: bool = False,
    ) -> Readout:
        """Apply the final norm and the unembedding to residual vectors, and read the result."""

        def run(rows: list[int]) -> Readout:
            ours = resid[rows].to(self.device, self.dtype)
            return self.readout(ours, targets[rows].to(self.device), n_best, entropy)

        def rows_at_once(n: int) -> int:
            return even(n, ROWS_PER_TOKEN * self.budget.tokens)

        return self.in_batches([1] * len(resid), run, join_readouts, rows_at_once)

    @torch.no_grad()
    @in_its_precision
    def top_of_means(
        self,
        vectors: Float[Tensor, "group row d_model"],
        k: int,
        allowed: Bool[Tensor, "vocab"] | None,
    ) -> tuple[Tensor, ...]:
        """Ids and mean log probabilities `[group, k]`, see `readout.top_of_means`."""

        def run(rows: list[int]) -> tuple[Tensor, ...]:
            ours = vectors[rows].to(self.device, self.dtype)
            passed = None if allowed is None else allowed.to(self.device)
            ids, logprob = top_of_means(self.bridge, ours, k, passed, self.budget.share)
            return ids.to(self.device), logprob.to(self.device)

        return self.in_batches([vectors.shape[1]] * len(vectors), run, join_each)

    @torch.no_grad()
    def distances(
        self, first: Float[Tensor, "row d_model"], second: Float[Tensor, "row other d_model"]
    ) -> tuple[Tensor, ...]:
        """KL divergence and total variation, `[row, other]`, see `distances.distances`."""

        def run(rows: list[int]) -> tuple[Tensor, ...]:
            ours, theirs = (of[rows].to(self.device, self.dtype) for of in (first, second))
            kl, apart = distances(self.bridge, ours, theirs, self.budget.share)
            return kl.to(self.device), apart.to(self.device)

        return self.in_batches([1 + second.shape[1]] * len(first), run, join_each)

    def readout(
        self,
        resid: Float[Tensor, "row d_model"],
        targets: Int[Tensor, "row target"],
        n_best: int = 0,
        entropy: bool = False,
    ) -> Readout:
        """Read rows in one batch (see `readout.read`), and count how many were read and tied."""
        # If a model lies on several devices, tensors over the vocabulary stay on the last one.
        found = read(self.bridge, resid, targets, n_best, self.budget.share, entropy)
        found = found.to(self.device)
        self.n_read += found.tied.numel()
        self.n_tied += int(found.tied.sum())
        return found

    def in_batches(
        self,
        sizes: list[int],
        run: Callable[[list[int]], T],
        join: Callable[[list[T], Int[Tensor, "row"]], T],
        limit: Callable[[int], int] | None = None,
    ) -> T:
        """Run items of similar size together, as many as fit, and return results in item order.

        Args:
            sizes: of the items, in tokens.
            run: computes the result of some items, given their indices.
            join: joins the results of several batches and puts them in an order.
            limit: the size of the next batch, given how many items are left; by default the budget.
        """
        order = sorted(range(len(sizes)), key=sizes.__getitem__)
        parts: list[T] = []
        done = 0
        while done < len(order):
            rest = order[done:]
            most = self.budget.tokens if limit is None else limit(len(rest))
            batch = next(runs([sizes[i] for i in rest], most, equal=not self.pads))
            try:
                parts.append(run(rest[batch]))
            except Exception as error:
                if not self.budget.survives(error):
                    raise
                continue
            done += batch.stop
        return join(parts, torch.tensor(order).argsort())

    def retried(self, run: Callable[[], T]) -> T:
        """The result of `run`, which is called again with half the budget when memory runs out."""
        while True:
            try:
                return run()
            except Exception as error:
                if not self.budget.survives(error):
                    raise

    def tensor(self, values: Any) -> Tensor:
        """Convert whole numbers to a tensor on the model's device."""
        return torch.as_tensor(values, dtype=torch.long, device=self.device)


class _Kept:
    """What is kept of one activation of a batch at every block.

    Attributes:
        activations: `[row, layer, ...]`, once the first block has run.
    """

    def __init__(self, pick: Pick, rows: list[int], n_layers: int, device: torch.device) -> None:
        self._pick, self._rows, self._n_layers, self._device = pick, rows, n_layers, device
        self.activations = torch.empty(0)

    def take(self, layer: int, activation: Tensor) -> None:
        """Keep the picked part of an activation."""
        taken = self._pick(activation, self._rows)
        if not layer:
            size = (len(taken), self._n_layers, *taken.shape[1:])
            self.activations = taken.new_empty(size, device=self._device)
        self.activations[:, layer] = taken  # may come from another device

    def hook(self, layer: int) -> Callable[..., None]:
        """A hook that takes a block's activation."""

        def keep(activation: Tensor, hook: Any) -> None:
            self.take(layer, activation)

        return keep


def padded(sequences: Sequence[Tokens]) -> list[list[int]]:
    """Pad sequences to one length by repeating their last token, which no real token attends to.

    >>> padded([[5, 6, 7], [8]])
    [[5, 6, 7], [8, 8, 8]]
    """
    longest = max(map(len, sequences))
    return [[*tokens, *[tokens[-1]] * (longest - len(tokens))] for tokens in sequences]


def join(parts: list[Tensor], order: Int[Tensor, "row"]) -> Tensor:
    """Join batches of rows, and put the rows in an order."""
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    in_order = bool((order == torch.arange(len(order))).all())
    return whole if in_order else whole[order]


def join_each(parts: list[tuple[Tensor, ...]], order: Int[Tensor, "row"]) -> tuple[Tensor, ...]:
    """As `join`, for batches of several tensors."""
    return tuple(join(list(part), order) for part in zip(*parts, strict=True))


def join_readouts(parts: list[Readout], order: Int[Tensor, "row"]) -> Readout:
    """As `join`, for readouts."""
    return Readout.cat(parts).take(order)


def join_lists(parts: list[list[T]], order: Int[Tensor, "row"]) -> list[T]:
    """As `join`, for lists."""
    rows = [row for part in parts for row in part]
    return [rows[i] for i in order.tolist()]
