"""`Knockout`: chosen tokens no longer attend to chosen earlier ones. Engines hide these here.

A knockout changes nothing before its first query token and nothing below its first block. So it is
part of a branch like an edit, and may be combined with edits.
"""

import inspect
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, SupportsIndex

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from icl_mech.errors import InputError, ModelError, shown
from icl_mech.layers import check_layers
from icl_mech.model.edits import Role, as_role
from icl_mech.model.network import is_bridge
from icl_mech.prompts import Prompt


@dataclass(frozen=True)
class Knockout:
    """A cut of attention: in some blocks, some tokens do not attend to some earlier ones.

    The remaining attention weights are those of a softmax without the hidden tokens, as with a
    causal mask (attention knockout: Geva et al. 2023, section 4). Tokens that are generated after
    the prompt see all tokens.

    Attributes:
        layers: one block or several, from 0; negative ones count from the last.
            `range(9, model.n_layers)` means all from block 9 on.
        hidden: the tokens that are not attended to, as roles or token indices. A role means all its
            tokens, and a `*` in it stands for any text: `"demo_*_y"` means all labels.
        at: the tokens that do not attend to the hidden ones, by default the last.
        heads: the heads whose attention is cut; None for all.

    Raises:
        InputError: where no layers, tokens or heads are given, or one of them is of another kind.

    Example:
        >>> prompt = model.prompt("Japan->Tokyo\\nPeru->Lima\\nFrance->")
        >>> cut = icl_mech.Knockout(range(6, model.n_layers), "demo_*_y")
        >>> found = model.evaluate([prompt], [None, cut], [[5]])
        >>> bool(found.logprob[0, 0, 0] != found.logprob[0, 1, 0])
        True
    """

    layers: Sequence[int] | int
    hidden: Sequence[Role] | Role
    at: Sequence[Role] | Role = (-1,)
    heads: Sequence[int] | None = None

    def __post_init__(self) -> None:
        found: dict[str, Any] = {"layers": _several("layers", self.layers)}
        for name in ("hidden", "at"):
            found[name] = tuple(map(as_role, _several(name, getattr(self, name))))
        if self.heads is not None:
            found["heads"] = _several("heads", self.heads)
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def of_prompts(self, rows: Sequence[int]) -> "Knockout":
        """The same knockout, because its tokens are looked up in every prompt."""
        return self


def _several(name: str, given: Any) -> tuple[Any, ...]:
    """Convert one item or several to a tuple."""
    if isinstance(given, str | SupportsIndex):
        return (given,)
    try:
        found = tuple(given)
    except TypeError:
        raise InputError(f"{name} is {shown(given)}; expected several, in a list") from None
    if not found:
        raise InputError(f"{name} is empty; expected at least one")
    return found


@dataclass(frozen=True)
class PlacedKnockout:
    """A knockout with the indices of its tokens in every prompt.

    Attributes:
        layers: blocks, from 0.
        heads: None for all.
        queries, keys: tokens of every prompt; those of `queries` do not attend to `keys`.
        positions: the first query token of every prompt.
    """

    layers: frozenset[int]
    heads: tuple[int, ...] | None
    queries: tuple[tuple[int, ...], ...]
    keys: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "positions", tuple(map(min, self.queries)))

    def entry(self, n_layers: int) -> int:
        """The first block that must run again."""
        return min(self.layers)


def place_knockout(
    knockout: Knockout, prompts: Sequence[Prompt], n_layers: int, n_heads: int
) -> PlacedKnockout:
    """Check a knockout against the model and the prompts.

    Raises:
        InputError: where a layer, head or token does not exist, a token would be hidden from
            itself, or all hidden tokens come after those that they are hidden from.
    """
    layers = check_layers(_several("layers", knockout.layers), n_layers)
    for head in knockout.heads or ():
        if not isinstance(head, int) or not 0 <= head < n_heads:
            raise InputError(f"head {shown(head)} out of range: expected 0 to {n_heads - 1}")
    queries = [_tokens(prompt, _several("at", knockout.at)) for prompt in prompts]
    keys = [_tokens(prompt, _several("hidden", knockout.hidden)) for prompt in prompts]
    for asking, hidden in zip(queries, keys, strict=True):
        both = sorted(set(asking) & set(hidden))
        if both:
            raise InputError(
                f"token {both[0]} would not see itself: it is hidden, and among those that it is "
                f"hidden from (hidden={knockout.hidden}, at={knockout.at}); a token must see "
                "itself: expected other tokens in one of the two"
            )
        if min(hidden) > max(asking):
            raise InputError(
                f"the hidden tokens come after all that they are hidden from "
                f"(hidden={knockout.hidden}, at={knockout.at}), and no token sees what comes "
                "after it; expected earlier ones"
            )
    heads = None if knockout.heads is None else tuple(knockout.heads)
    return PlacedKnockout(frozenset(layers), heads, tuple(queries), tuple(keys))


def _tokens(prompt: Prompt, roles: Sequence[Role]) -> tuple[int, ...]:
    """All tokens of some roles, in order."""
    return tuple(sorted({p for role in roles for p in prompt.positions(as_role(role))}))


# --- the shared engine: branches beside a prefix ------------------------------------------------


@dataclass(frozen=True)
class Hidden:
    """The keys that are hidden from each branch of a batch, block by block.

    Attributes:
        cuts: for every knockout: the index of its branch, the knockout, and a mask that is true
            where a key (the prefix's, then the branch's own) is hidden from a token of the branch.
        n_branches: of the batch.
        n_heads: of the model.
    """

    cuts: tuple[tuple[int, PlacedKnockout, Bool[Tensor, "prompt token key"]], ...]
    n_branches: int
    n_heads: int

    @staticmethod
    def of(
        knockouts: Sequence[Sequence[PlacedKnockout]],
        rows: Int[Tensor, "prompt"],
        first: Int[Tensor, "prompt"],
        n_tokens: int,
        n_earlier: int,
        n_heads: int,
    ) -> "Hidden | None":
        """The hidden keys of branches; None if no branch has a knockout.

        Args:
            knockouts: of every branch.
            rows: indices of the batch's prompts among all prompts.
            first: position of the first token of each prompt's branches.
            n_tokens: tokens of a branch.
            n_earlier: the number of the prefix's keys; a key's index is its position.
            n_heads: of the model.
        """
        cuts = []
        for branch, placed in enumerate(knockouts):
            for one in placed:
                mask = torch.zeros(len(rows), n_tokens, n_earlier + n_tokens, dtype=torch.bool)
                for i, (row, start) in enumerate(zip(rows.tolist(), first.tolist(), strict=True)):
                    asking = torch.tensor(one.queries[row]) - start
                    keys = torch.tensor(
                        [k if k < start else n_earlier + k - start for k in one.keys[row]]
                    )
                    mask[i, asking[:, None], keys] = True
                cuts.append((branch, one, mask.to(rows.device)))
        return Hidden(tuple(cuts), len(knockouts), n_heads) if cuts else None

    def active(self, layer: int) -> tuple[int, ...]:
        """The indices of the cuts that act in a block."""
        return tuple(i for i, (_, cut, _) in enumerate(self.cuts) if layer in cut.layers)

    def mask(self, active: Sequence[int]) -> Bool[Tensor, "prompt head branch token key"]:
        """A mask of the keys that some cuts hide; it has one head if they cut all heads alike."""
        chosen = [self.cuts[i] for i in active]
        each = any(cut.heads is not None for _, cut, _ in chosen)
        n_prompts, n_tokens, n_keys = chosen[0][2].shape
        size = (n_prompts, self.n_heads if each else 1, self.n_branches, n_tokens, n_keys)
        out = chosen[0][2].new_zeros(size)
        for branch, cut, mask in chosen:
            heads = range(size[1]) if cut.heads is None else cut.heads
            for head in heads:
                out[:, head, branch] |= mask
        return out


# --- the plain engine: whole prompts --------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A knockout in one row of a batch of whole prompts."""

    row: int
    knockout: PlacedKnockout
    prompt: int

    def hide(self, weights: Tensor, value: float | bool) -> None:
        """Write a value into `[row, head, query, key]` at all hidden keys."""
        queries = torch.tensor(self.knockout.queries[self.prompt], device=weights.device)
        keys = torch.tensor(self.knockout.keys[self.prompt], device=weights.device)
        heads = range(weights.shape[1]) if self.knockout.heads is None else self.knockout.heads
        for head in heads:
            weights[self.row, head, queries[:, None], keys] = value


@contextmanager
def cutting(bridge: Any, cuts: Sequence[Cut]) -> Iterator[None]:
    """Hide keys while whole prompts run, in the mask or the attention scores of each block.

    Raises:
        ModelError: where a block is not given a mask over queries and keys.
    """
    layers = sorted({layer for cut in cuts for layer in cut.knockout.layers})
    with ExitStack() as stack:
        for layer in layers:
            ours = [cut for cut in cuts if layer in cut.knockout.layers]
            if is_bridge(bridge):
                handle = bridge.blocks[layer].register_forward_pre_hook(
                    _masked(bridge, ours), with_kwargs=True
                )
                stack.callback(handle.remove)
            else:
                hooks = [(f"blocks.{layer}.attn.hook_attn_scores", _scored(ours))]
                stack.enter_context(bridge.hooks(fwd_hooks=hooks))
        yield


def _scored(cuts: Sequence[Cut]) -> Any:
    def hide(scores: Tensor, hook: Any) -> Tensor:
        scores = scores.clone()
        for cut in cuts:
            cut.hide(scores, torch.finfo(scores.dtype).min)
        return scores

    return hide


def _masked(bridge: Any, cuts: Sequence[Cut]) -> Any:
    n_heads: int = bridge.cfg.n_heads
    whole = all(cut.knockout.heads is None for cut in cuts)

    def hide(block: Any, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        # Some models pass the mask to their blocks by name, some by position.
        names = list(inspect.signature(block.original_component.forward).parameters)
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        mask = given.get("attention_mask")
        if not isinstance(mask, Tensor) or mask.ndim != 4:
            raise ModelError(
                "its blocks are given no mask of queries and keys, so that attention cannot be "
                "cut; expected eager attention"
            )
        stream = args[0] if args else kwargs["hidden_states"]
        mask = mask.expand(len(stream), mask.shape[1] if whole else n_heads, -1, -1).clone()
        # The first token sees itself, which shows whether true or false hides in a boolean mask.
        hides = not mask[0, 0, 0, 0] if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
        for cut in cuts:
            cut.hide(mask, hides)
        if "attention_mask" in kwargs:
            return args, {**kwargs, "attention_mask": mask}
        at = names.index("attention_mask")
        return (*args[:at], mask, *args[at + 1 :]), kwargs

    return hide
