"""What every engine does: run prompts through a model, with edits or without.

Two engines do it. `SharedEngine` runs what prompts and edits share once, and of each edit only the
tokens and blocks that it can change; it needs a model whose blocks it can replay. `PlainEngine`
runs one full forward pass per prompt and edit, in batches: slower, and exact for any causal model.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.batching import Budget, even, runs
from icl_mech.model.branches import Branch
from icl_mech.model.distances import distances
from icl_mech.model.network import device_of, module_of, refuse_no_hooks
from icl_mech.model.precision import Precision, in_full_precision, in_its_precision
from icl_mech.model.readout import Readout, read, top_of_means
from icl_mech.model.writing import writing
from icl_mech.progress import Tick, silent

Tokens = Sequence[int]
Pick = Callable[[Tensor, list[int]], Tensor]
T = TypeVar("T")

#: The number of tokens that run through a block at once: on a CPU enough for full speed and few
#: enough for its cache, on other devices enough to keep them busy.
BUDGET = {"cpu": 512}
BUDGET_ACCELERATOR = 8192
#: Rows that are read at once, for every token of the budget: the more rows share a product with the
#: unembedding, the faster it is.
ROWS_PER_TOKEN = 4


class Engine(ABC):
    """Runs token sequences through a model.

    Attributes:
        name: `"shared"` or `"plain"`.
        bridge: the TransformerLens model.
        n_layers, device, dtype: of the model.
        budget: how many tokens run at once.
        n_read, n_tied: how often a top token was read, and how often it was not the only one.
        pads: whether sequences of several lengths share a batch.
        precision: of products of float32 matrices in all that it runs; the check of an engine
            (`prepare`) runs in full precision.
    """

    name: ClassVar[str]
    _RUN: ClassVar = (
        "branch_residuals",
        "pass_over",
        "evaluate",
        "generate",
        "sequence_logprob",
        "last_tokens",
    )

    def __init_subclass__(cls) -> None:
        """Let an engine's methods multiply in its precision."""
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

    # --- what an engine has to offer -------------------------------------------------------------

    @abstractmethod
    def prepare(self, n_positions: int) -> None:
        """Check, before prompts of `n_positions` tokens run, that this engine gives right numbers.

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
    def pass_over(self, prompts: Sequence[Tokens]) -> None:
        """Run whole prompts through every block once, in one batch, for the hooks to see."""

    @abstractmethod
    def evaluate(
        self,
        prompts: Sequence[Tokens],
        branches: Sequence[Branch],
        targets: Int[Tensor, "prompt target"],
        tick: Tick = silent,
    ) -> Readout:
        """Read the answer in each branch of each prompt: a `[prompt, branch]` readout."""

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
        """Summed log probability of continuations, padded with -1; NaN where all is padding."""

    @abstractmethod
    def last_tokens(
        self, prompts: Sequence[Tokens]
    ) -> tuple[Float[Tensor, "prompt d_model"], Int[Tensor, "prompt"]]:
        """Run prompts so that gradients can flow back from their last tokens.

        Returns:
            The residual stream after the last block at every prompt's last token, and the index of
            that token in the activations that hooks saw on the way.
        """

    # --- what all engines share ------------------------------------------------------------------

    @property
    def windows(self) -> list[int | None] | None:
        """How many tokens back each block was seen to look; None where nobody read its masks."""
        return None

    @torch.no_grad()
    @in_its_precision
    def observe(
        self,
        prompts: Sequence[Tokens],
        picks: Sequence[tuple[str, Pick]],
        branch: Branch | None = None,
    ) -> tuple[Float[Tensor, "prompt layer *shape"], ...]:
        """Run prompts once and keep, at every block, only what each pick takes from its hook.

        Args:
            prompts: token ids.
            picks: a hook's name with a `{}` for the block, as in `"blocks.{}.attn.hook_z"`, and
                what to keep of its activation: a function of the activation `[prompt, ...]` and
                the indices of the prompts in it, whose result begins with those prompts.
            branch: edits that are in place meanwhile, without knockouts.

        Raises:
            InputError: where there are no prompts, or a block has no such hook.
        """
        if not prompts:
            raise InputError("no prompts; expected at least one")
        refuse_no_hooks(self.bridge, [name for name, _ in picks])
        self.prepare(max(map(len, prompts)))

        def run(rows: list[int]) -> tuple[Tensor, ...]:
            writes = [] if branch is None else list(branch.writes(rows, range(len(rows))))
            with writing(self.bridge, writes), self.keeping(picks, rows) as kept:
                self.pass_over([prompts[r] for r in rows])
            return tuple(kept[i] for i in range(len(picks)))

        return self.in_batches([len(t) for t in prompts], run, join_each)

    def token_activations(
        self, prompts: Sequence[Tokens], positions: Sequence[Sequence[int]], hook: str
    ) -> Float[Tensor, "prompt layer position *shape"]:
        """One hook's activation at chosen tokens of every prompt, at every block."""
        return self.observe(prompts, [(hook, self.at_tokens(positions))])[0]

    def at_tokens(self, positions: Sequence[Sequence[int]]) -> Pick:
        """For `observe`: keep these tokens of each prompt (the same number for each)."""

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
        """Final norm, unembedding and readout of residual vectors."""

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
        """Read rows in one batch, see `readout.read`, and count how many were read and tied."""
        # A model may lie on several devices: what has the vocabulary's size stays on the last one.
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
        """Run items of similar size together, as many as fit, and put them back in order.

        Args:
            sizes: of the items, in tokens.
            run: makes the result of some items.
            join: puts results of several batches together, in an order.
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

    @contextmanager
    def keeping(
        self, picks: Sequence[tuple[str, Pick]], rows: list[int]
    ) -> Iterator[dict[int, Tensor]]:
        """Hooks that keep what each pick takes, `[row, layer, ...]`, of the batch `rows`."""
        kept: dict[int, Tensor] = {}

        def keeper(index: int, pick: Pick, layer: int) -> Callable[..., None]:
            def keep(activation: Tensor, hook: Any) -> None:
                taken = pick(activation, rows)
                if index not in kept:
                    size = (len(taken), self.n_layers, *taken.shape[1:])
                    kept[index] = taken.new_empty(size, device=self.device)
                kept[index][:, layer] = taken  # of any device: a model may lie on several

            return keep

        hooks = [
            (name.format(layer), keeper(index, pick, layer))
            for index, (name, pick) in enumerate(picks)
            for layer in range(self.n_layers)
        ]
        with self.bridge.hooks(fwd_hooks=hooks):
            yield kept

    def retried(self, run: Callable[[], T]) -> T:
        """The result of `run`, tried again with half the budget whenever memory runs out."""
        while True:
            try:
                return run()
            except Exception as error:
                if not self.budget.survives(error):
                    raise

    def tensor(self, values: Any) -> Tensor:
        """Whole numbers as a tensor on the model's device."""
        return torch.as_tensor(values, dtype=torch.long, device=self.device)


def padded(sequences: Sequence[Tokens]) -> list[list[int]]:
    """Sequences of one length: the shorter repeat their last token, which no real token sees.

    >>> padded([[5, 6, 7], [8]])
    [[5, 6, 7], [8, 8, 8]]
    """
    longest = max(map(len, sequences))
    return [[*tokens, *[tokens[-1]] * (longest - len(tokens))] for tokens in sequences]


def join(parts: list[Tensor], order: Int[Tensor, "row"]) -> Tensor:
    """Batches of rows, put into one order."""
    whole = parts[0] if len(parts) == 1 else torch.cat(parts)
    in_order = bool((order == torch.arange(len(order))).all())
    return whole if in_order else whole[order]


def join_each(parts: list[tuple[Tensor, ...]], order: Int[Tensor, "row"]) -> tuple[Tensor, ...]:
    """The same for several tensors a batch."""
    return tuple(join(list(part), order) for part in zip(*parts, strict=True))


def join_readouts(parts: list[Readout], order: Int[Tensor, "row"]) -> Readout:
    """The same for readouts."""
    return Readout.cat(parts).take(order)


def join_lists(parts: list[list[T]], order: Int[Tensor, "row"]) -> list[T]:
    """The same for lists."""
    rows = [row for part in parts for row in part]
    return [rows[i] for i in order.tolist()]
