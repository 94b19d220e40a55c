"""Reads the final residual stream: top tokens, log probability and rank of answers.

TransformerLens's `logit_readout` reads either targets (one per row, or the same for all rows) or
the top tokens. It needs whole rows of logits, and always computes their entropy. Here one pass over
the vocabulary, chunk by chunk (see `chunked_logits`), gives all of these.

Several tokens may have exactly the same probability: often in half precision, and always in a model
whose weights are zero. Ties are broken as in greedy decoding: the token with the smallest id comes
first. So no two tokens have the same rank, and only the top token has rank 0. `tied` tells where
this rule decided which token is the top one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model.arguments import token_rows
from icl_mech.model.chunked_logits import Best, ChunkedLogits, Peaks, Top, refuse_not_finite

#: Differences from the largest logit are clamped to this: e^-80 is negligible beside 1, and a CPU
#: takes thirty times as long for the subnormal numbers below e^-87.
_LEAST = -80.0


@dataclass(frozen=True, repr=False)
class Readout:
    """The next-token prediction at one position, for any batch shape `...`.

    Attributes:
        top: id of the most probable next token; of equal ones the smallest id.
        logprob: log probability (nats) of each target token; NaN where a target is padding (-1).
        rank: how many tokens come before the target: those that are more probable, and those that
            are equally probable and have smaller ids; -1 where a target is padding.
        hit: whether `top` is one of the targets, which then has rank 0.
        tied: whether another token is exactly as probable as `top`.
        best, best_logprob: the k most probable tokens, beginning with `top`, and their log
            probabilities (nats); None if they were not requested.
        entropy: of the whole distribution (nats); None if it was not requested.
    """

    top: Int[Tensor, "..."]
    logprob: Float[Tensor, "... target"]
    rank: Int[Tensor, "... target"]
    hit: Bool[Tensor, "..."]
    tied: Bool[Tensor, "..."]
    best: Int[Tensor, "... k"] | None = None
    best_logprob: Float[Tensor, "... k"] | None = None
    entropy: Float[Tensor, "..."] | None = None

    def __repr__(self) -> str:
        cells = " x ".join(map(str, self.top.shape)) or "1"
        best = "" if self.best is None else f", the {self.best.shape[-1]} best tokens"
        return f"Readout({cells} cells, {self.logprob.shape[-1]} targets each{best})"

    def to_frame(self, tokenizer: Any = None) -> pd.DataFrame:
        """A table with a row per cell and target.

        Args:
            tokenizer: `model.tokenizer`; if given, the most probable token is added as text.
                Escape the texts in HTML.

        Returns:
            Columns `cell_0`, `cell_1`, ... (the batch axes), `target`, `logprob` (nats), `rank`,
            `top`, `tied`, and `top_text` with a tokenizer.

        Example:
            >>> readout = model.predict([model.prompt("Japan->")], [[5]])
            >>> list(readout.to_frame(model.tokenizer).columns)
            ['cell_0', 'target', 'logprob', 'rank', 'top', 'tied', 'top_text']
        """
        logprob = as_array(self.logprob)
        at = np.indices(logprob.shape).reshape(logprob.ndim, -1)
        found = {f"cell_{i}": axis for i, axis in enumerate(at[:-1])}
        cell = tuple(at[:-1])
        top = self.top.cpu().numpy()[cell]
        found |= {
            "target": at[-1],
            "logprob": logprob[tuple(at)],
            "rank": self.rank.cpu().numpy()[tuple(at)],
            "top": top,
            "tied": self.tied.cpu().numpy()[cell],
        }
        if tokenizer is not None:
            found["top_text"] = np.array([str(tokenizer.decode([t])) for t in top.tolist()])
        return pd.DataFrame(found)

    @property
    def right(self) -> Bool[np.ndarray, "..."]:
        """`hit` as a numpy array."""
        right: np.ndarray = self.hit.cpu().numpy()
        return right

    def reshape(self, *shape: int) -> "Readout":
        """The same readout with its batch axis split into `shape`."""
        batch = self.top.ndim
        return self._map(lambda values: values.reshape(*shape, *values.shape[batch:]))

    def take(self, index: Int[Tensor, "taken"], dim: int = 0) -> "Readout":
        """The rows `index` of a batch axis, in that order."""
        index = index.to(self.top.device)
        return self._map(lambda values: values.index_select(dim, index))

    def to(self, device: torch.device) -> "Readout":
        """The same readout on a device."""
        return self._map(lambda values: values.to(device))

    def column(self, i: int) -> "Readout":
        """The readout of one edit, from a `[prompt, edit]` readout."""
        return self._map(lambda values: values[:, i])

    @staticmethod
    def cat(parts: list["Readout"], dim: int = 0) -> "Readout":
        """Join readouts along a batch axis."""
        return parts[0]._map(lambda *values: torch.cat(values, dim), *parts[1:])

    def _map(self, change: Callable[..., Tensor], *others: "Readout") -> "Readout":
        """Apply one function to every field that is not None."""
        changed: dict[str, Any] = {
            name: change(values, *(getattr(other, name) for other in others))
            for name, values in vars(self).items()
            if values is not None
        }
        return Readout(**changed)


def as_array(values: Tensor) -> np.ndarray:
    """A tensor as a numpy array; bfloat16, which numpy lacks, becomes float32.

    >>> as_array(torch.ones(2, dtype=torch.bfloat16))
    array([1., 1.], dtype=float32)
    """
    wide = torch.promote_types(values.dtype, torch.float32)
    array: np.ndarray = values.detach().to("cpu", wide).numpy()
    return array


def read(
    bridge: Any,
    resid: Float[Tensor, "row d_model"],
    targets: Int[Tensor, "row target"],
    n_best: int = 0,
    share: float = 1.0,
    entropy: bool = False,
) -> Readout:
    """Apply the final norm and the unembedding to residual vectors, chunk by chunk.

    Args:
        bridge: the TransformerLens model, see `network.Unembedding`.
        resid: the residual stream after the last block, one row per question.
        targets: token ids to read for each row; -1 where a row has fewer targets.
        n_best: how many of the most probable tokens to keep.
        share: factor on the usual size of a chunk; below 1 where memory is short.
        entropy: whether to compute each row's entropy.

    Raises:
        NotFiniteError: where the model's logits are NaN or infinite.
    """
    logits = ChunkedLogits(bridge, resid, share)
    targets = targets.to(logits.hidden.device)
    known = targets.clamp_min(0)
    wanted = logits.at(known)
    below = torch.nextafter(wanted, torch.full_like(wanted, -torch.inf))
    n_rows, device = len(resid), wanted.device
    top = Top(n_rows, logits.dtype, device)
    mass = _Mass.empty(top.values, entropy)
    rank = torch.zeros_like(known)
    kept = Best(n_rows, n_best, like=top.values) if n_best else None
    places = torch.arange(logits.width, device=device)
    above = torch.empty((n_rows, logits.width), dtype=logits.dtype, device=device)
    asked = [t for t in range(targets.shape[1]) if bool((targets[:, t] >= 0).any())]
    for ids, part in logits:
        peaks = Peaks.of(part, ids.start)
        for t in asked:
            # Before the target's chunk, equal logits count too: smaller ids rank first.
            bar = torch.where(known[:, t] >= ids.stop, below[:, t], wanted[:, t])
            rank[:, t] += peaks.n_above(bar, above)
            rows = ((known[:, t] >= ids.start) & (known[:, t] < ids.stop)).nonzero()[:, 0]
            if len(rows):
                own = known[rows, t, None] - ids.start
                tie = (part[rows] == wanted[rows, t, None]) & (places[: part.shape[1]] < own)
                # The target may be above its own bar by rounding; it must not count itself.
                itself = part[rows].gather(1, own)[:, 0] > bar[rows]
                rank[rows, t] += tie.sum(dim=1) - itself.long()
        before = top.values
        top.see(peaks)
        if kept is not None:
            kept.see(peaks)
        mass.see(part, before, top.values, above)
    total = (mass.total.log() + top.values)[:, None]
    logprob = wanted - total
    refuse_not_finite(mass.total, logprob)
    if kept is not None:
        kept.lead(top.tokens)
    # A target's logit may be rounded differently in `at` and in a chunk: trust the chunks.
    on_top = known == top.tokens[:, None]
    rank = rank.clamp_min(1).masked_fill(on_top, 0)
    padding = targets < 0
    return Readout(
        top.tokens,
        logprob.masked_fill(padding, torch.nan),
        rank.masked_fill(padding, -1),
        (targets == top.tokens[:, None]).any(dim=1),
        top.tied,
        None if kept is None else kept.ids,
        None if kept is None else kept.values - total,
        mass.entropy(),
    )


@dataclass
class _Mass:
    """Sums over the vocabulary, relative to each row's largest logit so far.

    Attributes:
        total: the sum of exp(logit - largest).
        weighted: the sum of exp(logit - largest) (logit - largest); None if no entropy is needed.
    """

    total: Float[Tensor, "row"]
    weighted: Float[Tensor, "row"] | None

    @staticmethod
    def empty(like: Float[Tensor, "row"], entropy: bool) -> "_Mass":
        """The sums before the first chunk."""
        return _Mass(torch.zeros_like(like), torch.zeros_like(like) if entropy else None)

    def see(
        self,
        part: Float[Tensor, "row chunk"],
        best: Float[Tensor, "row"],
        new_best: Float[Tensor, "row"],
        scratch: Float[Tensor, "row width"],
    ) -> None:
        """Add a chunk, whose logits are overwritten; `best` was each row's largest logit before."""
        # All logits of a row may be -inf so far.
        lowest = torch.finfo(part.dtype).min
        best, new_best = best.clamp_min(lowest), new_best.clamp_min(lowest)
        shift = (best - new_best).clamp_min_(_LEAST)
        below = part.sub_(new_best[:, None]).clamp_min_(_LEAST)
        if self.weighted is None:
            each = below.exp_()
        else:
            each = torch.exp(below, out=scratch[:, : part.shape[1]])
            moved = (self.weighted + self.total * shift) * shift.exp()
            self.weighted = moved + below.mul_(each).sum(dim=1)
        self.total = self.total * shift.exp() + each.sum(dim=1)

    def entropy(self) -> Float[Tensor, "row"] | None:
        """The entropy of each row's distribution (nats); None if it is not needed."""
        if self.weighted is None:
            return None
        return (self.total.log() - self.weighted / self.total).clamp_min(0)


def top_of_means(
    bridge: Any,
    vectors: Float[Tensor, "group row d_model"],
    k: int,
    allowed: Bool[Tensor, "vocab"] | None,
    share: float = 1.0,
) -> tuple[Int[Tensor, "group k"], Float[Tensor, "group k"]]:
    """The tokens with the largest log probability, averaged over the rows of each group.

    Args:
        bridge: as in `read`.
        vectors: read as if they stood after the last block.
        k: how many tokens.
        allowed: tokens that may be among them; all by default.
        share: as in `read`.

    Returns:
        The tokens' ids and mean log probabilities (nats), the most probable first.
    """
    n_groups, n_rows, _ = vectors.shape
    logits = ChunkedLogits(bridge, vectors.flatten(0, 1), share)
    device = logits.hidden.device
    total = torch.full((n_groups * n_rows,), -torch.inf, dtype=logits.dtype, device=device)
    kept = Best(n_groups, k, like=total)
    for ids, part in logits:
        total = torch.logaddexp(total, part.logsumexp(dim=1))
        means = rearrange(part, "(group row) ids -> group row ids", row=n_rows).mean(dim=1)
        if allowed is not None:
            means = means.masked_fill(~allowed[ids].to(device), -torch.inf)
        kept.see(Peaks.of(means, ids.start))
    refuse_not_finite(total)
    # A mean of log probabilities is the mean logit minus the mean of the rows' normalisers.
    return kept.ids, kept.values - total.view(n_groups, n_rows).mean(dim=1)[:, None]


def pad_targets(
    answers: Sequence[Sequence[int]], n_rows: int, d_vocab: int
) -> Int[Tensor, "row target"]:
    """Rows of token ids, filled up with -1.

    >>> pad_targets([[5], [7, 9]], n_rows=2, d_vocab=10)
    tensor([[ 5, -1],
            [ 7,  9]])

    Args:
        answers: a row of token ids (or -1) for each prompt or vector.
        n_rows: the number of prompts or vectors.
        d_vocab: size of the vocabulary.

    Raises:
        InputError: where the number of rows is wrong, one is empty, or a token does not exist.
    """
    answers = token_rows(answers)
    if len(answers) != n_rows or not n_rows:
        raise InputError(
            f"{len(answers)} rows of answers for {n_rows} prompts; expected one for each, and at "
            "least one"
        )
    if not all(len(row) for row in answers):
        raise InputError("a prompt without an answer token; expected at least one")
    wrong = [token for row in answers for token in row if not -1 <= token < d_vocab]
    if wrong:
        raise InputError(f"answer token {wrong[0]}; expected 0 to {d_vocab - 1}, the vocabulary")
    return pad_rows(answers)


def pad_rows(rows: Sequence[Sequence[int]]) -> Int[Tensor, "row target"]:
    """Rows of token ids, filled up with -1.

    >>> pad_rows([[5], [7, 9]])
    tensor([[ 5, -1],
            [ 7,  9]])
    """
    width = max(map(len, rows))
    return torch.tensor([[*row, *[-1] * (width - len(row))] for row in rows])
