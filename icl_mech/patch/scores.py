"""Was the answer right? Readouts -> arrays of scores, per prompt."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from icl_mech.model import HookedModel, Readout
from icl_mech.prompts import Answers, Encoder, Prompt
from icl_mech.tasks import Task

#: How an answer is judged. `first_token`: the top token is the first token of an accepted
#: answer. `two_way_prefix`: the top token's text begins an accepted answer, or the other way
#: round, as in the authors' evaluation ("P" counts for "Paris"). An accepted first token counts
#: whatever its text: one that holds a space alone, or part of a character, has none.
SCORES = ("first_token", "two_way_prefix")


def count_collisions(encoder: Encoder, task: Task, prompt: Prompt, answers: Answers) -> int:
    """For how many prompts another answer of the task begins with an accepted first token."""
    begins: dict[int, set[str]] = defaultdict(set)
    for label in {answer for pair in task.pairs for answer in pair.answers}:
        ((first, *_),) = encoder.answer_tokens(prompt, [label])
        begins[first].add(label)
    return sum(
        any(begins[token] - set(texts) for token in tokens)
        for tokens, texts in zip(answers.first_tokens, answers.texts, strict=True)
    )


@dataclass(frozen=True)
class Scored:
    """Scores of a readout whose first axis is the prompt.

    Attributes:
        top: the most probable token.
        first_token, two_way_prefix: right or wrong, see `SCORES`.
        logprob: log probability (nats) of the most probable accepted first token.
        rank: how many tokens are more probable than it.
    """

    top: Int[np.ndarray, "prompt *rest"]
    first_token: Bool[np.ndarray, "prompt *rest"]
    two_way_prefix: Bool[np.ndarray, "prompt *rest"]
    logprob: Float[np.ndarray, "prompt *rest"]
    rank: Int[np.ndarray, "prompt *rest"]


def score(model: HookedModel, readout: Readout, answers: Answers) -> Scored:
    """Judge every cell of a `[prompt, ...]` readout."""
    top = readout.top.cpu().numpy()
    logprob = readout.logprob.cpu().numpy()
    rank = readout.rank.cpu().numpy()
    text = {token: model.to_string(token).strip() for token in np.unique(top).tolist()}
    prefix = [
        np.vectorize(lambda t, a=a: two_way_prefix(text[t], a), otypes=[bool])(row)
        for row, a in zip(top, answers.texts, strict=True)
    ]
    return Scored(
        top=top,
        first_token=readout.right,
        two_way_prefix=np.array(prefix) | readout.right,
        logprob=np.nanmax(logprob, axis=-1),
        rank=np.where(rank < 0, np.iinfo(rank.dtype).max, rank).min(axis=-1),
    )


def two_way_prefix(said: str, answers: Sequence[str]) -> bool:
    """Whether what was said begins an accepted answer, or an accepted answer begins it.

    >>> two_way_prefix("P", ["Paris"]), two_way_prefix("", ["Paris"])
    (True, False)
    """
    return said != "" and any(a.startswith(said) or said.startswith(a) for a in answers)


_UNITS = {"logprob": "nats"}
#: What stands where a vector was not injected.
_UNMEASURED = {
    "measured": False,
    "top": -1,
    "first_token": False,
    "two_way_prefix": False,
    "logprob": np.nan,
    "rank": -1,
}


def score_arrays(scored: Scored, coords: Mapping[str, Sequence[Any]] | None = None) -> xr.Dataset:
    """Scores with dimensions `prompt` and those of `coords`, in order."""
    coords = coords or {}
    dims = ("prompt", *coords)
    return xr.Dataset(
        {
            name: xr.DataArray(values, dims=dims, attrs=_attributes(name))
            for name, values in vars(scored).items()
        },
        coords={name: list(values) for name, values in coords.items()},
    )


def _attributes(name: str) -> dict[str, str]:
    return {"units": _UNITS[name]} if name in _UNITS else {}


def with_controls(theta: xr.Dataset, controls: xr.Dataset) -> xr.Dataset:
    """Along one axis `vector`; `measured` says at which layers each was injected."""
    parts = [
        part.assign(measured=(("vector", "layer"), np.ones(_shape(part), dtype=bool)))
        for part in (theta, controls)
    ]
    layers = theta["layer"].values
    return xr.concat(
        [part.reindex(layer=layers, fill_value=_UNMEASURED) for part in parts], dim="vector"
    )


def _shape(part: xr.Dataset) -> tuple[int, int]:
    return part.sizes["vector"], part.sizes["layer"]


def prefixed(prefix: str, arrays: xr.Dataset) -> xr.Dataset:
    """The same arrays, each name with a prefix."""
    return arrays.rename({str(name): f"{prefix}{name}" for name in arrays.data_vars})
