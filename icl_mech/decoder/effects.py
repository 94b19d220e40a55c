"""The effects of later heads and MLPs on the answer when a vector is written into prompts.

The vector is written over the last token, so only components at that token can read it. *With*
means with the vector in place, *without* means the unedited prompt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.model import AnyEdit, Edit, HookedModel, Mode, Site
from icl_mech.progress import Tick, silent
from icl_mech.prompts import Prompt

#: The sites of the outputs of heads and MLPs.
SITES: tuple[Site, ...] = ("z", "mlp_out")


class Component(NamedTuple):
    """A head, or (with `head` None) the MLP of a block."""

    layer: int
    head: int | None

    @property
    def name(self) -> str:
        """Its name in figures and tables."""
        return f"MLP {self.layer}" if self.head is None else f"L{self.layer}H{self.head}"


@dataclass(frozen=True)
class Outputs:
    """The outputs of heads and MLPs at the last token of every prompt.

    Attributes:
        z: the output of every head, before W_O.
        mlp: the output of every MLP.
        stream: the residual stream after every block.
    """

    z: Float[Tensor, "prompt layer head d_head"]
    mlp: Float[Tensor, "prompt layer d_model"]
    stream: Float[Tensor, "prompt layer d_model"]

    @staticmethod
    def of(model: HookedModel, prompts: Sequence[Prompt], edit: AnyEdit = None) -> "Outputs":
        """The outputs on prompts, with an edit in place if one is given."""
        found = model.capture_sites(prompts, [-1], [*SITES, "resid_post"], edit)
        return Outputs(*(of[:, 0] for of in found))

    def at(self, c: Component) -> Float[Tensor, "prompt d"]:
        """One component's output."""
        return self.mlp[:, c.layer] if c.head is None else self.z[:, c.layer, c.head]

    def write(self, c: Component) -> Edit:
        """The edit that sets a component to its output here."""
        return _at(c, self.at(c))


def _at(c: Component, value: Tensor, mode: Mode = "replace") -> Edit:
    if c.head is None:
        return Edit(c.layer, value, "mlp_out", -1, mode)
    return Edit(c.layer, value, "z", -1, mode, head=c.head)


@dataclass(frozen=True)
class Written:
    """Prompts, and a vector that is written over the residual stream at their last tokens.

    Attributes:
        layer: the block after which it is written.
        vector: one per prompt.
        answers: the first token of each right answer.
    """

    model: HookedModel
    prompts: Sequence[Prompt]
    layer: int
    vector: Float[Tensor, "prompt d_model"]
    answers: Sequence[int]

    @cached_property
    def components(self) -> list[Component]:
        """Heads and MLPs of all later blocks; only these can read the vector."""
        heads: list[int | None] = [*range(self.model.n_heads), None]
        later = range(self.layer + 1, self.model.n_layers)
        return [Component(layer, head) for layer in later for head in heads]

    @cached_property
    def edit(self) -> Edit:
        """The edit that writes the vector."""
        return Edit(self.layer, self.vector, "resid_post", -1)

    @cached_property
    def without(self) -> Outputs:
        """The outputs of components without the vector."""
        return Outputs.of(self.model, self.prompts)

    @cached_property
    def with_vector(self) -> Outputs:
        """The outputs of components with the vector."""
        return Outputs.of(self.model, self.prompts, self.edit)

    @cached_property
    def difference(self) -> Float[Tensor, "prompt d_model"]:
        """The vector minus the residual stream that it replaces."""
        own = self.without.stream[:, self.layer]
        return self.vector.to(own) - own

    def logprob(
        self, edits: Sequence[AnyEdit], tick: Tick = silent
    ) -> Float[Tensor, "prompt edit"]:
        """Log probability (nats) of each answer, with each edit by itself."""
        answers = [[token] for token in self.answers]
        return self.model.evaluate(self.prompts, edits, answers, tick).logprob[..., 0]

    # --- single components ------------------------------------------------------------------------

    def reset(self, components: Iterable[Component]) -> list[Edit]:
        """Edits: write the vector, and set components to their output without it (necessity)."""
        return [self.edit, *(self.without.write(c) for c in components)]

    def path(self, c: Component) -> list[Edit]:
        """Edits that leave only the path vector -> component -> everything later (sufficiency).

        Only this component reads the vector: the difference that the vector makes is added to the
        stream before the component and subtracted after it. Other components in between keep their
        output without the vector (path patching: Wang et al. 2022, arXiv 2211.00593). Later
        components run freely.
        """
        there, gone = self.difference, -self.difference
        between: Site | None = "resid_mid" if self._has_middle else None
        block = [Component(c.layer, h) for h in range(self.model.n_heads)]
        if c.head is None:
            # In parallel blocks the MLP reads the stream that enters the block, as heads do.
            start = Edit(c.layer, there, between or "resid_pre", -1, "add")
            still = [] if between else [self.without.write(each) for each in block]
            return [start, *still, Edit(c.layer, gone, "resid_post", -1, "add")]
        still = [self.without.write(each) for each in block if each != c]
        if not between:
            still.append(self.without.write(Component(c.layer, None)))
        start = Edit(c.layer, there, "resid_pre", -1, "add")
        return [start, *still, Edit(c.layer, gone, between or "resid_post", -1, "add")]

    def bypass(self) -> Edit:
        """The edit for the path from the vector to the unembedding, past all components."""
        return Edit(self.model.n_layers - 1, self.difference, "resid_post", -1, "add")

    def direct(self, c: Component) -> list[Edit]:
        """Edits for the direct effect: this component as with the vector, later ones as without."""
        later = [
            each
            for each in self.components
            if each.layer > c.layer or (each.layer == c.layer and each.head is None)
        ]
        still = [self.without.write(each) for each in later if each != c]
        return [self.with_vector.write(c), *still]

    @cached_property
    def _has_middle(self) -> bool:
        """Whether MLPs read the stream after attention, not the one that enters the block."""
        return not self.model.why_no_site("resid_mid")

    # --- to first order ---------------------------------------------------------------------------

    def first_order(self) -> tuple[Float[Tensor, "prompt component"], ...]:
        """First-order estimates of every component's necessity and sufficiency.

        Each is the gradient of the log probability with respect to the component's output, with
        the vector in place (necessity) or without (sufficiency), times the change of this output
        (attribution patching: Nanda 2023).
        """
        zeros = [torch.zeros_like(self.without.at(c)) for c in self.components]
        adds = [_at(c, zero, "add") for c, zero in zip(self.components, zeros, strict=True)]
        ready = self.model.answer_gradients(self.prompts, [[self.edit, *adds], adds], self.answers)
        gradients = ready.at().gradients[1:]
        n = len(adds)
        seen = self._seeing()
        necessity, sufficiency = [], []
        for i, c in enumerate(self.components):
            without = self.without.at(c)
            change = self.with_vector.at(c) - without
            necessity.append((gradients[i] * change).sum(dim=-1))
            sufficiency.append((gradients[n + i] * (seen[c] - without)).sum(dim=-1))
        return torch.stack(necessity, dim=1), torch.stack(sufficiency, dim=1)

    def _seeing(self) -> dict[Component, Float[Tensor, "prompt d"]]:
        """The output of each component if it alone reads the vector."""
        found: dict[Component, Tensor] = {}
        for layer in range(self.layer + 1, self.model.n_layers):
            for site in SITES:
                middle = site == "mlp_out" and self._has_middle
                at: Site = "resid_mid" if middle else "resid_pre"
                edit = Edit(layer, self.difference, at, -1, "add")
                out = self.model.capture(self.prompts, [-1], site, edit)[:, 0, layer]
                if site == "z":
                    found |= {Component(layer, h): out[:, h] for h in range(self.model.n_heads)}
                else:
                    found[Component(layer, None)] = out
        return found
