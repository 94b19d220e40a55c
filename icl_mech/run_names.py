"""Names of result files, from question, tasks, models and settings; and steps in model names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path, PurePath
from typing import Any
from zlib import crc32

#: Options that do not change what is measured, or that are in another part of the name.
_UNNAMED = {
    "task", "model", "adapter", "also", "device", "trust_remote_code", "engine", "out", "json",
    "no_progress", "folder", "plotlyjs", "formats", "revisions", "sources",
}  # fmt: skip
#: The most bytes of one part of a name; file systems allow 255 for the whole, with suffixes.
_LONGEST = 70
#: A training step in a name: step1000, step-1000, checkpoint-500, global_step143000, ckpt_10k.
_STEP = re.compile(
    r"(?<![a-z])(?:global[-_]?)?(?:steps?|checkpoints?|ckpt|iter)[-_=]?(\d+)([km]?)(?![a-z\d])",
    re.IGNORECASE,
)
_TIMES = {"": 1, "k": 1_000, "m": 1_000_000}


def run_name(options: Any, what: str) -> str:
    """The name, without suffix, of the files that a command writes.

    Args:
        options: the command's options, with `tasks` and `models`; `named` holds all models if the
            command takes several.
        what: the question.
    """
    named = [task_label(name) for name in options.tasks.task]
    one = (options.models.model, *getattr(options, "also", ()))
    models = [model_label(m) for m in getattr(options, "named", one)]
    if options.models.adapter is not None:
        models.append(model_label(str(options.models.adapter)))
    changed = [_as_text(k, v) for k, v in changed_settings(options)]
    parts = [
        what,
        *([_short("-".join(named), f"{len(named)}_tasks")] if named else []),
        _short("-".join(models), f"{len(models)}_models"),
        *([_short("-".join(changed), "settings")] if changed else []),
    ]
    return "-".join(parts)


def changed_settings(options: Any) -> Iterator[tuple[str, Any]]:
    """Name and value of the options that decide what is measured and differ from their defaults."""
    for field in fields(options):
        value = getattr(options, field.name)
        if is_dataclass(value):
            yield from changed_settings(value)
        elif field.name not in _UNNAMED and field.default is not MISSING and value != field.default:
            yield field.name, value


def task_label(name: str) -> str:
    """A task as part of a file's name; a task file gives its stem and a checksum of its content."""
    kind, _, path = name.rpartition("pos:")
    for file in (Path(path), Path(path).parent):  # a treebank's task is `pos:<file>/<task>`
        if os.path.isfile(file):
            member = f"-{Path(path).name}" if file != Path(path) else ""
            prefix = "pos-" if kind or name.startswith("pos:") else ""
            return plain_name(
                f"{prefix}{plain_name(file.stem)}-{_checksum(_content(file))}{member}"
            )
    return plain_name(name)


def model_label(name: str) -> str:
    """A model as part of a file's name; a local one gives its stem and a checksum of its path."""
    path = Path(name).expanduser()
    if os.path.exists(path):
        stem = path.stem if path.suffix == ".gguf" else path.resolve().name
        return plain_name(f"{stem}-{_checksum(str(path.resolve()).encode())}")
    return plain_name(name)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:  # reported later, when the task is read
        return b""


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    several = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return f"{name}_{'_'.join(map(str, several))}"


def _short(text: str, instead: str) -> str:
    """The text if it fits a file's name, otherwise `instead` with a checksum of the text."""
    plain = plain_name(text)
    if plain == text and len(text.encode()) <= _LONGEST:
        return text
    return f"{instead}-{_checksum(text.encode())}"


def plain_name(text: str) -> str:
    """A text with everything but letters, digits and harmless characters replaced by `-`."""
    return re.sub(r"[^\w.@-]+", "-", text).replace("@", "-").strip("-.") or "unnamed"


def _checksum(content: bytes) -> str:
    return f"{crc32(content):08x}"


def step_of(name: str | Path) -> int | None:
    """The training step in a model's name; None if there is none, or there are two different ones.

    If a hub name has a revision, the revision is read. Otherwise the last part of the path is read
    first, then its parent folders.

    Example:
        >>> names = "EleutherAI/pythia-70m@step3000", "allenai/OLMo@step1000-tokens4B"
        >>> [step_of(name) for name in (*names, "runs/checkpoint-500", "global_step143000")]
        [3000, 1000, 500, 143000]
        >>> step_of("runs/step_0000100/hf"), step_of("step10k"), step_of("gpt2@main")
        (100, 10000, None)
    """
    text = str(name)
    location, _, revision = text.partition("@")
    parts = [revision] if revision else list(reversed(PurePath(location).parts))
    for part in parts:
        said = {int(n) * _TIMES[times.lower()] for n, times in _STEP.findall(part)}
        if said:
            return said.pop() if len(said) == 1 else None
    return None
