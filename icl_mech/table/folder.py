"""A folder of finished parts: a long run that was interrupted goes on where it stopped."""

import hashlib
import json
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from icl_mech.errors import InputError
from icl_mech.results import Result, TaskResult, load_result, write_whole
from icl_mech.tasks import Task

MANIFEST = "manifest.json"
LOCK = ".manifest.lock"
FORMAT = 2
#: The keys of what the manifest says of every finished part.
_ENTRY = {"file", "sha256", "made_of_sha256"}


class DamagedFileWarning(UserWarning):
    """The file of a finished part is gone or was changed; the part is run again."""


@dataclass(frozen=True)
class Part:
    """What is finished and kept as a whole: a task of one model, or a checkpoint with all tasks.

    Attributes:
        name: tells it apart from the others of a run.
        tasks: those of its result.
        made_of: tells it apart from others of the same name, as a sha256 does.
        kind: what it is, and what `made_of` tells of, for messages.
    """

    name: str
    tasks: list[str]
    made_of: str
    kind: tuple[str, str]

    @staticmethod
    def of(part: "Task | Part") -> "Part":
        """A task as a part."""
        if isinstance(part, Part):
            return part
        return Part(part.name, [part.name], hash_pairs(part), ("task", "pairs"))


class RunFolder:
    """One result file per finished part, and a manifest of what they were made with.

    A part counts as finished only if the manifest holds the sha256 of its file. A part whose file
    an interrupt, a full disk or another program damaged is run again. Several runs may share a
    folder at the same time: each adds to the manifest the parts that it finished, and keeps those
    of the others.

    Args:
        path: of the folder, which is made if it is missing.
        settings: everything that decides the numbers, the model included.
        provenance: of the first run; it is noted, and not compared with that of later runs.

    Raises:
        InputError: where the folder was made with other settings (named), or cannot be written.
    """

    def __init__(
        self, path: str | Path, settings: Mapping[str, Any], provenance: Mapping[str, Any]
    ) -> None:
        self.path = Path(path)
        self._manifest: dict[str, Any] = {
            "icl_mech_runs": FORMAT,
            "settings": dict(settings),
            "first": dict(provenance),
            "parts": {},
        }
        check_folder(path, settings)  # before a folder of other settings is written to
        with self._locked():
            self._write()

    @property
    def _parts(self) -> dict[str, dict[str, str]]:
        """The manifest's entry for every finished part, by name."""
        parts: dict[str, dict[str, str]] = self._manifest["parts"]
        return parts

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other runs out, and read the manifest again, which they may have added to."""
        with ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(FileLock(self.path / LOCK))
            except OSError as error:
                raise InputError(
                    f"cannot write {self.path} ({error.strerror or error}); expected a folder that "
                    "exists or can be made, with write permission"
                ) from error
            self._manifest = check_folder(self.path, self._manifest["settings"]) or self._manifest
            yield

    def finished(self, part: Task | Part) -> Result | None:
        """The result of a finished part; None where it is not finished or its file was changed.

        Raises:
            InputError: where the folder knows a part of this name that is made of something else.
        """
        part = Part.of(part)
        known = self._parts.get(part.name)
        if known is None:
            return None
        if known["made_of_sha256"] != part.made_of:
            what, made_of = part.kind
            raise InputError(
                f"{self.path}: holds a {what} {part.name!r} with other {made_of}; expected the "
                "same, or another folder"
            )
        file = self.path / known["file"]
        try:
            if hashlib.sha256(file.read_bytes()).hexdigest() == known["sha256"]:
                found = load_result(file)
                if isinstance(found, TaskResult) and found.tasks == part.tasks:
                    return found
        except (OSError, InputError):
            pass
        warnings.warn(
            f"{file}: gone, or not as it was written; {part.name} is run again",
            DamagedFileWarning,
            stacklevel=2,
        )
        return None

    def keep(self, part: Task | Part, result: Result) -> None:
        """Write the result of a finished part, then its entry in the manifest.

        Raises:
            InputError: where the folder cannot be written, or its manifest was changed to that of
                other settings since this run began.
        """
        part = Part.of(part)
        with self._locked():
            file = result.save(self.path / _file_name(part.name))
            self._parts[part.name] = {
                "file": file.name,
                "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                "made_of_sha256": part.made_of,
            }
            self._write()

    def _write(self) -> None:
        text = json.dumps(self._manifest, indent=1)
        write_whole(self.path / MANIFEST, lambda to: to.write_text(text, encoding="utf-8"))


def check_folder(path: str | Path, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """The folder's manifest, if it has one, compared with some or all settings of a run.

    Raises:
        InputError: where it is damaged, or was written with other settings (the first is named).
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        theirs, parts = manifest["settings"], manifest["parts"]
        if manifest["icl_mech_runs"] != FORMAT or not isinstance(theirs, dict):
            raise ValueError("another format")
        if not all(_is_entry(entry) for entry in parts.values()):
            raise ValueError("another format")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{file}: not a manifest of icl-mech ({type(error).__name__}); expected one written "
            "by this version, or another folder"
        ) from error
    for name, ours in json.loads(json.dumps(settings)).items():
        if theirs.get(name) != ours:
            raise InputError(
                f"{path}: was made with {name} {theirs.get(name)!r}, this run has {ours!r}; "
                "expected the same settings, or another folder"
            )
    return dict(manifest)


def _is_entry(entry: Any) -> bool:
    """Whether this is an entry of a manifest: texts, and the name of a file in the folder."""
    texts = isinstance(entry, dict) and all(isinstance(entry.get(name), str) for name in _ENTRY)
    return texts and Path(entry["file"]).name == entry["file"]


def hash_pairs(task: Task) -> str:
    """The sha256 of a task's inputs and answers."""
    pairs = [[pair.x, *pair.answers] for pair in task.pairs]
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _file_name(part: str) -> str:
    """A part's file: of its name if that is plain, else with a hash that tells it apart."""
    plain = re.sub(r"[^a-z0-9_-]", "_", part)
    if plain != part:
        plain = f"{plain[:80]}-{hashlib.sha256(part.encode()).hexdigest()[:12]}"
    return f"{plain}.nc"
