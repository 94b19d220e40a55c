"""A folder of finished cells, from which an interrupted or killed run can continue."""

import hashlib
import json
import os
import socket
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from icl_mech import __version__
from icl_mech.errors import IclMechError, InputError, first_line
from icl_mech.files import check_same
from icl_mech.results import Result, load_result, write_whole
from icl_mech.run_names import plain_name

MANIFEST, JOURNAL = "manifest.json", "journal.jsonl"
LOCK, HOLDER = ".lock", ".lock.json"
FORMAT = 3
#: The longest part of a cell's name that its file keeps, in characters.
_LONGEST = 60


class DamagedFileWarning(UserWarning):
    """The file of a finished cell is gone or was changed; the cell is run again."""


class OtherVersionWarning(UserWarning):
    """Finished cells were made by another version of icl-mech."""


class CellFolder:
    """A folder with one result file per finished cell, the settings of all, and a journal.

    A cell counts as finished only if the journal holds the sha256 of its file. So a file that was
    damaged by an interrupt, a full disk or another program is made again. A file is written whole
    or not at all, and then its line is added to the journal. Only one process writes at a time.

    Args:
        path: of the folder.

    Example:
        >>> import tempfile
        >>> folder = CellFolder(tempfile.mkdtemp())
        >>> with folder.writing({"measures.scan": {"n_shots": 5}}):
        ...     folder.failed("tiny/scan/antonyms/seed0", "ab12", "ValueError: no")
        >>> folder.errors
        {'tiny/scan/antonyms/seed0': 'ValueError: no'}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.manifest: dict[str, Any] = {}
        self.done: dict[str, dict[str, Any]] = {}
        self.errors: dict[str, str] = {}
        self.read()

    # --- reading ------------------------------------------------------------------------------

    def read(self) -> None:
        """Read what the folder holds now; nothing if there is no folder.

        Raises:
            InputError: where its manifest is damaged or of another format.
        """
        self.manifest = self._read_manifest()
        self.done, self.errors = {}, {}
        for line in self._lines():
            if "error" in line:
                self.errors[line["cell"]] = line["error"]
            else:
                self.done[line["cell"]] = line
                self.errors.pop(line["cell"], None)

    def _read_manifest(self) -> dict[str, Any]:
        file = self.path / MANIFEST
        if not file.is_file():
            return {}
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            groups = (manifest["settings"], manifest["cells"])
            if manifest["icl_mech_cells"] != FORMAT or not all(isinstance(g, dict) for g in groups):
                raise ValueError("another format")
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(
                f"{file}: not a manifest of icl-mech ({type(error).__name__}); expected one "
                "written by this version, or another folder"
            ) from error
        return dict(manifest)

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The journal's entries, without incomplete lines of a killed process."""
        file = self.path / JOURNAL
        if not file.is_file():
            return
        with file.open(encoding="utf-8", errors="replace") as journal:
            for text in journal:
                with suppress(ValueError):
                    line = json.loads(text)
                    if _is_entry(line):
                        yield line

    def check(self, settings: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuse settings that differ from those in the folder.

        Args:
            settings: of every part of a run, such as `"measures.scan"`. Parts that the folder does
                not hold yet do not count as a difference.

        Raises:
            InputError: naming every difference.
        """
        stored = self.manifest.get("settings", {})
        wanted = json.loads(json.dumps({n: of for n, of in settings.items() if n in stored}))
        check_same(self.path, stored, wanted)

    def check_free(self) -> None:
        """Refuse a folder to which another process writes.

        Raises:
            InputError: naming the other process.
        """
        if (self.path / LOCK).exists():
            self._lock().release()

    def finished(self, cell: str, made_of: str) -> bool:
        """Whether a cell is finished: its file is present and unchanged.

        Args:
            cell: its name.
            made_of: the hash of everything that determines its numbers.

        Raises:
            InputError: where the folder holds a cell of this name with another hash.
        """
        known = self.done.get(cell)
        if known is None:
            return False
        if known["made_of"] != made_of:
            raise InputError(
                f"{self.path}: holds {cell!r} of other weights, pairs or settings; expected the "
                "same, or another folder"
            )
        with suppress(OSError):
            content = (self.path / known["file"]).read_bytes()
            if hashlib.sha256(content).hexdigest() == known["sha256"]:
                return True
        warnings.warn(
            f"{self.path / known['file']}: gone, or not as it was written; {cell} is run again",
            DamagedFileWarning,
            stacklevel=2,
        )
        return False

    def result(self, cell: str) -> Result:
        """The result of a finished cell.

        Raises:
            InputError: where its file is gone or cannot be read.
        """
        return load_result(self.path / self.done[cell]["file"])

    def other_versions(self) -> dict[str, int]:
        """For each other version of icl-mech, how many finished cells it made."""
        made = [line.get("version", "unknown") for line in self.done.values()]
        return {v: made.count(v) for v in sorted(set(made)) if v != __version__}

    # --- writing ------------------------------------------------------------------------------

    @contextmanager
    def writing(
        self,
        settings: Mapping[str, Mapping[str, Any]],
        cells: Mapping[str, Any] | None = None,
    ) -> Iterator[None]:
        """Context in which only this process writes; records the settings and planned cells.

        Args:
            settings: as in `check`; they are added to those of earlier runs.
            cells: all planned cells, by name, with the facts to record about each.

        Raises:
            InputError: where another process (it is named) writes, the folder holds other settings,
                or it cannot be written.
        """
        self.check(settings)  # before anything is written to a folder with other settings
        lock = self._lock()
        try:
            self._say_who()
            self.read()
            self.check(settings)
            self._write_manifest(settings, cells or {})
            self._end_last_line()
            for made_by, n in self.other_versions().items():
                warnings.warn(
                    f"{self.path}: {n} finished cells were made by icl-mech {made_by}, this is "
                    f"{__version__}; they are kept as they are",
                    OtherVersionWarning,
                    stacklevel=3,
                )
            yield
        finally:
            (self.path / HOLDER).unlink(missing_ok=True)
            lock.release()

    def keep(self, cell: str, made_of: str, content: bytes, **facts: Any) -> Path:
        """Write the file of a finished cell, then its line in the journal; return the file's path.

        Args:
            cell: its name.
            made_of: the hash of everything that determines its numbers.
            content: of the file, as `Result.save` writes it.
            facts: further entries of the journal's line.

        Raises:
            InputError: where the folder cannot be written (no permission, full disk).
        """
        file = f"{file_name(cell)}-{made_of[:8]}.nc"
        write_whole(self.path / file, lambda to: to.write_bytes(content))
        line = {
            "cell": cell,
            "made_of": made_of,
            "file": file,
            "sha256": hashlib.sha256(content).hexdigest(),
            "version": __version__,
        }
        self._append(line | facts)
        self.done[cell] = line  # without the facts, to save memory: they are in the journal
        self.errors.pop(cell, None)
        return self.path / file

    def failed(self, cell: str, made_of: str, error: str) -> None:
        """Record in the journal why a cell has no result.

        Raises:
            InputError: where the folder cannot be written.
        """
        self._append({"cell": cell, "made_of": made_of, "error": error})
        self.errors[cell] = error

    def _lock(self) -> FileLock:
        """Acquire the lock; the system releases it when the process ends or is killed."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / LOCK)
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.path}: another run is writing it ({self._holder()}); expected to wait for "
                "it, or another folder"
            ) from None
        except OSError as error:
            raise InputError(
                f"cannot write {self.path} ({error.strerror or error}); expected a folder that "
                "exists or can be made, with write permission"
            ) from error
        return lock

    def _say_who(self) -> None:
        """Write down which process has the lock."""
        who = {"host": socket.gethostname(), "pid": os.getpid(), "since": _now()}
        text = json.dumps(who)
        write_whole(self.path / HOLDER, lambda to: to.write_text(text, encoding="utf-8"))

    def _holder(self) -> str:
        try:
            who = json.loads((self.path / HOLDER).read_text(encoding="utf-8"))
            return f"process {who['pid']} on {who['host']}, since {who['since']}"
        except (OSError, ValueError, KeyError, TypeError):  # it has not written its name yet
            return "a process that has just begun"

    def _write_manifest(
        self, settings: Mapping[str, Mapping[str, Any]], cells: Mapping[str, Any]
    ) -> None:
        before = self.manifest or {"settings": {}, "cells": {}}
        manifest = {
            "icl_mech_cells": FORMAT,
            "version": __version__,
            "settings": before["settings"] | dict(settings),
            "cells": before["cells"] | dict(cells),
        }
        text = json.dumps(manifest)
        write_whole(self.path / MANIFEST, lambda to: to.write_text(text, encoding="utf-8"))
        self.manifest = json.loads(text)

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with (self.path / JOURNAL).open("a", encoding="utf-8") as journal:
                journal.write(f"{json.dumps(line)}\n")
        except OSError as error:
            raise InputError(
                f"cannot write {self.path / JOURNAL} ({error.strerror or error}); expected room "
                "for it"
            ) from error

    def _end_last_line(self) -> None:
        """End an incomplete last line of a killed process, so that the next line is not lost."""
        file = self.path / JOURNAL
        if file.is_file() and file.stat().st_size:
            with file.open("rb+") as journal:
                journal.seek(-1, os.SEEK_END)
                if journal.read(1) != b"\n":
                    journal.write(b"\n")


def as_content(result: Result) -> bytes:
    """The content of a result's file, as `CellFolder.keep` takes it.

    Raises:
        InputError: where the folder for temporary files cannot be written.
    """
    handle, name = tempfile.mkstemp(suffix=".nc")
    os.close(handle)
    try:
        return result.save(name).read_bytes()
    finally:
        Path(name).unlink(missing_ok=True)


def file_name(cell: str) -> str:
    """A readable file name for a cell, without suffix; names that are too long are shortened.

    >>> file_name("org/name/scan/verbs/past/seed0")
    'org-name-scan-verbs-past-seed0'
    """
    plain = plain_name(cell)
    if len(plain) > 2 * _LONGEST:
        plain = f"{plain[:_LONGEST]}-{plain[-_LONGEST:]}"
    return plain


def told(error: BaseException) -> str:
    """An error in one line; other errors than icl-mech's are named by their class, too."""
    line = first_line(error)
    return line if isinstance(error, IclMechError) else f"{type(error).__name__}: {line}"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


def _is_entry(line: Any) -> bool:
    """Whether this is a valid line of a journal; a file that it names must be in the folder."""
    if not isinstance(line, dict):
        return False
    texts = ("cell", "made_of", *(("error",) if "error" in line else ("file", "sha256")))
    if not all(isinstance(line.get(name), str) for name in texts):
        return False
    return "error" in line or Path(line["file"]).name == line["file"]
