"""Injected vectors: theta, function vectors, and random controls."""

from collections.abc import Sequence
from operator import index
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel, Mode, Readout, as_array
from icl_mech.progress import Tick, silent
from icl_mech.prompts import Encoder, Episode, Prompt, accepted, with_dummies, zero_shot
from icl_mech.stats import CONFIDENCE
from icl_mech.stats.plateau import share_of_noise


def dummy_residuals(
    model: HookedModel,
    encoder: Encoder,
    episodes: Sequence[Episode],
    tick: Tick = silent,
) -> Float[Tensor, "episode dummy layer d_model"]:
    """Residual stream at the final arrow after each block, with a dummy query in place."""
    return model.final_residuals(with_dummies(encoder, episodes), tick)


def theta(
    residuals: Float[Tensor, "episode dummy layer d_model"],
) -> Float[Tensor, "episode layer d_model"]:
    """The task vector of each demonstration set: the mean over its dummy queries.

    Hendel et al. 2023, section 3.2: theta is read at the last token after block `l`, with a
    query that is not the one asked later. Nothing is averaged across demonstration sets.
    """
    return residuals.mean(dim=1)


def overwrite(
    layer: int, vectors: Float[Tensor, "*prompt d_model"], mode: Mode = "replace"
) -> Edit:
    """Write vectors over (or add them to) the residual stream at the last token after a block."""
    return Edit(layer, vectors, site="resid_post", position="final_arrow", mode=mode)


def inject(
    model: HookedModel,
    prompts: Sequence[Prompt],
    vectors: Float[Tensor, "prompt vector layer d_model"],
    answers: Sequence[Sequence[int]],
    tick: Tick = silent,
    layers: Sequence[int] | None = None,
    mode: Mode = "replace",
) -> Readout:
    """Overwrite the residual at the last token after every block by each vector in turn.

    Hendel et al. 2023, section 3.2. The readout is `[prompt, vector, layer]`. Only the blocks in
    `layers` are used, by default all that have vectors. With mode `"add"` vectors are added
    instead.
    """
    n_vectors = vectors.shape[1]
    layers = range(vectors.shape[2]) if layers is None else layers
    edits = [
        overwrite(layer, vectors[:, v, layer], mode) for v in range(n_vectors) for layer in layers
    ]
    readout = model.evaluate(prompts, edits, answers, tick)
    return readout.reshape(len(prompts), n_vectors, len(layers))


def scores_by_layer(
    model: HookedModel,
    encoder: Encoder,
    episodes: Sequence[Episode],
    vectors: Float[Tensor, "prompt layer d_model"],
    tick: Tick = silent,
) -> tuple[Bool[np.ndarray, "prompt layer"], Float[np.ndarray, "prompt layer"]]:
    """Inject each episode's own vector into its zero-shot prompt, after every block in turn.

    Returns:
        Whether the answer is right, and its log probability (nats), as `choose_layer` takes them.
    """
    prompts = zero_shot(encoder, episodes)
    answers = accepted(encoder, prompts, episodes).first_tokens
    read = inject(model, prompts, vectors[:, None], answers, tick).column(0)
    return read.right, answer_logprob(read)


class Choice(NamedTuple):
    """The layer that is best on dev prompts.

    Attributes:
        at: index of the layer among those measured.
        rises: whether the dev accuracy rises above noise at some layers. If it does not, the layer
            is only used to continue the measurement: do not report it as a finding.
        accuracy: on dev prompts, at that layer.
    """

    at: int
    rises: bool
    accuracy: float

    def caveat(self, layer: int, what: str = "θ") -> list[str]:
        """One line if no layer was found, else none; `layer` is the block number of `at`."""
        if self.rises:
            return []
        found = (
            f"{what} works at no layer: it is right on no dev prompt"
            if self.accuracy == 0
            else f"{what} is best at no layer: its accuracy on dev prompts (at most "
            f"{self.accuracy:.2f}) rises nowhere beyond noise"
        )
        return [f"{found}; its numbers are those after block {layer}, taken to have one"]


def choose_layer(
    right: Bool[np.ndarray, "prompt layer"] | Float[np.ndarray, "prompt layer"],
    logprob: Float[np.ndarray, "prompt layer"] | None = None,
    queries: Shaped[np.ndarray, "prompt"] | None = None,
) -> Choice:
    """Choose the best layer on dev prompts, and test whether its accuracy rises above noise.

    The accuracy rises if some run of layers exceeds the others by more than noise does (in
    `CONFIDENCE` of the resamples, as in `localize`). Then the layer with the best accuracy is
    chosen, the earliest one if several are equal. Otherwise, of the layers with the best accuracy
    (all of them if no prompt is right), the one with the most probable answer is chosen.

    Args:
        right: whether the answer is right on each dev prompt, at each layer.
        logprob: of the answer (nats); without it, the earliest of the best layers is chosen.
        queries: the query of each prompt; prompts that share one are resampled together.
    """
    values = right.astype(float)
    clusters = np.arange(len(values)) if queries is None else queries
    accuracy = values.mean(axis=0)
    best = accuracy == accuracy.max()
    # NaN (with a single query, noise cannot be estimated) counts as rising.
    rises = bool(not best.all() and not share_of_noise(values, clusters) > 1 - CONFIDENCE)
    if not rises and logprob is not None:
        at = int(np.where(best, logprob.mean(axis=0), -np.inf).argmax())
    else:
        at = int(best.argmax())
    return Choice(at, rises, float(accuracy[at]))


def layer_name(layer: int | None) -> str:
    """A chosen layer as text for tables."""
    return "none" if layer is None else str(layer)


def function_vector(
    heads: Float[Tensor, "layer head d_model"],
    chosen: Sequence[tuple[int, int]],
    bias: Float[Tensor, "layer d_model"] | None = None,
) -> Float[Tensor, "d_model"]:
    """Sum of the mean outputs of the chosen (layer, head)s in the residual stream.

    Todd et al. 2023 (arXiv 2310.15213), section 2.3; `heads` and `bias` as
    `model.heads.mean_outputs` gives them.

    Args:
        heads: mean outputs of all heads.
        chosen: the heads of the vector.
        bias: attention's output bias; by default left out, because it belongs to no head. If given,
            it is added once for every chosen head. The paper's published code does so, because it
            sends each head's output through the whole output projection. (Gemma, Llama and GPT-J
            have no such bias.)

    Raises:
        InputError: if no head is chosen, one is chosen twice, or the model lacks one.
    """
    n_layers, n_heads = heads.shape[:2]
    chosen = check_heads(chosen, n_layers, n_heads)
    parts = [heads[layer, head] for layer, head in chosen]
    if bias is not None:
        parts += [bias[layer] for layer, _ in chosen]
    return torch.stack(parts).sum(dim=0)


def answer_logprob(readout: Readout) -> Float[np.ndarray, "*shape"]:
    """Log probability (nats) of the most probable accepted first token."""
    best: Float[np.ndarray, "*shape"] = np.nanmax(as_array(readout.logprob), axis=-1)
    return best


def check_heads(
    chosen: Sequence[tuple[int, int]], n_layers: int, n_heads: int
) -> list[tuple[int, int]]:
    """The heads as plain numbers.

    Raises:
        InputError: if no head is chosen, a head is named twice, the model has no such head, or
            `chosen` holds anything but pairs of whole numbers.
    """
    try:
        chosen = [(index(layer), index(head)) for layer, head in chosen]
    except (TypeError, ValueError):
        raise InputError(
            f"heads are {chosen!r}; expected pairs (layer, head) of whole numbers, as [(9, 3)]"
        ) from None
    if not chosen:
        raise InputError("no heads; expected at least one (layer, head)")
    if len(set(chosen)) < len(chosen):
        twice = next(head for head in chosen if list(chosen).count(head) > 1)
        raise InputError(f"head {twice[0]}.{twice[1]} is there twice; expected each head once")
    for layer, head in chosen:
        if not (0 <= layer < n_layers and 0 <= head < n_heads):
            raise InputError(
                f"the model has no head {layer}.{head}: expected layers 0 to {n_layers - 1} and "
                f"heads 0 to {n_heads - 1}"
            )
    return chosen


def random_like(
    vectors: Float[Tensor, "*shape d_model"], rng: np.random.Generator
) -> Float[Tensor, "*shape d_model"]:
    """Random directions, each with the norm of the vector in the same place."""
    noise = torch.from_numpy(rng.standard_normal(vectors.shape)).to(vectors)
    return noise / noise.norm(dim=-1, keepdim=True) * vectors.norm(dim=-1, keepdim=True)
