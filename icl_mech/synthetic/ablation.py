"""Replaces the outputs of heads by their means, one head at a time."""

import torch
from jaxtyping import Float
from torch import Tensor

from icl_mech.synthetic.model import HookPoint, RegressionTransformer

HeadMeans = Float[Tensor, "layer head pos d_head"]


def head_means(
    model: RegressionTransformer, tokens: Float[Tensor, "seq pos dim_and_y"]
) -> HeadMeans:
    """The mean output (`hook_z`) of every head over sequences, position by position."""
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=lambda name: name.endswith("hook_z"))
    layers = range(model.config.n_layers)
    means = [cache[f"blocks.{layer}.attn.hook_z"].mean(0).transpose(0, 1) for layer in layers]
    return torch.stack(means)


def heads_off(
    model: RegressionTransformer, tokens: Float[Tensor, "seq pos dim_and_y"], means: HeadMeans
) -> Float[Tensor, "layer head seq"]:
    """The query's prediction with one head's output replaced by its mean, at every position.

    Args:
        model: in evaluation mode.
        tokens: sequences.
        means: mean outputs of the heads, best from other sequences, the same number per basis.
    """
    found = []
    for layer, of_layer in enumerate(means):
        for head, mean in enumerate(of_layer):

            def write(z: Tensor, hook: HookPoint, head: int = head, mean: Tensor = mean) -> Tensor:
                z = z.clone()
                z[:, :, head] = mean
                return z

            with torch.no_grad():
                hooks = [(f"blocks.{layer}.attn.hook_z", write)]
                out = model.run_with_hooks(tokens, fwd_hooks=hooks)
            found.append(out[:, -1])
    return torch.stack(found).unflatten(0, means.shape[:2])
