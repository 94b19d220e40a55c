"""The work of a worker: it loads one model once, and measures cells on it."""

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

#: The facts about a model in the journal, from the provenance of its results.
_ABOUT = ("weights_sha256", "architecture", "engine", "dtype", "device")


@dataclass(frozen=True)
class Outcome:
    """The outcome of a cell.

    Attributes:
        content: the content of the result's file; None if there is no result.
        facts: for the journal: seconds, memory, and facts about the model.
        error: why there is no result, in one line.
        of_model: whether the error is the model's, such as one that cannot be loaded, so that its
            other cells would fail too.
        fatal: whether no cell at all can run here.
        raised: the error itself, if it was raised in this process.
    """

    content: bytes | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""
    of_model: bool = False
    fatal: bool = False
    raised: Exception | None = None


class Bench:
    """Measures cells on one model, which it loads for the first cell.

    Args:
        entry: the model.
        driver: the version of icl-mech in the process that runs the sweep.
        threads: the number of torch's threads; None does not change it.
    """

    def __init__(self, entry: ModelEntry, driver: str, threads: int | None = None) -> None:
        self._entry, self._driver = entry, driver
        self._threads = threads
        self._model: HookedModel | None = None
        self._about: dict[str, Any] = {}
        self._kept: dict[Hashable, Any] = {}

    def attempt(self, cell: Cell) -> Outcome:
        """Measure a cell; errors are returned in the outcome, not raised."""
        if self._driver != __version__:
            return Outcome(
                error=f"the worker on {socket.gethostname()} has icl-mech {__version__}, "
                f"the sweep {self._driver}; expected the same version everywhere",
                fatal=True,
            )
        try:
            model = self._loaded()
        except Exception as error:  # libraries raise many kinds of errors
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
        """As `attempt`, for another process: the error is left out, as it may not be picklable."""
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
    """Measure a cell; the result's provenance names the cell.

    Args:
        model: of the cell.
        cell: what to measure.
        kept: the vectors that the model's earlier cells formed; this cell may add to them.

    Raises:
        InputError: where the measure does not work with this model.
        ModelError: where the model returns numbers that are not finite.
    """
    plan = cell.asked.plan(list(cell.subject.tasks))
    measure = cell.asked.of.get("measure")
    shared = {"kept": kept} if cell.asked.of.keeps else {}
    result: Result = measure(model, plan, False, **cell.asked.measured, **shared)
    result.provenance["cell"] = {**cell.recorded(), "made_of": cell.made_of}
    return result


def peak_memory(model: Any) -> int:
    """The peak memory so far, in bytes: of all GPUs if the model is on any, else of the process."""
    import torch

    if torch.cuda.is_available() and "cuda" in str(model.provenance()["device"]):
        return sum(torch.cuda.max_memory_allocated(i) for i in range(torch.cuda.device_count()))
    status = Path("/proc/self/status")
    if status.exists():  # at first, getrusage gives the parent's peak
        lines = status.read_text().splitlines()
        high = [line for line in lines if line.startswith("VmHWM:")]
        if high:
            return int(high[0].split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)
