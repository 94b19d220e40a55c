"""The logit lens of every token of one prompt."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.layers import evenly_spaced
from icl_mech.model import HookedModel, Readout, check_model
from icl_mech.one_prompt.asking import Asked, Target, about, as_prompt, stream, texts
from icl_mech.one_prompt.picture import Picture
from icl_mech.one_prompt.tokens import LONG, visible
from icl_mech.prompts import Prompt
from icl_mech.task_vectors import TaskVector

#: Number of layers in the short table.
_ROWS = 6


class PromptLens(Picture):
    """The next token that each layer predicts after each token of a prompt; see `prompt_lens`.

    `data` holds, over `layer` (-1: the embedding) and `token`, the `k` most probable tokens
    (`top_text`, `top`, `top_logprob`), the `entropy`, and, if a target was given, its
    `target_logprob` and `target_rank` (0: on top). `text` holds the texts of the prompt's tokens.
    """

    @property
    def layers(self) -> list[int]:
        """Block numbers; -1 is the embedding."""
        return [int(layer) for layer in self.data["layer"].values]

    @property
    def texts(self) -> list[str]:
        """The prompt's tokens."""
        return [str(text) for text in self.data["text"].values]

    def headline(self) -> str:
        """What was read, on which model."""
        vector = self.provenance["vector"]
        written = "" if vector is None else f", with {vector} at the last token"
        return (
            f"Logit lens of {len(self.texts)} tokens after {len(self.layers) - 1} blocks, "
            f"{self.provenance['model']}{written}"
        )

    def table(self) -> pd.DataFrame:
        """The predictions of a few layers after the last token."""
        last = self.data.isel(token=-1)
        rows = []
        for i in evenly_spaced(len(self.layers), _ROWS):
            here = last.isel(layer=i)
            row = {
                "after block": self.layers[i],
                f"top token after {visible(self.texts[-1])}": visible(
                    str(here["top_text"].values[0])
                ),
                "probability": f"{np.exp(here['top_logprob'].values[0]):.3f}",
            }
            if "target_rank" in here:
                row["target"] = visible(self.provenance["target"])
                row["target's rank"] = f"{int(here['target_rank']):,}"
            rows.append(row)
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row per (token, layer), with the most probable token."""
        one = self.data.isel(k=0, drop=True)
        frame = one.to_dataframe(dim_order=["token", "layer"]).reset_index()
        frame["probability"] = np.exp(frame["top_logprob"])
        return frame.rename(columns={"top": "top_token", "top_text": "top"})

    def finding(self) -> str:
        """The model's top token after the last one, and the block from which on it stays on top."""
        top = self.data["top"].isel(token=-1, k=0).values
        last = self.data.isel(layer=-1, token=-1, k=0)
        says, p = visible(str(last["top_text"].item())), float(np.exp(last["top_logprob"]))
        other = np.flatnonzero(top != top[-1])
        since = self.layers[int(other[-1]) + 1] if len(other) else self.layers[0]
        where = "the embedding" if since == -1 else f"block {since}"
        return f"The model says {says} next (p = {p:.2f}), on top from {where} on"

    def _draw(self, tokens: Sequence[int] | None = None) -> go.Figure:
        """A map of layers (upwards) and tokens; a menu chooses what the colour means.

        Args:
            tokens: indices of the prompt's tokens to show; by default all, or the last 96.

        Raises:
            InputError: if there is no such token.
        """
        from icl_mech.one_prompt.lens_plot import lens_figure

        return lens_figure(self, tokens)


def prompt_lens(
    model: HookedModel,
    text_or_prompt: Asked,
    *,
    vector: TaskVector | None = None,
    target: str | int | None = None,
    top_k: int = 5,
) -> PromptLens:
    """The logit lens of one prompt: what every layer would say after every token.

    The logit lens (nostalgebraist 2020) reads the residual stream after each block, and the
    embedding (layer -1), through the model's own final norm and unembedding. After the last block
    this is the model's own prediction.

    Args:
        model: from `load_model`.
        text_or_prompt: a text, the messages of a chat, or a `Prompt`.
        vector: a vector to write at the last token before the stream is read.
        target: a token whose probability and rank are read at every place: a text (its first
            token, as it follows the prompt) or an id.
        top_k: number of most probable tokens that are kept.

    Raises:
        InputError: if the text is empty or longer than the model reads, the vector is of
            another model, or there is no such target.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> lens = icl_mech.prompt_lens(model, "Japan->Tokyo\\nFrance->", target="Paris")
        >>> lens.texts[-2:], lens.layers[0], lens.data["top_text"].sel(layer=17)[-1, 0].item()
        (['France', '->'], -1, 'Paris')
        >>> lens.plot().data[0].type
        'heatmap'
    """
    prompt = as_prompt(model, text_or_prompt)
    model.vocabulary.check_count(top_k)
    sought = None if target is None else Target.of(model, prompt, target)
    ids = [-1 if sought is None else sought.token] * len(prompt)
    return read_lens(model, prompt, vector, ids, sought, top_k)


def read_lens(
    model: HookedModel,
    prompt: Prompt,
    vector: TaskVector | None,
    targets: Sequence[int],
    sought: Target | None,
    top_k: int,
) -> PromptLens:
    """The lens of a prompt, with a target (or -1) for each of its tokens."""
    check_model(model)
    found = stream(model, prompt, vector)
    n_tokens, n_stages, _ = found.shape
    rows = [[int(token)] for token in targets for _ in range(n_stages)]
    readout = model.read(found.flatten(0, 1), rows, top_k, entropy=True)
    data = _arrays(model, prompt, readout.reshape(n_tokens, n_stages))
    if all(token < 0 for token in targets):
        data = data.drop_vars(["target_logprob", "target_rank"])
    said = {
        "method": "prompt_lens: logit lens (nostalgebraist 2020)",
        **about(model, prompt),
        "vector": None if vector is None else vector_name(vector),
        "target": None if sought is None else sought.text,
        "target_of": None if sought is None else sought.whole,
    }
    return PromptLens(data, said)


def vector_name(vector: TaskVector) -> str:
    """A short description of a vector and its place."""
    factor = "" if vector.scale == 1 else f" x {vector.scale:g}"
    name = vector.name if len(vector.name) <= LONG else f"{vector.name[: LONG - 1]}…"
    return f"the vector {name}{factor} ({vector.mode} {vector.place})"


def _arrays(model: HookedModel, prompt: Prompt, readout: Readout) -> xr.Dataset:
    assert readout.best is not None
    assert readout.best_logprob is not None
    assert readout.entropy is not None
    best = readout.best.cpu().numpy().transpose(1, 0, 2)
    known, index = np.unique(best, return_inverse=True)
    names = np.array(texts(model, known.tolist()), dtype=object)
    cell, nats = ("layer", "token"), {"units": "nats"}

    def turned(values: np.ndarray) -> np.ndarray:
        return np.moveaxis(values, 1, 0)

    # Rounding may lift a probability slightly above 1.
    top = turned(readout.best_logprob.float().clamp_max(0).cpu().numpy())
    logprob = turned(readout.logprob[..., 0].float().clamp_max(0).cpu().numpy())
    return xr.Dataset(
        {
            "top": ((*cell, "k"), best),
            "top_text": ((*cell, "k"), names[index].reshape(best.shape)),
            "top_logprob": ((*cell, "k"), top, nats),
            "entropy": (cell, turned(readout.entropy.float().cpu().numpy()), nats),
            "target_logprob": (cell, logprob, nats),
            "target_rank": (cell, turned(readout.rank[..., 0].cpu().numpy())),
            "text": ("token", np.array(texts(model, prompt.tokens), dtype=object)),
        },
        coords={"layer": np.arange(-1, model.n_layers), "token": np.arange(len(prompt))},
    )
