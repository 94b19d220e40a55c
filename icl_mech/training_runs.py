"""Files from which training goes on: tensors with a header, and how two runs' settings differ."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

import icl_mech
from icl_mech.errors import InputError, shown
from icl_mech.results import write_whole

#: What Adam keeps of every weight.
ADAM = ("step", "exp_avg", "exp_avg_sq")


def save_tensors(path: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    """Write a safetensors file, whole or not at all.

    Args:
        path: of the file.
        header: is kept as JSON, with icl-mech's version.
        tensors: by name.

    Raises:
        InputError: where it cannot be written (no permission, full disk).
    """
    kept = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    text = json.dumps({**header, "version": icl_mech.__version__})
    data = save(kept, metadata={"icl_mech": text})
    return write_whole(path, lambda temporary: temporary.write_bytes(data))


def under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose name starts with `prefix/`, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def differences(
    wanted: Mapping[str, Any], stored: Mapping[str, Any], path: str = ""
) -> Iterator[str]:
    """A line for each difference between two runs' settings, as files hold them.

    >>> list(differences({"rank": 4, "data": {"seed": 0}}, {"rank": 8, "data": {"seed": 1}}))
    ['rank is 8, not 4', 'data.seed is 1, not 0']
    """
    for name in dict.fromkeys([*wanted, *stored]):
        ours, theirs = wanted.get(name), stored.get(name)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            yield from differences(ours, theirs, f"{path}{name}.")
        elif ours != theirs:
            yield f"{path}{name} is {shown(theirs)}, not {shown(ours)}"


def check_same(place: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuse to go on with another run.

    Args:
        place: the folder or file, for the message.
        stored: settings of the run that it holds.
        wanted: what is known by now of the run that is asked for; only this is compared.

    Raises:
        InputError: naming every difference.
    """
    found = list(differences(wanted, {name: stored.get(name) for name in wanted}))
    if found:
        raise InputError(
            f"{place} holds another run: {'; '.join(found)}. Expected the same settings; choose "
            "another folder to start anew"
        )
