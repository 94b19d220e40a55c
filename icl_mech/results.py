"""The base classes of results: labelled arrays, provenance, and a file that holds both."""

import errno
import importlib
import json
import math
import os
import tempfile
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import netCDF4
import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import InputError, choose
from icl_mech.files import follow_umask
from icl_mech.shown import Shown, precision_notes, with_height
from icl_mech.stats import MIN_CLUSTERS, repeated
from icl_mech.tasks.text import as_path

R = TypeVar("R", bound="TaskResult")
FORMAT = 1
#: The highest compression ratio of deflate, which netCDF uses (zlib's manual).
_DEFLATE = 1032
#: Characters of a file's name that its temporary file keeps.
_STEM = 40
#: A caveat reports ties for the top token from this share of read-outs on.
TIES_NOTED = 0.02
#: Figures call fewer different queries than this few.
FEW = 10
#: The most tasks with few queries that a figure names.
_NAMED = 3
#: The kinds of results that files hold, and the module that defines each.
ROOMS = {
    "AnswerScores": "icl_mech.answers.result",
    "Checkpoints": "icl_mech.checkpoints.result",
    "ConflictingTasks": "icl_mech.conflict.result",
    "ContextMasking": "icl_mech.masking.result",
    "Decoder": "icl_mech.decoder.result",
    "Emergence": "icl_mech.synthetic.emergence",
    "EmergenceOverSeeds": "icl_mech.synthetic.seeds",
    "Finetuning": "icl_mech.finetune.result",
    "FunctionVectors": "icl_mech.heads.vectors_result",
    "HeadAblation": "icl_mech.heads.ablation_result",
    "HeadAttribution": "icl_mech.heads.attribution_result",
    "KnowledgeConflict": "icl_mech.knowledge.result",
    "LabelScores": "icl_mech.classification.result",
    "LayerScan": "icl_mech.patch.scan_result",
    "LogitLens": "icl_mech.lens.result",
    "MeanPatching": "icl_mech.patch.means_result",
    "Patchscope": "icl_mech.patchscope.result",
    "PositionScan": "icl_mech.patch.positions_result",
    "ProgressiveGeneration": "icl_mech.progressive.result",
    "TaskDecodability": "icl_mech.decodability.result",
    "TaskMap": "icl_mech.localize.result",
    "TaskTable": "icl_mech.table.result",
    "TaskVectorFailures": "icl_mech.failures.result",
    "VectorComparison": "icl_mech.vector_methods.result",
    "VectorLens": "icl_mech.lens.vectors_result",
    "VectorTransfer": "icl_mech.transfer.result",
    "VectorVariability": "icl_mech.variability.result",
}


class Result(Shown):
    """Labelled arrays (`data`) and a record of model, settings and method (`provenance`).

    Subclasses add `full_summary`, `finding` and a figure (`_draw`). Defining a subclass makes it
    loadable by `load_result`.
    """

    _kinds: ClassVar[dict[str, type["Result"]]] = {}
    #: Arrays that a file of this kind must hold, each with axes that it must have.
    ARRAYS: ClassVar[Mapping[str, Sequence[str]]] = {}
    #: The columns of `full_summary` that `summary` keeps, if a run has them; empty: all of them.
    QUOTED: ClassVar[Sequence[str]] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Result._kinds[cls.__name__] = cls

    def __init__(self, data: xr.Dataset, provenance: dict[str, Any]) -> None:
        self.data = data
        self.provenance = provenance

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, in order; see `TaskResult`.

        Raises:
            InputError: if the result is not about tasks (`Emergence`).
        """
        raise InputError(
            f"a result of kind {type(self).__name__} has no tasks; it has: "
            f"{', '.join(map(str, self.data.coords))}"
        )

    def summary(self) -> pd.DataFrame:
        """The numbers to quote: the rows of `full_summary`, with its main columns only."""
        return self._quoted(self.full_summary())

    @abstractmethod
    def full_summary(self) -> pd.DataFrame:
        """The summary with every column; files and `--json` hold this one."""

    def _quoted(self, full: pd.DataFrame) -> pd.DataFrame:
        """The columns of a full summary that `summary` keeps."""
        return full[[name for name in self.QUOTED if name in full]] if self.QUOTED else full

    @abstractmethod
    def to_frame(self) -> pd.DataFrame:
        """Tidy per-prompt values: one row per observation."""

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each.

        These hold for every kind of result; subclasses add their own.
        """
        notes = precision_notes(self.provenance)
        if self.provenance.get("engine") == "plain":
            notes.append(
                "engine: a full forward pass for every edit, slower than shared prefixes "
                f"({self.provenance['engine_reason']})"
            )
        # Older files, and results of other kinds of models, have no counts of ties.
        readouts = self.provenance.get("readouts") or {"n": 0}
        if not readouts["n"] or readouts["tied"] / readouts["n"] < TIES_NOTED:
            return notes
        return [
            *notes,
            f"ties: in {readouts['tied'] / readouts['n']:.0%} of {readouts['n']} read-outs since "
            "the model was loaded several tokens are exactly as probable as the top one, as "
            f"happens in {self.provenance.get('dtype', 'half precision')}; the smallest id counts "
            "as the top token, as in greedy decoding",
        ]

    def headline(self) -> str:
        """What was measured, on which model: the line over the table."""
        return f"{type(self).__name__} on {self.provenance['model']}"

    def save(self, path: str | Path, digits: int | None = None) -> Path:
        """Write arrays and provenance to one netCDF file; a failure leaves no partial file.

        Args:
            path: the file to write.
            digits: significant digits of floating-point numbers that are kept, all by default.
                Fewer digits make a smaller file (arrays with infinities keep all digits).

        Raises:
            InputError: if `digits` is not 1 to 7, or the file cannot be written.
        """
        if digits is not None and not 1 <= digits <= 7:
            raise InputError(f"digits is {digits}; expected 1 to 7, or None for all")
        attributes = {
            "icl_mech_kind": type(self).__name__,
            "icl_mech_format": FORMAT,
            "provenance": json.dumps(self.provenance, default=_plain),
        }
        # Arrays computed from loaded ones keep their storage settings, such as lengths of texts.
        data = self.data.drop_encoding().assign_attrs(attributes)

        def write(temporary: Path) -> None:
            with _plainly_named(temporary) as name:
                try:
                    data.to_netcdf(name, engine="netcdf4", encoding=_encoding(data, digits))
                except RuntimeError as error:  # "HDF error", whatever the cause
                    _write_more(name)
                    raise OSError(str(error)) from error

        return write_whole(path, write)

    @classmethod
    def _load(cls, data: xr.Dataset, provenance: dict[str, Any]) -> "Result":
        own = ("icl_mech_kind", "icl_mech_format", "provenance")
        kept = {name: value for name, value in data.attrs.items() if name not in own}
        return cls(data.drop_attrs(deep=False).assign_attrs(kept), provenance)


class TaskResult(Result):
    """A result whose arrays have an axis `task`, and the query of every prompt (`query`)."""

    @property
    def tasks(self) -> list[str]:
        """The names of the tasks, in order."""
        return [str(name) for name in self.data["task"].values]

    def of(self, task: str) -> xr.Dataset:
        """One task's arrays.

        Raises:
            InputError: if there is no such task (the nearest name is suggested).
        """
        choose(task, self.tasks, "task")
        return self.data.sel(task=task)

    def _array(self, task: str, name: str) -> xr.DataArray:
        """One of a task's arrays; ten times quicker than `of`, which selects in all of them."""
        choose(task, self.tasks, "task")
        return self.data[name].sel(task=task)

    def queries(self, task: str) -> np.ndarray:
        """The query of each test prompt of a task; prompts that share one are not independent."""
        queries: np.ndarray = self._array(task, "query").values
        return queries

    def repeated_queries(self) -> list[str]:
        """A caveat for every task whose queries are repeated, or too few for an interval."""
        n_queries = self.data["n_queries"].values.tolist()
        return repeated(self.tasks, n_queries, self.data.sizes["prompt"])

    def alone(self: R, task: str) -> R:
        """The same measurements of one task only.

        Raises:
            InputError: if there is no such task (the nearest name is suggested).
        """
        choose(task, self.tasks, "task")
        return type(self)(self.data.sel(task=[task]), self.provenance)

    def plot(
        self, *args: Any, height: int | None = None, task: str | None = None, **options: Any
    ) -> go.Figure:
        """The result as a plotly figure (returned, never shown).

        Args:
            args, options: options of the kind of figure.
            height: of the whole figure, in pixels; by default as much as its contents need.
            task: show only this task; by default all.

        Raises:
            InputError: if the height leaves no room for panels, or there is no such task (the
                nearest name is suggested).
        """
        if task is None:
            return with_height(self._draw(*args, **options), height)
        named = choose(task, self.tasks, "task")
        return with_height(self._draw_task(named, *args, **options), height)

    def _draw_task(self, task: str, *args: Any, **options: Any) -> go.Figure:
        """The figure of one task; kinds of results that compare tasks override it."""
        return self.alone(task)._draw(*args, **options)

    def few(self) -> str:
        asked = {task: self.queries(task).tolist() for task in self.tasks}
        return few_queries({t: (len(set(q)), len(q)) for t, q in asked.items()})


def few_queries(counts: Mapping[str, tuple[int, int]]) -> str:
    """A short line on how few queries affect the intervals; empty if no task has few.

    Args:
        counts: for every task, the number of different queries and the number of prompts.

    >>> few_queries({"to_upper": (10, 50), "antonyms": (50, 50)})
    'few queries: to_upper 10 in 50 prompts; intervals are over queries'
    >>> few_queries({"to_upper": (3, 3)})
    'few queries: to_upper 3; fewer than 4 give no interval'
    >>> few_queries({"to_upper": (50, 50)})
    ''
    """
    low = {t: (k, n) for t, (k, n) in counts.items() if k < max(n, FEW)}
    if not low:
        return ""
    least, most = min(k for k, _ in low.values()), max(n for _, n in low.values())
    several = f" in {most} prompts" if any(k < n for k, n in low.values()) else ""
    if len(low) == len(counts) > 1 and len({k for k, _ in low.values()}) == 1:
        who = f"{least} per task"
    elif len(low) <= _NAMED:
        who = ", ".join(f"{task} {k}" for task, (k, _) in low.items())
    else:
        who = f"{len(low)} of {len(counts)} tasks, {least} at least"
    does = (
        f"fewer than {MIN_CLUSTERS} give no interval"
        if least < MIN_CLUSTERS
        else "intervals are over queries"
        if several
        else "intervals are wide"
    )
    return f"few queries: {who}{several}; {does}"


def few_tasks(n: int) -> str:
    """A short line on how few tasks affect intervals over tasks; empty if they do not.

    >>> few_tasks(2), few_tasks(1)
    ('2 tasks; fewer than 4 give no interval over tasks', '')
    """
    return f"{n} tasks; fewer than {MIN_CLUSTERS} give no interval over tasks" * (
        1 < n < MIN_CLUSTERS
    )


def load_result(path: str | Path) -> Result:
    """Read a file that `Result.save` wrote, as an object of its original class.

    Everything is checked before an array is read: the file must be netCDF, of a kind and format
    that this version knows, and have provenance and the arrays of its kind. The arrays must not be
    larger than a file of its size can hold.

    Raises:
        InputError: if there is no such file, it cannot be read, or it is not a result of icl-mech.

    Example:
        >>> type(icl_mech.load_result("analyses/data/small-seed0.nc")).__name__
        'Emergence'
    """
    path = as_path("the name of a result", path)
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise InputError(f"{path}: no such file; expected a saved result (.nc)")
    try:
        with _plainly_named(path) as name, netCDF4.Dataset(name) as file:
            cls, provenance = _checked(path, file, path.stat().st_size)
            data = xr.load_dataset(name, engine="netcdf4")
    except InputError:
        raise
    except Exception as error:  # damaged files cause many kinds of errors in netCDF and HDF5
        raise InputError(
            f"{path}: not a result of icl-mech ({type(error).__name__}); expected a file written "
            "by .save()"
        ) from error
    return cls._load(data, provenance)


@contextmanager
def _plainly_named(path: Path) -> Iterator[Path]:
    """A name of the file that netCDF can open; it treats every backslash as a separator."""
    if os.sep == "\\" or "\\" not in str(path.absolute()):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "result.nc"
        link.symlink_to(path.absolute())
        yield link


def _checked(
    path: Path, file: netCDF4.Dataset, n_bytes: int
) -> tuple[type[Result], dict[str, Any]]:
    """The class and the provenance of a file, checked before its arrays are read."""
    kind, version = str(file.getncattr("icl_mech_kind")), int(file.getncattr("icl_mech_format"))
    provenance = json.loads(file.getncattr("provenance"))
    if kind in ROOMS:
        importlib.import_module(ROOMS[kind])  # defines the class, which registers it
    if kind not in Result._kinds or version != FORMAT:
        raise InputError(
            f"{path}: a {kind!r} result in format {version}; this version reads "
            f"{', '.join(sorted({*ROOMS, *Result._kinds}))} in format {FORMAT}"
        )
    if not isinstance(provenance, dict):
        raise InputError(
            f"{path}: provenance is {provenance!r}; expected an object, as .save() writes it"
        )
    cls = Result._kinds[kind]
    for name, axes in cls.ARRAYS.items():
        if name not in file.variables or not set(axes) <= set(file.variables[name].dimensions):
            over = f" over {', '.join(axes)}" if axes else ""
            raise InputError(f"{path}: no array {name!r}{over}, which a {kind} has")
    if not file.variables:
        raise InputError(f"{path}: holds no arrays; expected those of a {kind}")
    wanted = sum(math.prod(v.shape) * _item_size(v) for v in file.variables.values())
    if wanted > n_bytes * _DEFLATE:
        raise InputError(
            f"{path}: asks for {wanted / 2**30:.1f} GiB of memory, more than a file of {n_bytes} "
            "bytes can hold; expected a file written by .save()"
        )
    return cls, provenance


def _item_size(variable: netCDF4.Variable) -> int:
    """Bytes of an element; a text of variable length counts as its pointer."""
    return variable.dtype.itemsize if isinstance(variable.dtype, np.dtype) else 8


def _write_more(path: Path) -> None:
    """Append to a file that could not be written, to get the system's own error, if any."""
    with path.open("ab") as file:
        file.write(bytes(2**20))
        file.flush()
        os.fsync(file.fileno())


def _plain(value: object) -> Any:
    """Convert a numpy number for JSON; seeds and counts often come from arrays."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _encoding(data: xr.Dataset, digits: int | None) -> dict[Any, dict[str, Any]]:
    """Compression settings of numbers; without them a file is two to three times as large."""
    encoding: dict[Any, dict[str, Any]] = {}
    for name, array in data.variables.items():
        if array.dtype.kind in "biuf" and array.ndim:
            encoding[name] = {"zlib": True, "complevel": 4}
            # netCDF's rounding turns infinities into 0.
            rounds = array.dtype.kind == "f" and not np.isinf(array.values).any()
            if digits is not None and rounds:
                encoding[name] |= {
                    "significant_digits": digits,
                    "quantize_mode": "GranularBitRound",
                }
    return encoding


def with_ends(*names: str) -> tuple[str, ...]:
    """Names of the columns of numbers and of their intervals' ends, see `Estimate.columns`.

    >>> with_ends("td")
    ('td', 'td_low', 'td_high')
    """
    return tuple(f"{name}{end}" for name in names for end in ("", "_low", "_high"))


def over_tasks(parts: Sequence[xr.Dataset], names: Sequence[str]) -> xr.Dataset:
    """Join the arrays of several tasks along a first axis, `task`."""
    return xr.concat(parts, dim=xr.DataArray(list(names), dims="task", name="task"))


def write_whole(path: str | Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill a temporary file beside `path`, then rename it, so no partial file is left.

    Raises:
        InputError: if `path` is not a path, its name is too long, or the folder cannot be made or
            written.
    """
    path = as_path("the name of a file to write", path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        refuse_long(path)
        # Only a part of the name is kept, so that long names do not become too long.
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.stem[:_STEM]}-", suffix=path.suffix[-_STEM:]
        )
        os.close(handle)
        temporary = Path(name)
        try:
            write(temporary)
            follow_umask(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        expected = "a folder that exists or can be made, with write permission"
        if error.errno == errno.ENAMETOOLONG:
            expected = "a shorter name (most systems take 255 bytes, and 4,096 for a whole path)"
        raise InputError(
            f"cannot write {path} ({error.strerror or error}); expected {expected}"
        ) from error
    return path


def refuse_long(path: Path) -> None:
    """Refuse a name that the system does not allow; the file need not exist.

    Raises:
        OSError: if no file can have the name.
    """
    with suppress(FileNotFoundError):
        path.lstat()
