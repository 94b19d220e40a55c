"""Repairs: the states that are read from few-shot prompts, and the edits that write them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import choose
from icl_mech.failures.plan import REPAIRS
from icl_mech.model import Edit, HookedModel
from icl_mech.prompts import Encoder, Episode, Prompt, with_dummies
from icl_mech.tasks import Pair
from icl_mech.vectors import overwrite, theta

#: The text of every input and answer of a placeholder prompt.
BLANK = "..."


def placeholder(encoder: Encoder, episode: Episode) -> Prompt:
    """The query after as many blank demonstrations as the episode has."""
    blanks = [Pair(BLANK, (BLANK,))] * len(episode.demonstrations)
    return encoder.encode(blanks, episode.query.x, episode.instruction)


@dataclass(frozen=True)
class States:
    """States of few-shot prompts with a dummy query, at every layer.

    Attributes:
        theta: the residual stream at the final arrow (mean over dummies).
        attention: the attention outputs there (mean over dummies).
        shown: the residual stream at the demonstrations' tokens `roles`; it does not depend on the
            dummy query.
        roles: `"demo_0_x"`, `"demo_0_arrow"`, ...
    """

    theta: Float[Tensor, "episode layer d_model"]
    attention: Float[Tensor, "episode layer d_model"] | None
    shown: Float[Tensor, "episode role layer d_model"] | None
    roles: tuple[str, ...]

    @staticmethod
    def of(
        model: HookedModel,
        encoder: Encoder,
        episodes: Sequence[Episode],
        repairs: Sequence[str],
        own: Float[Tensor, "episode layer d_model"] | None = None,
    ) -> "States":
        """Read the states that `repairs` need; `own` is theta, if it is known already."""
        groups = with_dummies(encoder, episodes)
        if own is None:
            own = theta(model.final_residuals(groups))
        attention = shown = None
        parts = sorted({part for name in repairs for part in REPAIRS[name]})
        n = len(episodes[0].demonstrations)
        roles = tuple(f"demo_{i}_{part}" for i in range(n) for part in parts)
        if "layers" in repairs:
            flat = [prompt for group in groups for prompt in group]
            found = model.capture(flat, ["final_arrow"], "attn_out")[:, 0]
            attention = found.reshape(len(groups), -1, *found.shape[1:]).mean(dim=1)
        if roles:
            shown = model.capture([group[0] for group in groups], roles)
        return States(own, attention, shown, roles)

    def rolled(self) -> "States":
        """Give every episode the states of the next one, as a control."""

        def roll(values: Tensor | None) -> Tensor | None:
            return None if values is None else torch.roll(values, -1, dims=0)

        theta = torch.roll(self.theta, -1, dims=0)
        return States(theta, roll(self.attention), roll(self.shown), self.roles)

    def edits(self, repair: str, layer: int) -> list[Edit]:
        """The joint edits of one repair after block `layer`."""
        choose(repair, REPAIRS, "repair")
        if repair == "layers":
            assert self.attention is not None
            return [
                Edit(k, self.attention[:, k], site="attn_out", position="final_arrow")
                for k in range(layer + 1)
            ]
        assert self.shown is not None
        parts = REPAIRS[repair]
        written = [
            Edit(layer, self.shown[:, i, layer], position=role)
            for i, role in enumerate(self.roles)
            if role.rsplit("_", 1)[1] in parts
        ]
        return [*written, overwrite(layer, self.theta[:, layer])]
