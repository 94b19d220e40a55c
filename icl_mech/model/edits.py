"""`Edit`: a value that is written into an activation, at a site of a block and at a token."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import index
from typing import Any, Protocol, SupportsIndex, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError, choose
from icl_mech.layers import SITES, Mode, Site, check_layer

#: The name of a role, or a token's index as any type of whole number, such as numpy's.
Role = str | SupportsIndex

#: The order in which the residual stream passes the sites inside a block.
ORDER = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
#: TransformerLens's name for every site's hook, with a `{}` for the block.
HOOKS = {site: f"blocks.{{}}.hook_{site}" for site in SITES} | {"z": "blocks.{}.attn.hook_z"}


@runtime_checkable
class Writable(Protocol):
    """A vector that knows the model it was read from: a `TaskVector`."""

    @property
    def name(self) -> str:
        """The vector's name, for messages."""

    @property
    def mode(self) -> Mode:
        """Whether it is added to an activation or replaces it."""

    @property
    def values(self) -> Float[Tensor, "layer d_model"]:
        """The vector of every layer, not multiplied by its factor."""

    def edit(self, layer: int | None = None, at: Role = -1) -> "Edit":
        """The vector as an edit of one token, by default the last."""

    def edits(self, layer: int | None = None, at: Role = -1) -> "list[Edit]":
        """The vector as edits that are applied together: one for each block where it is written."""

    def check_fits(self, model: Any, allow_other_model: bool = False) -> None:
        """Refuse a model other than the one that the vector was read from."""


@dataclass(frozen=True, repr=False, init=False)
class Edit:
    """One change to one token of every prompt of a batch.

    Attributes:
        layer: the block, from 0; negative layers count from the last block.
        value: the vector to write: one for all prompts, or one per prompt. Its length is
            `d_model`, or `d_head` at `"z"`. A `TaskVector` may be given instead: its vector of
            this layer, times its own factor, is written.
        site: the activation: the residual stream before the block (`resid_pre`), between attention
            and MLP (`resid_mid`), or after the block (`resid_post`); what attention or the MLP adds
            to the stream (`attn_out`, `mlp_out`: after the post-norm where a model has one); or one
            head's output before W_O (`z`, TransformerLens's `hook_z`).
        position: the token: a role such as `"final_arrow"` (its last token), or an index into
            the prompt's tokens, where -1 is the last.
        mode: `"replace"` overwrites the activation, `"add"` adds to it.
        scale: factor on `value`.
        head: the head's index, at `"z"` only.
        vector: the `TaskVector` that `value` comes from. Models other than the one that the vector
            was read from are refused.

    Raises:
        InputError: where the value is of another kind, the site or the mode is unknown, or a task
            vector has no such layer or has another site or mode.

    Example:
        >>> import torch
        >>> tv = icl_mech.TaskVector("t", torch.ones(2, 4), (0, 1), layer=1)
        >>> icl_mech.Edit(0, tv, position="final_arrow")
        Edit(resid_post, block 0, token 'final_arrow', replace, one vector of width 4)
    """

    layer: int
    value: Float[Tensor, "d"] | Float[Tensor, "prompt d"]
    site: Site = "resid_post"
    position: Role = -1
    mode: Mode = "replace"
    scale: float = 1.0
    head: int | None = None
    vector: Writable | None = None

    def __init__(
        self,
        layer: int,
        value: Float[Tensor, "d"] | Float[Tensor, "prompt d"] | Writable,
        site: Site = "resid_post",
        position: Role = -1,
        mode: Mode = "replace",
        scale: float = 1.0,
        head: int | None = None,
        vector: Writable | None = None,
    ) -> None:
        choose(site, SITES, "site")
        choose(mode, get_args(Mode), "mode")
        if isinstance(value, Writable):
            vector = value
            value = _value_of(vector, layer, site, mode)
        if (head is not None) != (site == "z"):
            raise InputError(f"`head` belongs to site 'z': got {site!r} with head={head}")
        found = {
            "layer": layer,
            "value": _check_value(value),
            "site": site,
            "position": as_role(position),
            "mode": mode,
            "scale": scale,
            "head": head,
            "vector": vector,
        }
        for name, given in found.items():
            object.__setattr__(self, name, given)

    def of_prompts(self, rows: Sequence[int]) -> "Edit":
        """The same edit for some of the prompts, given their indices."""
        return self if self.value.ndim == 1 else replace(self, value=self.value[list(rows)])

    def __repr__(self) -> str:
        head = "" if self.head is None else f" of head {self.head}"
        scale = "" if self.scale == 1 else f", scale {self.scale:g}"
        shape = "one vector" if self.value.ndim == 1 else f"{len(self.value)} vectors"
        return (
            f"Edit({self.site}{head}, block {self.layer}, token {self.position!r}, {self.mode}, "
            f"{shape} of width {self.value.shape[-1]}{scale})"
        )


def _value_of(vector: Writable, layer: int, site: Site, mode: Mode) -> Tensor:
    """The values of a task vector at a layer, times its factor.

    Raises:
        InputError: where its site or mode is another, or it has no such layer.
    """
    edit = vector.edit(layer)
    if edit.site != site:
        raise InputError(
            f"vector {vector.name!r} is written at {edit.site!r}, and the edit says {site!r}; "
            f"expected one of them: Edit(..., site={edit.site!r})"
        )
    if vector.mode != mode:
        raise InputError(
            f"vector {vector.name!r} is written by mode {vector.mode!r}, and the edit says "
            f"{mode!r}; expected one of them: Edit(..., mode={vector.mode!r})"
        )
    return edit.value * edit.scale


def _check_value(value: Any) -> Tensor:
    """Check the value of an edit.

    Raises:
        InputError: where it is neither one vector nor one vector per prompt.
    """
    if not isinstance(value, Tensor) or value.ndim not in (1, 2):
        shape = f"of the shape {list(value.shape)}" if hasattr(value, "shape") else ""
        raise InputError(
            f"value is a {type(value).__name__} {shape}".rstrip()
            + "; expected a TaskVector, a torch tensor [d], or [prompt, d] for one per prompt"
        )
    return value


def as_role(role: Role) -> str | int:
    """Return a role's name unchanged, and a token's index as `int`.

    >>> as_role("final_arrow"), as_role(-1)
    ('final_arrow', -1)

    Raises:
        InputError: where it is neither.
    """
    try:
        return role if isinstance(role, str) else index(role)
    except TypeError:
        raise InputError(f"no token {role!r}; expected a role or a whole number") from None


@dataclass(frozen=True)
class PlacedEdit:
    """An edit with the index of its token in every prompt."""

    edit: Edit
    positions: tuple[int, ...]

    def entry(self, n_layers: int) -> int:
        """The first block that must run again; `n_layers` if the last block's output is edited."""
        return self.edit.layer % n_layers + (self.edit.site == "resid_post")

    def written(
        self, rows: Tensor, clean: Float[Tensor, "prompt *shape"]
    ) -> Float[Tensor, "prompt *shape"]:
        """The activation after the edit, at the edited token of the prompts `rows`."""
        value = self.edit.value.to(clean) * self.edit.scale
        value = value[rows] if value.ndim == 2 else value.expand_as(clean)
        return value if self.edit.mode == "replace" else clean + value


def place(
    edit: Edit, positions: Sequence[int], lengths: Sequence[int], n_layers: int, n_heads: int
) -> PlacedEdit:
    """Check an edit against the model and the prompts.

    >>> import torch
    >>> edit = Edit(-1, torch.zeros(8))
    >>> place(edit, positions=[4, 6], lengths=[5, 7], n_layers=12, n_heads=4).positions
    (4, 6)

    Raises:
        InputError: where the layer, head or token does not exist, the number of vectors is not
            that of the prompts, or the value or scale is not finite.
    """
    check_layer(edit.layer, n_layers)
    if edit.head is not None and not 0 <= edit.head < n_heads:
        raise InputError(f"head {edit.head} out of range: expected 0 to {n_heads - 1}")
    if edit.value.ndim == 2 and len(edit.value) != len(positions):
        raise InputError(f"{len(edit.value)} values for {len(positions)} prompts")
    for p, n in zip(positions, lengths, strict=True):
        if not 0 <= p < n:
            raise InputError(f"token {p} out of range for a prompt of {n} tokens")
    if not (math.isfinite(edit.scale) and bool(torch.isfinite(edit.value).all())):
        raise InputError(
            f"{edit} writes NaN or infinity; expected finite numbers. If they were read from this "
            "model, check its weights, or try dtype='float32'"
        )
    return PlacedEdit(edit, tuple(positions))
