"""Vectors that are injected: theta, and the controls that belong beside it."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.model import HookedModel
from icl_mech.prompts import Encoder, Episode


def dummy_residuals(
    model: HookedModel,
    encoder: Encoder,
    episodes: Sequence[Episode],
    tick: Callable[[int], object] = lambda n: None,
) -> Float[Tensor, "episode dummy layer d_model"]:
    """Residual stream at the final arrow after each block, with a dummy query in place."""
    groups = [[encoder.encode(e.demonstrations, d.x) for d in e.dummies] for e in episodes]
    return model.final_residuals(groups, tick)


def theta(
    residuals: Float[Tensor, "episode dummy layer d_model"],
) -> Float[Tensor, "episode layer d_model"]:
    """The task vector of each demonstration set: the mean over its dummy queries.

    Hendel et al. 2023, section 3.2: theta is read at the last token after block `l`, with a
    query that is not the one asked later. Nothing is averaged across demonstration sets.
    """
    return residuals.mean(dim=1)


def random_like(
    vectors: Float[Tensor, "*shape d_model"], rng: np.random.Generator
) -> Float[Tensor, "*shape d_model"]:
    """Random directions, each with the norm of the vector that it stands beside."""
    noise = torch.from_numpy(rng.standard_normal(vectors.shape)).to(vectors)
    return noise / noise.norm(dim=-1, keepdim=True) * vectors.norm(dim=-1, keepdim=True)
