"""Keeps converted models on disk: built once, written completely or not at all, and verified."""

import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from filelock import FileLock, Timeout
from platformdirs import user_cache_path
from safetensors import SafetensorError
from xxhash import xxh3_128

from icl_mech.errors import ModelError
from icl_mech.files import follow_umask

MANIFEST = "icl-mech.json"
#: The version of the conversion. It is part of a folder's name, so a folder that another version
#: wrote is not reused.
FORMAT = 2
#: Extra bytes that a conversion needs, for the manifest and for rounding to disk blocks.
_SPARE = 2**20


def cache_root() -> Path:
    """Where converted models are kept: `ICL_MECH_CACHE`, or the platform's cache folder."""
    override = os.environ.get("ICL_MECH_CACHE")
    return Path(override).expanduser() if override else user_cache_path("icl-mech")


def folder_of(name: str) -> Path:
    """Where a converted model is, or would be."""
    return cache_root() / f"{name}-v{FORMAT}"


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksum(path: Path) -> str:
    """xxh3 of a file's content: it detects damage, not malice, as fast as the disk reads."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxh3_128).hexdigest()


def cached_folder(name: str, build: Callable[[Path], None]) -> Path:
    """The folder of that name in the cache; `build(folder)` makes it unless it is there and intact.

    Another process that needs the same folder prints a line and waits. The folder is renamed into
    place, so it is never seen half-written. A damaged folder is built again, with a warning. If the
    process is asked to end (TERM, HUP, Ctrl-C), it first removes the unfinished folder.

    Raises:
        ModelError: where the cache cannot be written.
    """
    folder = folder_of(name)
    root, key = folder.parent, folder.name
    if is_sound(folder):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root / f"{key}.lock"):
            if is_sound(folder):  # another process made it while this one waited
                return folder
            if os.path.lexists(folder):
                warnings.warn(f"{folder}: damaged, converting again", stacklevel=2)
                _remove(folder)
            _remove_partial(root, key)
            with _ends_by_exception():
                partial = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=root))
                try:
                    build(partial)
                    _seal(partial)
                    follow_umask(partial)  # so that others can read a shared cache
                    partial.rename(folder)
                finally:
                    shutil.rmtree(partial, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise ModelError(
            f"cannot write the model cache {root} ({why}); expected a folder with write "
            "permission and room. Set ICL_MECH_CACHE to choose another"
        ) from error
    return folder


def require_space(folder: Path, n_bytes: int) -> None:
    """Refuse a conversion for which the disk has too little room.

    Raises:
        ModelError: naming what is needed, what is free, and how to choose another disk.
    """
    free = shutil.disk_usage(folder).free
    if free < n_bytes + _SPARE:
        raise ModelError(
            f"cannot write the model cache {folder.parent}: the conversion needs "
            f"{n_bytes / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free. Set ICL_MECH_CACHE to a "
            "folder on another disk"
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock; print a line if another process has it."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print("waiting for another process, which converts this model", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _ends_by_exception() -> Iterator[None]:
    """Let TERM and HUP raise SystemExit, so that unfinished files are removed on the way out.

    This happens only in the main thread, and only for signals that the program does not handle.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    ours = []
    if threading.current_thread() is threading.main_thread():
        wanted = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
        ours = [s for s in wanted if s is not None and signal.getsignal(s) is signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _remove(path: Path) -> None:
    """Remove a folder with all its content, a file, or a link (not its target)."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _remove_partial(root: Path, key: str) -> None:
    """Remove folders of killed conversions; none runs while this process holds the lock."""
    name = re.compile(re.escape(key) + r"\.[a-z0-9_]{8}")  # as `mkdtemp` makes them
    for path in root.iterdir():
        if name.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _files(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.name != MANIFEST)


def _seal(folder: Path) -> None:
    sums = {path.name: checksum(path) for path in _files(folder)}
    written = {"format": FORMAT, "xxh3": sums, "all": _over(sums)}
    (folder / MANIFEST).write_text(json.dumps(written, indent=1))


def _over(sums: dict[str, str]) -> str:
    """A checksum of the list itself, which detects lost entries."""
    return xxh3_128(json.dumps(sums, sort_keys=True).encode()).hexdigest()


def is_sound(folder: Path) -> bool:
    """Whether all files that were built in a cached folder are present and unchanged.

    Files that were added later (a desktop's `.DS_Store`) do not matter.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        sums = manifest["xxh3"]
        return (
            manifest["format"] == FORMAT
            and len(sums) > 0
            and manifest["all"] == _over(sums)
            and all(checksum(folder / name) == expected for name, expected in sums.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
