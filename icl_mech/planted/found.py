"""Runs the read-outs of this package on a planted model and compares them with the truth."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool

from icl_mech.decoder import NothingToDecodeError, find_decoder
from icl_mech.heads import HeadAttribution, head_attribution
from icl_mech.localize import TaskMap, localize
from icl_mech.patch import PositionScan, patch_positions
from icl_mech.planted.plant import Head, Plant, Truth
from icl_mech.planted.planting import planted_model

#: A head counts as attending to the labels if they get at least this share of its attention.
_ATTENDS = 0.5
#: A head or component has an effect on a prompt if it is at least this share of the whole effect.
_EFFECT = 0.1
_COMPONENTS = {"attn_out": "attention", "mlp_out": "mlp"}


@dataclass(frozen=True)
class Finding:
    """What one read-out says of one planted model.

    Attributes:
        readout: its name.
        found: the layers, heads or components that it names; empty if it names none.
        planted: those that it should name; empty if nothing was planted.
    """

    readout: str
    found: tuple[Any, ...]
    planted: tuple[Any, ...]

    @property
    def right(self) -> bool:
        """Whether it names exactly what was planted."""
        return set(self.found) == set(self.planted)


def read_outs(plant: Plant, n_prompts: int = 12, n_shots: int = 4) -> list[Finding]:
    """Run every read-out of layers, heads and components on a planted model.

    - Layers: those that `localize` names for the first task.
    - Heads (AIE, by `head_attribution`), and outputs of attention and MLPs at the final token (by
      `patch_positions`): those that, in at least half of the prompts, restore at least a tenth of
      what wrong labels take from the answer.
    - The decoder: the components that `find_decoder` finds on odd prompts.
    - Heads that attend to labels: those whose final token gives the labels half of its attention.

    If the model answers no prompt right in context, heads, components and decoder are not measured,
    and nothing is found.

    Args:
        plant: the settings.
        n_prompts: prompts of each read-out.
        n_shots: demonstrations of each.

    Example:
        >>> from icl_mech.planted import read_outs
        >>> plant = icl_mech.Plant(n_layers=5, formed=2, decoded=3, decoys=("unread_direction",))
        >>> [each.readout for each in read_outs(plant) if not each.right]
        ['formed, by encoding', 'heads, by attention to labels']
    """
    planted, truth = planted_model(plant), plant.truth()
    usual: dict[str, Any] = {
        "n_prompts": n_prompts,
        "n_shots": n_shots,
        "seed": plant.seed,
        "progress": False,
    }
    model, task = planted.model, planted.family.tasks[0]
    mapped = localize(model, planted.family, n_points=4 * n_prompts, **usual)
    found = list(_layers(mapped, task.name, truth))
    by_aie: tuple[Head, ...] = ()
    by_attention, by_patching, decoders = by_aie, tuple[str, ...](), tuple[str, ...]()
    if mapped.data["regular"].sel(task=task.name).any():
        attributed = head_attribution(model, task, **usual)
        by_aie, by_attention = _effective(attributed, task.name), _attending(attributed, task.name)
        patched = patch_positions(
            model,
            task,
            sites=tuple(_COMPONENTS),
            roles=("final_arrow",),
            direction="denoise",
            **usual,
        )
        by_patching = _restoring(patched, task.name)
        with suppress(NothingToDecodeError):
            read = find_decoder(model, task, n_draws=2, gradients=False, **usual)
            decoders = tuple(read.chosen(task.name))
    found += [
        Finding("decoder, by necessity", decoders, (f"MLP {truth.decoded}",)),
        Finding("heads, by AIE", by_aie, truth.write),
        Finding("heads, by attention to labels", by_attention, truth.write),
        Finding(
            "components, by patching",
            by_patching,
            (f"attention {truth.formed}", f"mlp {truth.decoded}"),
        ),
    ]
    return found if plant.circuit else [replace(each, planted=()) for each in found]


def _layers(mapped: TaskMap, task: str, truth: Truth) -> Iterator[Finding]:
    """The layers that the map names, and those that were planted."""
    for (kind, readout), located in mapped.layers_of(task).items():
        verb, planted = (
            ("formed", truth.formed) if kind == "formation" else ("decoded", truth.decoded)
        )
        layer = located.estimate.value
        named = () if np.isnan(layer) else (int(layer),)
        yield Finding(f"{verb}, by {readout}", named, (planted,))


def _effective(attributed: HeadAttribution, task: str) -> tuple[Head, ...]:
    """Heads with an effect on the answer's probability in at least half of the prompts."""
    data = attributed.data.sel(task=task)
    gain = data["clean_probability"] - data["shuffled_probability"]
    return _heads(_in_most(data["aie"], gain).values)


def _in_most(effect: xr.DataArray, whole: xr.DataArray) -> xr.DataArray:
    """Whether the effect is at least `_EFFECT` of the whole in at least half of the prompts."""
    return (effect >= _EFFECT * whole.clip(min=_EFFECT)).mean("prompt") >= 0.5


def _attending(attributed: HeadAttribution, task: str) -> tuple[Head, ...]:
    """Heads by which the final token attends to the labels."""
    looks = attributed.data["attention"].sel(task=task, role="demo y").mean("prompt")
    return _heads(looks.values >= _ATTENDS)


def _heads(chosen: Bool[np.ndarray, "layer head"]) -> tuple[Head, ...]:
    return tuple((int(layer), int(head)) for layer, head in np.argwhere(chosen))


def _restoring(patched: PositionScan, task: str) -> tuple[str, ...]:
    """Outputs of attention and MLPs at the final token that restore the answer."""
    data = patched.data.sel(task=task, direction="denoise", role="final_arrow")
    whole = data["clean_logit_difference"] - data["corrupted_logit_difference"]
    restored = _in_most(data["logit_difference"] - data["corrupted_logit_difference"], whole)
    return tuple(
        f"{name} {layer}"
        for site, name in _COMPONENTS.items()
        for layer in np.flatnonzero(restored.sel(site=site))
    )
