"""What a worker does: load one model once, and measure cells on it."""

import os
import socket
import sys
import time
from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_mech import __version__
from icl_mech.sweep.folder import as_content, told
from icl_mech.sweep.grid import Cell
from icl_mech.sweep.models import ModelEntry

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result

#: What a journal holds of a model, from the provenance of its results.
_ABOUT = ("weights_sha256", "architecture", "engine", "dtype", "device")


@dataclass(frozen=True)
class Outcome:
    """What became of a cell.

    Attributes:
        content: the file of its result; None where there is none.
        facts: for the journal: seconds, memory, and what the model is.
        error: why there is no result, in one line.
        of_model: whether the model could not be loaded, which holds for all of its cells.
        fatal: whether no other cell can work here either.
        raised: the error itself, where it was raised in this process.
    """

    content: bytes | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    of_model: bool = False
    fatal: bool = False
    raised: Exception | None = None


class Bench:
    """One model, loaded when the first cell comes, and the cells that are measured on it.

    Args:
        entry: the model.
        driver: the version of icl-mech that asks.
        threads: for torch; None leaves them as they are.
    """

    def __init__(self, entry: ModelEntry, driver: str, threads: int | None = None) -> None:
        self._entry, self._driver = entry, driver
        self._threads = threads
        self._model: HookedModel | None = None
        self._about: dict[str, Any] = {}
        self._kept: dict[Hashable, Any] = {}

    def attempt(self, cell: Cell) -> Outcome:
        """Measure a cell; whatever goes wrong is told and not raised."""
        if self._driver != __version__:
            return Outcome(
                error=f"the worker on {socket.gethostname()} has icl-mech {__version__}, "
                f"the sweep {self._driver}; expected the same version everywhere",
                fatal=True,
            )
        try:
            model = self._loaded()
        except Exception as error:  # whatever libraries raise
            said = f"the model cannot be loaded: {told(error)}"
            return Outcome(error=said, of_model=True, raised=error)
        begun = time.perf_counter()
        try:
            content = as_content(measured(model, cell, self._kept))
        except Exception as error:
            return Outcome(error=told(error), raised=error)
        facts = {
            "seconds": round(time.perf_counter() - begun, 3),
            "memory": peak_memory(model),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            **self._about,
        }
        return Outcome(content, facts)

    def told(self, cell: Cell) -> Outcome:
        """As `attempt`, for another process: errors of libraries may not travel."""
        return replace(self.attempt(cell), raised=None)

    def _loaded(self) -> "HookedModel":
        if self._model is None:
            import torch

            if self._threads is not None:
                torch.set_num_threads(self._threads)
            begun = time.perf_counter()
            self._model = model = self._entry.load()
            provenance = model.provenance()
            self._about = {
                **{name: provenance[name] for name in _ABOUT},
                "layers": model.n_layers,
                "weights": sum(p.numel() for p in model.bridge.parameters()),
                "load_seconds": round(time.perf_counter() - begun, 3),
            }
        return self._model


def measured(model: "HookedModel", cell: Cell, kept: dict[Hashable, Any] | None = None) -> "Result":
    """The result of a cell; its provenance says which cell it is.

    Args:
        model: of the cell.
        cell: what is measured.
        kept: what earlier cells of the model have formed, and this one may add to.

    Raises:
        InputError: where the model cannot be asked this.
        ModelError: where the model returns numbers that are not finite.
    """
    plan = cell.asked.plan(list(cell.subject.tasks))
    measure = cell.asked.of.get("measure")
    shared = {"kept": kept} if cell.asked.of.keeps else {}
    result: Result = measure(model, plan, False, **cell.asked.measured, **shared)
    result.provenance["cell"] = {**cell.recorded(), "made_of": cell.made_of}
    return result


def peak_memory(model: Any) -> int:
    """The most memory in use so far, in bytes: of the model's GPUs, or else of this process."""
    import torch

    if torch.cuda.is_available() and "cuda" in str(model.provenance()["device"]):
        return sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's is that of the parent in the beginning
        lines = status.read_text().splitlines()
        high = [line for line in lines if line.startswith("VmHWM:")]
        if high:
            return int(high[0].split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
