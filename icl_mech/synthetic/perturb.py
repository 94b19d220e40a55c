"""Swapping one basis' representation for another's, and what that does to the prediction.

Han et al. (2024), arXiv 2412.12276, section 3: the residual stream after a layer is replaced by the
mean activation of a target basis, for every source and target.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from icl_mech.errors import choose
from icl_mech.synthetic.model import RegressionTransformer

Tokens = Literal["last_y", "all_y", "query"]
How = Literal["replace", "shift"]
TOKENS = ("last_y", "all_y", "query")
HOWS = ("replace", "shift")


def positions(model: RegressionTransformer, tokens: str) -> list[int]:
    """Which positions a name stands for.

    Args:
        model: gives the number of examples.
        tokens: `"last_y"`, the y token of the last demonstration; `"all_y"`, those of all;
            `"query"`, the last x token, where the answer is predicted.

    Raises:
        InputError: where there is no such name, with the nearest.
    """
    choose(tokens, TOKENS, "tokens")
    last = 2 * model.n_examples
    found = {"last_y": [last - 1], "all_y": list(range(1, last, 2)), "query": [last]}
    return found[tokens]


def residuals(
    model: RegressionTransformer, tokens: Float[Tensor, "seq pos dim_and_y"]
) -> tuple[Float[Tensor, "seq pos"], Float[Tensor, "layer seq pos d_model"]]:
    """Read-outs, and the residual stream after every block."""
    with torch.no_grad():
        out, cache = model.run_with_cache(
            tokens, names_filter=lambda name: name.endswith("hook_resid_post")
        )
    layers = range(model.config.n_layers)
    return out, torch.stack([cache[f"blocks.{layer}.hook_resid_post"] for layer in layers])


def basis_means(
    resid: Float[Tensor, "layer seq pos d_model"], basis: Int[Tensor, "seq"], n_bases: int
) -> Float[Tensor, "layer basis pos d_model"]:
    """The mean activation of every basis, position by position."""
    return torch.stack([resid[:, basis == k].mean(1) for k in range(n_bases)], dim=1)


def perturbed(
    model: RegressionTransformer,
    tokens: Float[Tensor, "seq pos dim_and_y"],
    basis: Int[Tensor, "seq"],
    means: Float[Tensor, "layer basis pos d_model"],
    at: str = "last_y",
    how: str = "replace",
) -> Float[Tensor, "layer target seq"]:
    """The query's prediction after writing each basis' mean activation into every sequence.

    Args:
        model: in evaluation mode.
        tokens: sequences.
        basis: their own bases, the sources; `"shift"` needs them.
        means: mean activations, best taken from other sequences.
        at: at which tokens, as in `positions`.
        how: `"replace"` the residual by the target's mean, as the paper does, which erases what
            the token says about W too; or `"shift"` it from the source's mean to the target's.

    Raises:
        InputError: where `at` or `how` is unknown.
    """
    choose(how, HOWS, "how")
    where = positions(model, at)
    found = []
    for layer in range(model.config.n_layers):
        for target in range(means.shape[1]):
            new = means[layer, target][where]
            old = means[layer, basis][:, where]

            def write(
                resid: Tensor, hook: HookPoint, new: Tensor = new, old: Tensor = old
            ) -> Tensor:
                resid = resid.clone()
                resid[:, where] = new if how == "replace" else resid[:, where] + new - old
                return resid

            hooks = [(f"blocks.{layer}.hook_resid_post", write)]
            with torch.no_grad():
                found.append(model.run_with_hooks(tokens, fwd_hooks=hooks)[:, -1])
    return torch.stack(found).unflatten(0, (model.config.n_layers, -1))
