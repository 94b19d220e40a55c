"""Which blocks are looked at."""

from collections.abc import Sequence

import numpy as np

from icl_mech.errors import InputError


def chosen_layers(layers: Sequence[int] | None, n_layers: int) -> list[int]:
    """Block numbers from 0, in order, each once; all of them for `None`.

    Raises:
        InputError: where there is none, or one does not exist.
    """
    chosen = list(range(n_layers) if layers is None else layers)
    for layer in chosen:
        if not -n_layers <= layer < n_layers:
            raise InputError(f"layer {layer} out of range: expected 0 to {n_layers - 1}")
    if not chosen:
        raise InputError("no layers; expected at least one")
    return sorted({layer % n_layers for layer in chosen})


def evenly_spaced(n_layers: int, n: int) -> list[int]:
    """`n` block numbers from the first to the last, or all where there are no more.

    >>> evenly_spaced(18, 6)
    [0, 3, 7, 10, 14, 17]
    """
    return sorted({int(layer) for layer in np.linspace(0, n_layers - 1, n).round()})
