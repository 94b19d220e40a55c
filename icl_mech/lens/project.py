"""Vectors read through the unembedding: their top tokens, and how many are of each kind."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor

from icl_mech.lens.counting import KINDS, Words, among, count, kind_of
from icl_mech.lens.plan import VectorLensSettings
from icl_mech.lens.run import texts
from icl_mech.model import HookedModel, TopTokens, as_array
from icl_mech.vectors import random_like


def project(
    model: HookedModel,
    vectors: Float[Tensor, "prompt layer d_model"],
    rng: np.random.Generator,
    words: Words,
    layers: Sequence[int],
    allowed: Bool[Tensor, "vocab"] | None,
    s: VectorLensSettings,
) -> xr.Dataset:
    """Read the average of a task's vectors, every vector, and a random one of the same norm."""
    random = random_like(vectors, rng)

    def read(groups: Float[Tensor, "group row d_model"]) -> TopTokens:
        return model.vocabulary.top_tokens(groups, s.top_k, allowed)

    by_layer = vectors.transpose(0, 1)
    top = read(by_layer if s.average == "log_probability" else by_layer.mean(1, keepdim=True))
    each = torch.stack([vectors, random], dim=1)  # prompt vector layer d_model
    own = read(each.flatten(0, 2)[:, None])
    ids = own.ids.view(*each.shape[:3], s.top_k)
    nats = {"units": "nats"}
    return xr.Dataset(
        {
            "top": (("layer", "k"), top.ids.cpu().numpy()),
            "top_logprob": (("layer", "k"), top.logprob.cpu().numpy(), nats),
            "top_text": (("layer", "k"), texts(model, top.ids)),
            "top_kind": (("layer", "k"), kind_of(model, words, top.ids)),
            "average_count": (("layer", "among", "kind"), count(model, words, top.ids)),
            "count": (("prompt", "vector", "layer", "among", "kind"), count(model, words, ids)),
            "prompt_top": (("prompt", "vector", "layer", "k"), ids.cpu().numpy()),
            "norm": (("prompt", "layer"), as_array(vectors.norm(dim=-1))),
        },
        coords={
            "layer": np.array(layers),
            "vector": ["own", "random"],
            "among": among(s.top_k),
            "kind": list(KINDS),
        },
    )


def filters(allowed: Any) -> str:
    """The provenance entry on tokens that are left out of the top tokens."""
    if allowed is None:
        return "none: no token is left out of the top tokens"
    n = int(allowed.sum())
    return (
        f"only words: top tokens are among the {n} of {len(allowed)} that are letters only, but "
        "for a space before them; probabilities are among all tokens"
    )
