"""Places in a model: blocks by number, and sites inside a block."""

from collections.abc import Iterable
from operator import index
from typing import Any, Literal, get_args

import numpy as np

from icl_mech.errors import InputError

#: The residual stream before a block, between its attention and MLP, and after it; the outputs of
#: attention and the MLP, which are added to the stream; and the output of a head before W_O.
Site = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z"]
SITES: tuple[str, ...] = get_args(Site)
#: How a value is written at a site: it replaces the activation, or is added to it.
Mode = Literal["replace", "add"]


def check_layer(layer: Any, n_layers: int) -> int:
    """The block number from 0; a negative one counts from the last block.

    Raises:
        InputError: if it is not a whole number, or the model has no such block.

    >>> check_layer(-1, 18)
    17
    """
    try:
        number = index(layer)
    except TypeError:
        raise InputError(f"layer {layer!r}; expected a whole number") from None
    if not -n_layers <= number < n_layers:
        raise InputError(
            f"layer {number} out of range: expected 0 to {n_layers - 1}, or -{n_layers} to -1 "
            "(counted from the last block)"
        )
    return number % n_layers


def check_layers(layers: Any, n_layers: int) -> list[int]:
    """Block numbers from 0, in order; all of them for `None`.

    Raises:
        InputError: if there is none, one is there twice, or one does not exist.
    """
    if layers is None:
        return list(range(n_layers))
    try:
        asked = list(layers)
    except TypeError:
        raise InputError(f"layers {layers!r}; expected several, as [{layers!r}]") from None
    chosen = [check_layer(layer, n_layers) for layer in asked]
    if not chosen:
        raise InputError("no layers; expected at least one")
    if len(set(chosen)) < len(chosen):
        raise InputError(f"layers {asked} name a block twice; expected each once")
    return sorted(chosen)


def blocks(layers: Iterable[int]) -> str:
    """Block numbers in words: neighbours as a run.

    >>> blocks([9]), blocks([9, 10]), blocks([3, 9, 10, 11])
    ('block 9', 'blocks 9 and 10', 'blocks 3 and 9 to 11')
    """
    runs: list[list[int]] = []
    for layer in sorted(set(layers)):
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    said = [
        part
        for run in runs
        for part in ([f"{run[0]} to {run[-1]}"] if len(run) > 2 else map(str, run))
    ]
    *most, last = said
    several = len(runs) > 1 or len(runs[0]) > 1
    return f"block{'s' * several} {', '.join(most)}{' and ' * bool(most)}{last}"


def span(layers: Iterable[int]) -> str:
    """The first and the last of some blocks, in words.

    >>> span([9]), span([11, 9, 9])
    ('block 9', 'blocks 9 to 11')
    """
    known = list(layers)
    first, last = min(known), max(known)
    return f"block {first}" if first == last else f"blocks {first} to {last}"


def evenly_spaced(n_layers: int, n: int) -> list[int]:
    """`n` block numbers from the first to the last, or all if there are no more than `n`.

    >>> evenly_spaced(18, 6)
    [0, 3, 7, 10, 14, 17]
    """
    return sorted({int(layer) for layer in np.linspace(0, n_layers - 1, n).round()})
