"""Converted models on disk: built once, whole or not at all, checked before use."""

import hashlib
import json
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path
from safetensors import SafetensorError

from icl_mech.errors import ModelError

MANIFEST = "icl-mech.json"
#: Folders written by another version of the conversion are not reused.
FORMAT = 1


def cache_root() -> Path:
    """Where converted models are kept: `ICL_MECH_CACHE`, or the platform's cache folder."""
    override = os.environ.get("ICL_MECH_CACHE")
    return Path(override) if override else user_cache_path("icl-mech")


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cached_folder(key: str, build: Callable[[Path], None]) -> Path:
    """The folder `key` of the cache, made by `build(folder)` unless a sound one is there.

    Another process that wants the same folder waits. The folder appears by a rename, so it is
    never seen half-written; one that was damaged since is built again, with a warning.

    Raises:
        ModelError: where the cache cannot be written.
    """
    root = cache_root()
    folder = root / key
    if is_sound(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f"{key}.lock"):
            if is_sound(folder):  # another process made it while this one waited
                return folder
            if folder.exists():
                warnings.warn(f"{folder}: damaged, converting again", stacklevel=2)
                shutil.rmtree(folder)
            _remove_partial(root, key)
            partial = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=root))
            try:
                build(partial)
                _seal(partial)
                partial.chmod(0o755)  # a shared cache is there to be read by others
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise ModelError(
            f"cannot write the model cache {root} ({why}); expected a "
            "folder with write permission and 1.2 GB free. Set ICL_MECH_CACHE to choose another"
        ) from error
    return folder


def _remove_partial(root: Path, key: str) -> None:
    """Remove what conversions left behind that were killed; none runs while we hold the lock."""
    name = re.compile(re.escape(key) + r"\.[a-z0-9_]{8}")  # as `mkdtemp` makes them
    for path in root.iterdir():
        if name.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)


def _seal(folder: Path) -> None:
    hashes = {path.name: sha256(path) for path in _files(folder)}
    (folder / MANIFEST).write_text(json.dumps({"format": FORMAT, "sha256": hashes}, indent=1))


def is_sound(folder: Path) -> bool:
    """Whether what was built in a cached folder is all there and unchanged.

    Files that came later (a desktop's `.DS_Store`) do not matter.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        hashes = manifest["sha256"].items()
        return manifest["format"] == FORMAT and all(
            sha256(folder / name) == expected for name, expected in hashes
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
