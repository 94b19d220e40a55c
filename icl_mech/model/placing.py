"""Turns the edits of callers into checked branches of a model."""

from collections.abc import Collection, Sequence
from typing import Any

import torch

from icl_mech.errors import InputError, choose
from icl_mech.layers import blocks, check_layer
from icl_mech.model.arguments import check_list
from icl_mech.model.branches import Branch
from icl_mech.model.edits import HOOKS, SITES, Edit, PlacedEdit, Role, Writable, as_role, place
from icl_mech.model.families import missing_sites
from icl_mech.model.knockouts import Knockout, PlacedKnockout, place_knockout
from icl_mech.model.network import module_of
from icl_mech.prompts import Prompt

#: A single edit: alone in a list of edits, or one of several that are applied together.
OneEdit = Edit | Writable | Knockout
#: One edit, several that are applied together, or None for the prompt as it is.
AnyEdit = OneEdit | Sequence[OneEdit] | None


def as_edits(model: Any, edit: AnyEdit) -> list[Edit | Knockout] | None:
    """The edits and knockouts that are applied together; None for the prompt as it is.

    Only here do task vectors become edits of a model (a `HookedModel`).

    Raises:
        InputError: where an item is not an edit, or a task vector is of another model.
    """
    if edit is None:
        return None
    several = [edit] if isinstance(edit, OneEdit) else check_list(edit, "edits", "edits")
    made = [one for e in several for one in (e.edits() if isinstance(e, Writable) else [e])]
    if not made:
        raise InputError("an empty sequence of edits; expected at least one edit")
    for e in made:
        if not isinstance(e, Edit | Knockout):
            raise InputError(
                f"edits holds a {type(e).__name__}; expected Edits, Knockouts, TaskVectors, lists "
                "of these that are applied together, or None for the prompt as it is"
            )
        if isinstance(e, Edit) and e.vector is not None:
            e.vector.check_fits(model)
    return made


def positions_of(prompts: Sequence[Prompt], roles: Sequence[Role]) -> list[list[int]]:
    """The token index of every role in every prompt.

    Raises:
        InputError: where a prompt lacks a role.
    """
    wanted = [as_role(role) for role in check_list(roles, "roles", "roles, as ['final_arrow']")]
    return [[prompt.position(role) for role in wanted] for prompt in prompts]


class Placer:
    """Finds the site of an edit in a model, and its token in every prompt."""

    def __init__(self, bridge: Any, name: str) -> None:
        self.bridge = bridge
        self.name = name
        self.n_layers: int = bridge.cfg.n_layers
        config = getattr(module_of(bridge), "config", None)
        self._missing = {} if config is None else missing_sites(config)
        self._blocks: dict[str, list[int]] = {}

    def branches(
        self, model: Any, edits: Sequence[AnyEdit], prompts: Sequence[Prompt]
    ) -> list[Branch]:
        """Make a branch for each edit of a model (the `HookedModel` of this placer); see `branch`.

        Raises:
            InputError: where there is no edit or no prompt, or an edit does not fit.
        """
        if isinstance(edits, OneEdit):
            kind = type(edits).__name__
            raise InputError(f"edits is a single {kind}; expected a list of edits: [edit]")
        check_list(edits, "edits", "edits")
        if not prompts or not edits:
            raise InputError("expected at least one prompt and one edit")
        with model.weights_held():
            return [self.branch(as_edits(model, edit), prompts) for edit in edits]

    def watched(self, model: Any, edit: AnyEdit, prompts: Sequence[Prompt]) -> Branch | None:
        """The branch of an edit that is in place while whole prompts are captured; None for none.

        Raises:
            InputError: where it does not fit, or cuts attention.
        """
        if edit is None:
            return None
        branch = self.branch(as_edits(model, edit), prompts)
        if branch.knockouts:
            raise InputError(
                "activations are captured with edits in place, not with knockouts; expected Edits "
                "or a TaskVector"
            )
        return branch

    def branch(self, edits: Sequence[Edit | Knockout] | None, prompts: Sequence[Prompt]) -> Branch:
        """Make a branch of edits that are applied together; None means the prompts as they are.

        Raises:
            InputError: where an edit does not fit the model or the prompts.
        """
        lengths, n_heads = [len(p) for p in prompts], self.bridge.cfg.n_heads
        placed: list[PlacedEdit] = []
        knockouts: list[PlacedKnockout] = []
        for e in [self._nothing()] if edits is None else edits:
            if isinstance(e, Knockout):
                cut = place_knockout(e, prompts, self.n_layers, n_heads)
                why = self.why_no_attention(cut.layers)
                if why:
                    raise InputError(f"{why}, so that none can be cut there; expected other blocks")
                knockouts.append(cut)
                continue
            check_layer(e.layer, self.n_layers)
            self.hook(e.site, e.layer % self.n_layers)
            self._check_width(e)
            positions = [at for (at,) in positions_of(prompts, [e.position])]
            placed.append(place(e, positions, lengths, self.n_layers, n_heads))
        return Branch(tuple(placed), self.n_layers, tuple(knockouts))

    def why_no_attention(self, layers: Collection[int]) -> str:
        """Say which of these blocks has no attention to cut; empty text if all have it."""
        there = [i for i, block in enumerate(self.bridge.blocks) if hasattr(block, "attn")]
        lacking = sorted(set(layers) - set(there))
        if not lacking:
            return ""
        known = f"{blocks(there)} have it" if there else "no block has any"
        return f"{self.name} has no attention in block {lacking[0]} ({known})"

    def hook(self, site: str, layer: int | None = None) -> str:
        """The name of a site's hook, with a `{}` for the block.

        Args:
            site: as in `Edit`.
            layer: the block, from 0, that must have the site; by default every block.

        Raises:
            InputError: where the model has no such site there.
        """
        choose(site, SITES, "site")
        found = self.blocks_with(site)
        if len(found) < self.n_layers if layer is None else layer not in found:
            everywhere = [s for s in SITES if not self.why_no_site(s)]
            raise InputError(
                f"{self.why_no_site(site)}. Choose from: {', '.join(everywhere)}, which every "
                "block has"
            )
        return HOOKS[site]

    def why_no_site(self, site: str) -> str:
        """Say which blocks lack a site; empty text if every block has it."""
        found = self.blocks_with(site)
        if len(found) == self.n_layers:
            return ""
        if found:
            return (
                f"{self.name} has site {site!r} in {len(found)} of {self.n_layers} blocks only "
                f"({', '.join(map(str, found[:8]))}{', ...' if len(found) > 8 else ''})"
            )
        why = "its blocks have none"
        if not self.blocks_with("attn_out") and not self.blocks_with("z"):
            why = "its blocks have no attention"
        elif site == "resid_mid":
            why = "attention and MLP run in parallel there"
        return f"{self.name} has no site {site!r} ({self._missing.get(site, why)})"

    def blocks_with(self, site: str) -> list[int]:
        """The blocks that have a site."""
        if site in self._missing:
            return []
        if site not in self._blocks:  # kept, because a bridge lists all its hooks for each call
            known = self.bridge.hook_dict
            found = [n for n in range(self.n_layers) if HOOKS[site].format(n) in known]
            self._blocks[site] = found
        return list(self._blocks[site])

    def _nothing(self) -> Edit:
        """An edit that adds zero after the last block, so that no block runs again."""
        zero = torch.zeros(self.bridge.cfg.d_model)
        return Edit(self.n_layers - 1, zero, site="resid_post", position=-1, mode="add")

    def _check_width(self, edit: Edit) -> None:
        width = self.bridge.cfg.d_head if edit.site == "z" else self.bridge.cfg.d_model
        if edit.value.shape[-1] != width:
            raise InputError(
                f"a value of {edit.value.shape[-1]} numbers at {edit.site!r}; expected {width}"
            )
