"""Files: plotly.js of pages, permissions by the umask, and how the settings of two runs differ."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from icl_mech.errors import InputError, shown

#: Where a page loads plotly.js (4.8 MB) from: the page itself; plotly's server, which needs network
#: access; or a file in the same folder, which all its pages share.
PlotlyJs = Literal["inline", "cdn", "directory"]


def follow_umask(path: Path) -> None:
    """Give a file, or a folder with its contents, the permissions that the umask gives new files.

    Temporary files and folders are created for their owner alone, whatever the umask.

    Raises:
        OSError: if the permissions cannot be changed.
    """
    umask = os.umask(0o077)  # the umask can only be read by setting it
    os.umask(umask)
    for each in [path, *(path.rglob("*") if path.is_dir() else [])]:
        each.chmod((0o777 if each.is_dir() else 0o666) & ~umask)


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
    """Refuse to continue a run whose settings differ.

    Args:
        place: the folder or file, for the message.
        stored: settings of the run that it holds.
        wanted: the settings of the new run that are known so far; only these are compared.

    Raises:
        InputError: naming every difference.
    """
    found = list(differences(wanted, {name: stored.get(name) for name in wanted}))
    if found:
        raise InputError(
            f"{place} holds another run: {'; '.join(found)}. Expected the same settings; choose "
            "another folder to start anew"
        )
