"""Scores as labelled arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from icl_mech.patch.scores import Scored

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
