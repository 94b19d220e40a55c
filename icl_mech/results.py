"""What every result shares: labelled arrays, provenance, and a file that holds both."""

import json
import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

import icl_mech
from icl_mech.errors import InputError, choose
from icl_mech.tasks.text import check_text

FORMAT = 1


class Result(ABC):
    """Labelled arrays (`data`) and how they came to be (`provenance`).

    Subclasses add `summary` and `plot`; defining one makes it loadable by `load_result`.
    """

    _kinds: ClassVar[dict[str, type["Result"]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Result._kinds[cls.__name__] = cls

    def __init__(self, data: xr.Dataset, provenance: dict[str, Any]) -> None:
        self.data = data
        self.provenance = provenance

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, in order.

        Raises:
            InputError: where the result is not about tasks (`Emergence`).
        """
        if "task" not in self.data.variables:
            raise InputError(
                f"a result of kind {type(self).__name__} has no tasks; it has: "
                f"{', '.join(map(str, self.data.coords))}"
            )
        return [str(name) for name in self.data["task"].values]

    @abstractmethod
    def summary(self) -> pd.DataFrame:
        """The numbers that one would quote, a row per task."""

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """Tidy per-prompt values: one row per observation."""

    @abstractmethod
    def plot(self) -> go.Figure:
        """The result as a plotly figure (returned, never shown)."""

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        return []

    def headline(self) -> str:
        """What was measured, on which model: the line over the table."""
        return f"{type(self).__name__} on {self.provenance['model']}"

    def __repr__(self) -> str:
        return f"{self.headline()}\n{self.table().to_string(max_colwidth=None)}"

    def _repr_html_(self) -> str:
        return f"<p>{escape(self.headline())}</p>{self.table().to_html(escape=True)}"

    def of(self, task: str) -> xr.Dataset:
        """One task's arrays.

        Raises:
            InputError: where there is no such task, with the nearest.
        """
        choose(task, self.tasks, "task")
        return self.data.sel(task=task)

    def save(self, path: str | Path, digits: int | None = None) -> Path:
        """Write arrays and provenance to one netCDF file, whole or not at all.

        Args:
            path: of the file.
            digits: significant digits of floating-point numbers that are kept: fewer make a
                smaller file (arrays with infinities keep all). All by default.

        Raises:
            InputError: where `digits` is not 1 to 7, or the file cannot be written.
        """
        if digits is not None and not 1 <= digits <= 7:
            raise InputError(f"digits is {digits}; expected 1 to 7, or None for all")
        attributes = {
            "icl_mech_kind": type(self).__name__,
            "icl_mech_format": FORMAT,
            "provenance": json.dumps(self.provenance, default=_plain),
        }
        data = self.data.assign_attrs(attributes)

        def write(temporary: Path) -> None:
            try:
                data.to_netcdf(temporary, engine="netcdf4", encoding=_encoding(data, digits))
            except RuntimeError as error:  # what netCDF makes of a full disk
                raise OSError(str(error)) from error

        return write_whole(path, write)

    @classmethod
    def _load(cls, data: xr.Dataset) -> "Result":
        provenance = json.loads(data.attrs["provenance"])
        own = ("icl_mech_kind", "icl_mech_format", "provenance")
        kept = {name: value for name, value in data.attrs.items() if name not in own}
        return cls(data.drop_attrs(deep=False).assign_attrs(kept), provenance)


def load_result(path: str | Path) -> Result:
    """Read back what `Result.save` wrote, as the class it was.

    Raises:
        InputError: where there is no such file, or it was not written by icl-mech.
    """
    path = Path(path)
    check_text("the name of a result", str(path))
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise InputError(f"{path}: no such file; expected a saved result (.nc)")
    try:
        data = xr.load_dataset(path, engine="netcdf4")
        json.loads(data.attrs["provenance"])
        kind, version = str(data.attrs["icl_mech_kind"]), int(data.attrs["icl_mech_format"])
    except (OSError, KeyError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: not a result of icl-mech ({type(error).__name__}); expected a file written "
            "by .save()"
        ) from error
    if kind in icl_mech.__all__:
        getattr(icl_mech, kind)  # names are loaded on first use: defining the class registers it
    if kind not in Result._kinds or version != FORMAT:
        raise InputError(
            f"{path}: a {kind!r} result in format {version}; this version reads "
            f"{', '.join(sorted(Result._kinds))} in format {FORMAT}"
        )
    return Result._kinds[kind]._load(data)


def _plain(value: object) -> Any:
    """A numpy number as JSON knows it: seeds and counts often come out of arrays."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _encoding(data: xr.Dataset, digits: int | None) -> dict[Any, dict[str, Any]]:
    """How numbers are compressed; a file without them is two to three times as large."""
    encoding: dict[Any, dict[str, Any]] = {}
    for name, array in data.variables.items():
        if array.dtype.kind in "biuf" and array.ndim:
            encoding[name] = {"zlib": True, "complevel": 4}
            # netCDF's rounding makes 0 of an infinity.
            rounds = array.dtype.kind == "f" and not np.isinf(array.values).any()
            if digits is not None and rounds:
                encoding[name] |= {
                    "significant_digits": digits,
                    "quantize_mode": "GranularBitRound",
                }
    return encoding


def over_tasks(parts: Sequence[xr.Dataset], names: Sequence[str]) -> xr.Dataset:
    """The arrays of several tasks along a first axis, `task`."""
    return xr.concat(parts, dim=xr.DataArray(list(names), dims="task", name="task"))


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it: never a half-written file.

    Raises:
        InputError: where the folder cannot be made or written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix
        )
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); expected a folder that exists or "
            "can be made, with write permission"
        ) from error
    return path
