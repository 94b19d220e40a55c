"""The logit lenses of two prompts, and their difference."""

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.layers import evenly_spaced
from icl_mech.model import HookedModel
from icl_mech.one_prompt.asking import Asked, Target, as_prompt, stream
from icl_mech.one_prompt.lens import PromptLens, read_lens
from icl_mech.one_prompt.picture import Picture
from icl_mech.one_prompt.tokens import visible
from icl_mech.prompts import Prompt
from icl_mech.task_vectors import TaskVector

_ROWS, _TOP_K = 6, 5


class ComparedPrompts(Picture):
    """Two prompts' lenses and their difference; see `compare_prompts`.

    `data` holds, over `layer` and `column`, the `difference` in log probability of the column's
    target (b minus a), its `logprob_a` and `logprob_b`, and, for every column, `token_a` and
    `token_b` (indices of the tokens that are compared) and `target` (text).

    Attributes:
        a, b: the lens of each prompt.
    """

    def __init__(self, a: PromptLens, b: PromptLens, data: xr.Dataset, said: dict) -> None:
        super().__init__(data, said)
        self.a, self.b = a, b

    @property
    def layers(self) -> list[int]:
        """Block numbers; -1 is the embedding."""
        return self.a.layers

    def headline(self) -> str:
        """What was compared, on which model."""
        n = self.data.sizes["column"]
        return f"Two prompts, {n} tokens compared, {self.provenance['model']}"

    def table(self) -> pd.DataFrame:
        """The last token after a few blocks."""
        rows = []
        target = visible(str(self.data["target"].values[-1]))
        for i in evenly_spaced(len(self.layers), _ROWS):
            here = self.data.isel(layer=i, column=-1)
            row: dict[str, object] = {"after block": self.layers[i]}
            for name, lens in (("a", self.a), ("b", self.b)):
                top = lens.data["top_text"].isel(layer=i, token=-1, k=0).item()
                row[f"{name} says"] = visible(str(top))
            for name in ("a", "b"):
                row[f"p({target}) in {name}"] = f"{np.exp(here[f'logprob_{name}'].item()):.3f}"
            rows.append(row)
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row per (column, layer): log probabilities (nats) of the target, and difference."""
        frame = self.data.to_dataframe(dim_order=["column", "layer"]).reset_index()
        for name, lens in (("a", self.a), ("b", self.b)):
            texts = np.array(lens.texts, dtype=object)
            frame[f"text_{name}"] = texts[frame[f"token_{name}"].to_numpy()]
        return frame

    def finding(self) -> str:
        """How probable the last column's target is in a, and in b."""
        last = self.data.isel(layer=-1, column=-1)
        a, b = (float(np.exp(last[f"logprob_{name}"])) for name in ("a", "b"))
        return f"p({visible(str(last['target'].item()))}) is {_share(a)} in a, {_share(b)} in b"

    def _draw(self) -> go.Figure:
        """Both lenses, one above the other so that each token stands above its partner.

        The difference is below them. Of more than 96 tokens, only the last 96 are shown.
        """
        from icl_mech.one_prompt.compare_plot import compare_figure

        return compare_figure(self)


def _share(p: float) -> str:
    """A probability with two digits.

    >>> _share(0.934), _share(0.00012)
    ('0.93', '0.00012')
    """
    return f"{p:.2f}" if p >= 0.1 else f"{p:.2g}"


def compare_prompts(
    model: HookedModel,
    a: Asked,
    b: Asked,
    *,
    vector_a: TaskVector | None = None,
    vector_b: TaskVector | None = None,
    target: str | int | None = None,
) -> ComparedPrompts:
    """The logit lenses of two prompts, and where they differ.

    Use it for a clean and a corrupted prompt, or for one prompt without and with a vector. Prompts
    of equal length are compared token by token; others are aligned at their last tokens.

    Args:
        model: from `load_model`.
        a, b: texts, messages of a chat, or `Prompt`s.
        vector_a, vector_b: written at the last token of a, or of b.
        target: the token whose log probability is compared, as in `prompt_lens`; by default, at
            every token, the model's top next token there in a.

    Raises:
        InputError: as `prompt_lens`.
        ModelError: if the model returns numbers that are not finite.

    Example:
        >>> both = icl_mech.compare_prompts(
        ...     model, "Japan->Tokyo\\nFrance->", "Japan->Asia\\nFrance->", target="Paris"
        ... )
        >>> both.data["difference"].sel(layer=17)[-1].item() < 0
        True
    """
    first, second = as_prompt(model, a), as_prompt(model, b)
    sought = None if target is None else Target.of(model, first, target)
    n = min(len(first), len(second))
    ids = _said(model, first, vector_a) if sought is None else [sought.token] * len(first)
    in_b = [*[-1] * (len(second) - n), *ids[-n:]]
    lens_a = read_lens(model, first, vector_a, ids, sought, _TOP_K)
    lens_b = read_lens(model, second, vector_b, in_b, sought, _TOP_K)
    of_a, of_b = (lens.data["target_logprob"].values[:, -n:] for lens in (lens_a, lens_b))
    data = xr.Dataset(
        {
            "difference": (("layer", "column"), of_b - of_a, {"units": "nats"}),
            "logprob_a": (("layer", "column"), of_a, {"units": "nats"}),
            "logprob_b": (("layer", "column"), of_b, {"units": "nats"}),
            "token_a": ("column", np.arange(len(first) - n, len(first))),
            "token_b": ("column", np.arange(len(second) - n, len(second))),
            "target": (
                "column",
                np.array([model.to_string(token) for token in ids[-n:]], dtype=object),
            ),
        },
        coords={"layer": lens_a.layers, "column": np.arange(n)},
    )
    said = {
        "method": "compare_prompts",
        "model": model.name,
        "target": None if sought is None else sought.text,
        "aligned": "token by token" if len(first) == len(second) else "at the last token",
        "a": lens_a.provenance,
        "b": lens_b.provenance,
    }
    return ComparedPrompts(lens_a, lens_b, data, said)


def _said(model: HookedModel, prompt: Prompt, vector: TaskVector | None) -> list[int]:
    """The model's top next token after every token."""
    last = stream(model, prompt, vector)[:, -1]
    found: list[int] = model.read(last, [[-1]] * len(last)).top.tolist()
    return found
