"""`Edit`: what is written into an activation, at which site and token."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import index
from typing import SupportsIndex, get_args

from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError, choose
from icl_mech.layers import SITES, Mode, Site, check_layer

#: The name of a role, or a token's index: of any type of whole number, such as numpy's.
Role = str | SupportsIndex

#: The order in which the stream passes them inside a block.
ORDER = ("resid_pre", "z", "attn_out", "resid_mid", "mlp_out", "resid_post")
#: TransformerLens's name of every site's hook, with a `{}` for the block.
HOOKS = {site: f"blocks.{{}}.hook_{site}" for site in SITES} | {"z": "blocks.{}.attn.hook_z"}


@dataclass(frozen=True, repr=False)
class Edit:
    """One change to one token of every prompt of a batch.

    Attributes:
        layer: block `l`, 0-based; negative layers count from the last block.
        value: what is written: one vector for all prompts or one per prompt. Its length is
            `d_model`, or `d_head` at `"z"`.
        site: where in the block: the residual stream before it (`resid_pre`), between attention
            and MLP (`resid_mid`), or after it (`resid_post`); what attention or the MLP adds to
            the stream (`attn_out`, `mlp_out`: after the post-norm where a model has one); or one
            head's output before W_O (`z`, TransformerLens's `hook_z`).
        position: the token: a role such as `"final_arrow"` (its last token), or an index into
            the prompt's tokens, where -1 is the last.
        mode: `"replace"` overwrites the activation, `"add"` adds to it.
        scale: factor on `value`.
        head: which head, at `"z"` only.
    """

    layer: int
    value: Float[Tensor, "d"] | Float[Tensor, "prompt d"]
    site: Site = "resid_post"
    position: Role = -1
    mode: Mode = "replace"
    scale: float = 1.0
    head: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.value, Tensor) or self.value.ndim not in (1, 2):
            shape = f"of the shape {list(self.value.shape)}" if hasattr(self.value, "shape") else ""
            raise InputError(
                f"value is a {type(self.value).__name__} {shape}".rstrip()
                + "; expected a torch tensor [d], or [prompt, d] for one per prompt"
            )
        choose(self.site, SITES, "site")
        choose(self.mode, get_args(Mode), "mode")
        object.__setattr__(self, "position", as_role(self.position))
        if (self.head is not None) != (self.site == "z"):
            raise InputError(f"`head` belongs to site 'z': got {self.site!r} with head={self.head}")

    def __repr__(self) -> str:
        head = "" if self.head is None else f" of head {self.head}"
        scale = "" if self.scale == 1 else f", scale {self.scale:g}"
        shape = "one vector" if self.value.ndim == 1 else f"{len(self.value)} vectors"
        return (
            f"Edit({self.site}{head}, block {self.layer}, token {self.position!r}, {self.mode}, "
            f"{shape} of width {self.value.shape[-1]}{scale})"
        )


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
        """The first block that runs again; `n_layers` where the last block's output is edited."""
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
        InputError: where the layer, head or token does not exist, or a value per prompt does
            not come with as many rows as there are prompts.
    """
    check_layer(edit.layer, n_layers)
    if edit.head is not None and not 0 <= edit.head < n_heads:
        raise InputError(f"head {edit.head} out of range: expected 0 to {n_heads - 1}")
    if edit.value.ndim == 2 and len(edit.value) != len(positions):
        raise InputError(f"{len(edit.value)} values for {len(positions)} prompts")
    for p, n in zip(positions, lengths, strict=True):
        if not 0 <= p < n:
            raise InputError(f"token {p} out of range for a prompt of {n} tokens")
    return PlacedEdit(edit, tuple(positions))
