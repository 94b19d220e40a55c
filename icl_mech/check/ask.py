"""The prompts of a check, and the model's activations and top tokens without edits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.model import HookedModel
from icl_mech.model.edits import HOOKS
from icl_mech.model.network import final_stream
from icl_mech.prompts import Prompt

#: The tokens that are edited: the last one, and one near the beginning.
ROLES = ("final_arrow", "demo_0_y")
#: The number of most probable tokens whose log probabilities are compared.
N_BEST = 10

#: Every prompt's activation, `[prompt, d_model]` or `[prompt, head, d_head]`, by site, block, role.
Own = Mapping[tuple[str, int, str], Float[Tensor, "prompt *shape"]]


@dataclass(frozen=True)
class Asked:
    """The prompts on which edits are tried, with their targets and activations.

    Attributes:
        prompts: few-shot prompts.
        targets: for each prompt, the tokens whose log probability is read.
        sites: the blocks in which each site can be edited, as `HookedModel.sites`.
        own: the prompts' activations at every site, block and token of `ROLES`.
    """

    prompts: Sequence[Prompt]
    targets: Sequence[Sequence[int]]
    sites: Mapping[str, Sequence[int]]
    own: Own

    def logprob(
        self, model: HookedModel, edits: Sequence[Any], tick: Any
    ) -> Float[Tensor, "prompt edit target"]:
        """Log probability (nats) of the targets, for each edit by itself."""
        return model.evaluate(self.prompts, edits, self.targets, tick).logprob


def ask(model: HookedModel, prompts: Sequence[Prompt]) -> Asked:
    """Run the prompts as they are.

    Raises:
        ModelError: where the model returns numbers that are not finite, or its engine fails.
    """
    n_best = min(N_BEST, len(model.vocabulary))
    last = model.final_residuals([[prompt] for prompt in prompts])[:, 0, -1]
    best = model.read(last, [[-1]] * len(prompts), n_best).best
    assert best is not None
    sites = {site: blocks for site, blocks in model.sites.items() if blocks}
    return Asked(prompts, best.tolist(), sites, _own(model, prompts, sites))


def _own(model: HookedModel, prompts: Sequence[Prompt], sites: Mapping[str, Sequence[int]]) -> Own:
    """Activations from one ordinary forward pass per prompt, without any engine."""
    places = [(site, block) for site, blocks in sites.items() for block in blocks]
    rows = [_seen(model, prompt, places) for prompt in prompts]
    return {
        (*place, role): torch.stack(
            [row[place][prompt.position(role)] for row, prompt in zip(rows, prompts, strict=True)]
        )
        for place in places
        for role in ROLES
    }


@torch.no_grad()
def _seen(
    model: HookedModel, prompt: Prompt, places: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], Float[Tensor, "token *shape"]]:
    """The activations of a prompt at the hooks of these places."""
    seen: dict[tuple[str, int], Tensor] = {}

    def keeper(place: tuple[str, int]) -> Any:
        def keep(activation: Tensor, hook: Any) -> None:
            seen[place] = activation[0].clone()

        return keep

    hooks = [(HOOKS[site].format(block), keeper((site, block))) for site, block in places]
    with model.bridge.hooks(fwd_hooks=hooks):
        final_stream(model.bridge, torch.tensor([prompt.tokens], device=model.device))
    return seen
