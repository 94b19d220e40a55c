"""How probable answers are with a vector at the last token, by layer and scale."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.layers import check_layers
from icl_mech.model import HookedModel
from icl_mech.one_prompt.asking import Asked, about, as_prompt, continuations
from icl_mech.one_prompt.picture import Picture
from icl_mech.one_prompt.tokens import visible
from icl_mech.prompts import Prompt
from icl_mech.task_vectors import TaskVector

#: Factors on the vector.
SCALES = (0.5, 1.0, 2.0, 4.0)


class Steering(Picture):
    """Probabilities of answers with a vector written; see `steer`.

    `data` holds `logprob` over `answer`, `layer` and `scale`, and `unsteered` over `answer`.
    """

    @property
    def answers(self) -> list[str]:
        """The answers whose probabilities were measured."""
        return [str(answer) for answer in self.data["answer"].values]

    @property
    def layers(self) -> list[int]:
        """The blocks after which the vector was written."""
        return [int(layer) for layer in self.data["layer"].values]

    @property
    def scales(self) -> list[float]:
        """The factors on the vector."""
        return [float(scale) for scale in self.data["scale"].values]

    def headline(self) -> str:
        """What was written, on which model."""
        return (
            f"Steering with the vector {self.provenance['vector']!r} "
            f"({self.provenance['mode']}), {self.provenance['model']}"
        )

    def table(self) -> pd.DataFrame:
        """Every answer's probability without the vector, and its largest one with it."""
        rows = []
        for i, answer in enumerate(self.answers):
            found = self.data["logprob"].values[i]
            layer, scale = np.unravel_index(found.argmax(), found.shape)
            rows.append(
                {
                    "answer": visible(answer),
                    "without": f"{np.exp(self.data['unsteered'].values[i]):.3g}",
                    "with, at most": f"{np.exp(found.max()):.3g}",
                    "after block": self.layers[layer],
                    "scale": f"{self.scales[scale]:g}",
                }
            )
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row per (answer, layer, scale): log probability (nats), with and without."""
        order = ["answer", "layer", "scale"]
        frame = self.data.to_dataframe(dim_order=order).reset_index()
        frame["probability"] = np.exp(frame["logprob"])
        return frame

    def finding(self) -> str:
        """The answer that the vector makes most more probable, and where."""
        found, without = (np.exp(self.data[name].values) for name in ("logprob", "unsteered"))
        gains = found - without[:, None, None]
        answer, layer, scale = np.unravel_index(int(gains.argmax()), gains.shape)
        if not gains[answer, layer, scale] > 0:
            return "The vector makes none of the answers more probable"
        return (
            f"The vector lifts p({visible(self.answers[answer])}) from {without[answer]:.2g} to "
            f"{found[answer, layer, scale]:.2g} (scale {self.scales[scale]:g} after block "
            f"{self.layers[layer]})"
        )

    def _draw(self) -> go.Figure:
        """A panel for each answer: its probability against layer, a line for each scale."""
        from icl_mech.one_prompt.steering_plot import steering_figure

        return steering_figure(self)


def steer(
    model: HookedModel,
    text_or_prompt: Asked,
    vector: TaskVector,
    answers: Sequence[str],
    layers: Sequence[int] | None = None,
    scales: Sequence[float] = SCALES,
) -> Steering:
    """How probable answers become when a vector is written at the last token of a prompt.

    Args:
        model: from `load_model`.
        text_or_prompt: a text, the messages of a chat, or a `Prompt`.
        vector: the vector, written with its own `mode`; after each block, its vector of that layer.
        answers: texts as they follow the prompt; the log probability of an answer of several
            tokens is the sum over them.
        layers: blocks after which it is written, each in turn; by default all that the vector has.
        scales: factors on the vector; they replace its own scale.

    Raises:
        InputError: if the text is empty or too long, the vector is of another model, or there
            is no such layer, no answer, or no finite scale.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> tv = icl_mech.task_vector(model, "country_capital", 4, 3, layer=9, progress=False)
        >>> found = icl_mech.steer(model, "France->", tv, [" Paris"], layers=[3, 9], scales=[1.0])
        >>> bool(found.data["logprob"].sel(layer=9).item() > found.data["unsteered"].item())
        True
    """
    prompt = as_prompt(model, text_or_prompt)
    vector.check_fits(model)
    at = check_layers(vector.layers if layers is None else layers, model.n_layers)
    factors = _check_scales(scales)
    edits: list[TaskVector | None] = [None]
    edits += [vector.written(layer, scale=scale) for layer in at for scale in factors]
    tokens = continuations(model, prompt, _check_answers(answers))
    found = _logprobs(model, prompt, edits, tokens).numpy()
    steered = found[1:].reshape(len(at), len(factors), len(tokens))
    data = xr.Dataset(
        {
            "logprob": (("layer", "scale", "answer"), steered, {"units": "nats"}),
            "unsteered": ("answer", found[0], {"units": "nats"}),
            "n_tokens": ("answer", [len(ids) for ids in tokens]),
        },
        coords={"answer": np.array(answers, dtype=object), "layer": at, "scale": factors},
    ).transpose("answer", "layer", "scale")
    said = {
        "method": "steer",
        **about(model, prompt),
        "vector": vector.name,
        "mode": vector.mode,
    }
    return Steering(data, said)


def _logprobs(
    model: HookedModel,
    prompt: Prompt,
    edits: Sequence[TaskVector | None],
    tokens: Sequence[Sequence[int]],
) -> Float[Tensor, "edit answer"]:
    """Log probability of every answer; answers of one token share a single pass."""
    found = torch.empty(len(edits), len(tokens))
    single = [i for i, ids in enumerate(tokens) if len(ids) == 1]
    several = [i for i, ids in enumerate(tokens) if len(ids) > 1]
    if single:
        ids = [tokens[i][0] for i in single]
        found[:, single] = model.evaluate([prompt], edits, [ids]).logprob[0].float().cpu()
    if several:
        of_prompt = [[tokens[i] for i in several]]
        found[:, several] = model.sequence_logprob([prompt], of_prompt, edits)[0].float().cpu()
    return found.clamp_max(0)


def _check_scales(scales: Sequence[float]) -> list[float]:
    """Finite numbers, each once, the smallest first.

    Raises:
        InputError: if there is none, or one is not finite.
    """
    found = sorted({float(scale) for scale in scales})
    if not found or not all(map(math.isfinite, found)):
        raise InputError(f"scales {list(scales)}; expected finite numbers, at least one")
    return found


def _check_answers(answers: Sequence[str]) -> list[str]:
    """The answers as a list.

    Raises:
        InputError: if it is a single text, there is none, or one is there twice.
    """
    if isinstance(answers, str):
        raise InputError(f"answers is the text {answers!r}; expected a list of texts")
    if not answers or len(set(answers)) < len(answers):
        raise InputError(f"answers {list(answers)}; expected at least one text, each once")
    return list(answers)
