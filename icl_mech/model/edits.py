"""An edit is data: what to write, where, on which token."""

from dataclasses import dataclass
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError, choose

Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z"]
Mode = Literal["replace", "add"]

SITES: tuple[str, ...] = get_args(Site)


@dataclass(frozen=True)
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
    position: str | int = -1
    mode: Mode = "replace"
    scale: float = 1.0
    head: int | None = None

    def __post_init__(self) -> None:
        choose(self.site, SITES, "site")
        choose(self.mode, get_args(Mode), "mode")
        if (self.head is not None) != (self.site == "z"):
            raise InputError(f"`head` belongs to site 'z': got {self.site!r} with head={self.head}")
