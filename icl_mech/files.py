"""Permissions of files, by the user's umask."""

import os
from pathlib import Path


def follow_umask(path: Path) -> None:
    """Give a file, or a folder and all in it, the permissions that new ones have.

    Temporary files and folders are made for their owner alone, whatever the umask.

    Raises:
        OSError: where the permissions cannot be changed.
    """
    umask = os.umask(0o077)  # the umask can only be read by setting it
    os.umask(umask)
    for each in [path, *(path.rglob("*") if path.is_dir() else [])]:
        each.chmod((0o777 if each.is_dir() else 0o666) & ~umask)
