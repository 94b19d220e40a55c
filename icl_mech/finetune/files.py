"""The files of a run: adapters by step, and the file from which a killed run resumes.

Each is written whole or not at all.
"""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from icl_mech.errors import InputError, ModelError, first_line
from icl_mech.files import follow_umask
from icl_mech.model import TunedModel, is_adapter
from icl_mech.tasks.text import as_path
from icl_mech.training_runs import save_tensors, under

FORMAT = 1
LAST = "last.safetensors"
#: Folders in which adapters are written before they get their names.
_PARTIAL = re.compile(r"\.adapter-[a-z0-9_]{8}")


@dataclass(frozen=True)
class Last:
    """The state of a run.

    Attributes:
        step: updates done.
        run: settings, tasks, and the identity of the model (name, weight hash, trained maps).
        seconds: of training so far.
        tensors: adapters, optimiser, losses of every update, and the learning curve.
    """

    step: int
    run: Mapping[str, Any]
    seconds: float
    tensors: Mapping[str, Tensor]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose name starts with `prefix/`, without it."""
        return under(self.tensors, prefix)


def write_last(folder: Path, last: Last) -> None:
    """Write the file, whole or not at all.

    Raises:
        InputError: where it cannot be written.
    """
    header = {
        "format": FORMAT,
        "step": last.step,
        "run": dict(last.run),
        "seconds": last.seconds,
    }
    save_tensors(folder / LAST, header, last.tensors)


def read_last(folder: Path) -> Last | None:
    """Read the file; None where there is none.

    Raises:
        InputError: where the folder holds adapters without it.
        ModelError: where it is damaged.
    """
    path = folder / LAST
    if not path.exists():
        if any(folder.glob("step_*")):
            raise InputError(
                f"{folder}: holds adapters (step_*) but no {LAST}, from which training could go "
                "on; expected an empty folder, or that of a run"
            )
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {})["icl_mech"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if header["format"] != FORMAT:
            raise ValueError(f"format {header['format']}, not {FORMAT}")
        return Last(int(header["step"]), dict(header["run"]), float(header["seconds"]), tensors)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{path}: damaged ({type(error).__name__}: {first_line(error)}); expected what a "
            "finetuning run left there. Delete it, and the adapters beside it, to start anew"
        ) from error


def make_folder(folder: Path) -> None:
    """Make a run's folder, and remove adapters that a killed run left half-written in it.

    Raises:
        InputError: where it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if _PARTIAL.fullmatch(path.name) and path.is_dir():
                shutil.rmtree(path)
        os.rmdir(tempfile.mkdtemp(dir=folder, prefix=".adapter-"))
    except OSError as error:
        raise _unwritable(folder, error) from error


def write_adapter(folder: Path, step: int, tuned: TunedModel) -> Path:
    """Write an adapter's folder, whole or not at all.

    Raises:
        InputError: where it cannot be written.
    """
    path = adapter_path(folder, step)
    try:
        temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".adapter-"))
        try:
            tuned.save(temporary)
            follow_umask(temporary)
            if path.exists():  # from a run that was killed after it had written this adapter
                shutil.rmtree(path)
            temporary.rename(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from error
    return path


def _unwritable(path: Path, error: Exception) -> InputError:
    why = getattr(error, "strerror", None) or first_line(error)
    return InputError(
        f"cannot write {path} ({why}); expected a folder that exists or can be made, with write "
        "permission and room"
    )


def list_adapters(folder: str | Path) -> list[tuple[int, Path]]:
    """The adapters that `finetune` left in a folder: the number of updates and the folder of each.

    Raises:
        InputError: where there are none.

    Example:
        >>> list_adapters("no-such-folder")
        Traceback (most recent call last):
            ...
        icl_mech.errors.InputError: no-such-folder: no adapters (step_*); expected the folder ...
    """
    found: list[tuple[int, Path]] = sorted(
        (int(named[1]), path)
        for path in as_path("the folder of a finetuning", folder).expanduser().glob("step_*")
        if (named := re.fullmatch(r"step_(\d+)", path.name)) and is_adapter(path)
    )
    if not found:
        raise InputError(f"{folder}: no adapters (step_*); expected the folder of a finetuning run")
    return found


def adapter_path(folder: Path, step: int) -> Path:
    """The folder of the adapter after `step` updates.

    >>> adapter_path(Path("run"), 20).name
    'step_0000020'
    """
    return folder / f"step_{step:07d}"
