"""The attention patterns of heads in one prompt."""

from collections.abc import Sequence
from operator import index
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.layers import check_layer
from icl_mech.model import HookedModel
from icl_mech.one_prompt.asking import Asked, about, as_prompt, texts
from icl_mech.one_prompt.picture import Picture
from icl_mech.one_prompt.tokens import visible

#: A head: its block and its number, both from 0.
Head = tuple[int, int]
#: Heads; further values in a row of a ranking, such as the effect, are ignored.
Heads = Sequence[Head] | Sequence[tuple[int, int, Any]]
#: Number of heads that are shown if none are asked for.
N_HEADS = 8


@runtime_checkable
class Ranking(Protocol):
    """Ranked heads: a `HeadAttribution`."""

    @property
    def tasks(self) -> list[str]:
        """The tasks that heads were ranked on."""

    @property
    def methods(self) -> list[str]:
        """The methods by which they were ranked."""

    def top(self, task: str, k: int, method: str) -> list[tuple[int, int, Any]]:
        """The first heads of a task: (layer, head, effect)."""


class PromptAttention(Picture):
    """Attention of a few heads between all tokens of a prompt; see `prompt_attention`.

    `data` holds `attention` over `head`, `query` and `key` (NaN if a query cannot see a key),
    the `layer` and `number` of every head, and the `text` of every token.
    """

    @property
    def heads(self) -> list[Head]:
        """Block and number of every head."""
        both = zip(self.data["layer"].values, self.data["number"].values, strict=True)
        return [(int(layer), int(number)) for layer, number in both]

    @property
    def texts(self) -> list[str]:
        """The prompt's tokens."""
        return [str(text) for text in self.data["text"].values]

    def headline(self) -> str:
        """What was read, on which model."""
        return (
            f"Attention of {len(self.heads)} heads over {len(self.texts)} tokens, "
            f"{self.provenance['model']}"
        )

    def table(self) -> pd.DataFrame:
        """The tokens that each head's last token attends to most."""
        rows = []
        for i, (layer, number) in enumerate(self.heads):
            last = self.data["attention"].values[i, -1]
            best = int(last[1:].argmax()) + 1 if len(last) > 1 else 0
            rows.append(
                {
                    "head": f"{layer}.{number}",
                    "to the first token": f"{last[0]:.2f}",
                    "most to": f"{best} {visible(self.texts[best])}",
                    "attention": f"{last[best]:.2f}",
                }
            )
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row per (head, query, key) that the query can see."""
        frame = self.data["attention"].to_dataframe().reset_index().dropna(subset="attention")
        of_head = np.array(self.heads)[frame["head"].to_numpy()]
        names = np.array(self.texts, dtype=object)
        columns = {
            "layer": of_head[:, 0],
            "head": of_head[:, 1],
            "query": frame["query"].to_numpy(),
            "query_token": names[frame["query"].to_numpy()],
            "key": frame["key"].to_numpy(),
            "key_token": names[frame["key"].to_numpy()],
            "attention": frame["attention"].to_numpy(),
        }
        return pd.DataFrame(columns)

    def finding(self) -> str:
        """The head whose last token attends most to a single token other than the first."""
        looks = self.data["attention"].values[:, -1, 1:]
        if not looks.size:
            return ""
        head, key = np.unravel_index(int(looks.argmax()), looks.shape)
        layer, number = self.heads[head]
        at = visible(self.texts[key + 1])
        return f"From the last token, head {layer}.{number} looks at {at} ({looks[head, key]:.0%})"

    def _draw(self, tokens: Sequence[int] | None = None) -> go.Figure:
        """A map of queries (downwards) and keys (across); a menu chooses the head.

        Args:
            tokens: which of the prompt's tokens to show, by index; by default all, or the last 96.

        Raises:
            InputError: if there is no such token.
        """
        from icl_mech.one_prompt.attention_plot import attention_figure

        return attention_figure(self, tokens)


def prompt_attention(
    model: HookedModel, text_or_prompt: Asked, heads: Heads | Ranking | None = None
) -> PromptAttention:
    """The attention pattern of a few heads over the tokens of one prompt.

    Args:
        model: from `load_model`.
        text_or_prompt: a text, the messages of a chat, or a `Prompt`.
        heads: (block, number)s, both from 0, or a ranking: the result of `head_attribution` on one
            task (its first eight heads), or the rows of its `top`. By default the eight heads whose
            last token attends most to tokens other than itself and the first one (idle heads attend
            to the first token).

    Raises:
        InputError: if the text is empty or longer than the model reads, there is no such
            head, or a ranking is of several tasks.

    Example:
        >>> seen = icl_mech.prompt_attention(model, "Japan->Tokyo\\nFrance->", [(9, 3)])
        >>> seen.heads, dict(seen.data["attention"].sizes)
        ([(9, 3)], {'head': 1, 'query': 7, 'key': 7})
        >>> seen.to_frame().columns[-1]
        'attention'
        >>> found = icl_mech.head_attribution(
        ...     model, "country_capital", 2, 3, methods=("direct",), progress=False
        ... )
        >>> ranked = icl_mech.prompt_attention(model, "Japan->Tokyo\\nFrance->", found)
        >>> ranked.heads == [(layer, head) for layer, head, _ in found.top(
        ...     "country_capital", 8, "direct")]
        True
    """
    prompt = as_prompt(model, text_or_prompt)
    if isinstance(heads, Ranking):
        heads = _ranked(heads)
    if heads is None:
        chosen = _looking(model.heads.attention([prompt])[0])
    else:
        chosen = _check_heads(model, heads)
    layers, numbers = [layer for layer, _ in chosen], [number for _, number in chosen]
    wanted = sorted(set(numbers))
    found = model.heads.patterns([prompt], wanted)[0].float().cpu()
    pattern = found[layers, [wanted.index(number) for number in numbers]]
    future = torch.ones(pattern.shape[1:], dtype=torch.bool).triu(1)
    data = xr.Dataset(
        {
            "attention": (("head", "query", "key"), pattern.masked_fill(future, np.nan).numpy()),
            "layer": ("head", layers),
            "number": ("head", numbers),
            "text": ("token", np.array(texts(model, prompt.tokens), dtype=object)),
        },
    )
    chosen_by = "attention of the last token" if heads is None else "the caller"
    said = {"method": "prompt_attention", **about(model, prompt), "heads_chosen_by": chosen_by}
    return PromptAttention(data, said)


def _ranked(ranking: Ranking) -> Heads:
    """The first heads of a ranking on one task.

    Raises:
        InputError: if the ranking is of several tasks.
    """
    if len(ranking.tasks) != 1:
        raise InputError(
            f"a ranking on {len(ranking.tasks)} tasks; expected the heads of one, as "
            f"found.top({ranking.tasks[0]!r}), or those of all, as found.universal()"
        )
    return ranking.top(ranking.tasks[0], N_HEADS, ranking.methods[0])


def _looking(last: Float[Tensor, "layer head token"]) -> list[Head]:
    """The heads whose last token attends most to tokens between the first and itself, in order."""
    n_heads, n_tokens = last.shape[1:]
    # A prompt of two tokens has none between the first and the last.
    seen = last[..., 1:-1] if n_tokens > 2 else last[..., 1:]
    best = seen.float().sum(dim=-1).flatten().topk(min(N_HEADS, last[..., 0].numel())).indices
    return [(i // n_heads, i % n_heads) for i in best.tolist()]


def _check_heads(model: HookedModel, heads: Heads) -> list[Head]:
    """Heads that the model has, each once.

    Raises:
        InputError: if there is none, or one is unknown.
    """
    chosen: list[Head] = []
    for head in heads:
        try:
            layer, number = (index(part) for part in head[:2])
        except (TypeError, ValueError):
            raise InputError(
                f"heads holds {head!r}; expected pairs (layer, head), as (9, 3)"
            ) from None
        layer = check_layer(layer, model.n_layers)
        if not 0 <= number < model.n_heads:
            raise InputError(
                f"no head {number} in block {layer}; {model.name} has heads 0 to "
                f"{model.n_heads - 1} in each"
            )
        chosen.append((layer, number))
    if not chosen:
        raise InputError("no heads; expected at least one, as [(9, 3)]")
    return list(dict.fromkeys(chosen))
