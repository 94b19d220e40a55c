"""The places where cells run: this process, other processes on this machine, or a Ray cluster.

A place makes workers. A worker takes cells and returns futures. The driver uses only these methods.
"""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context, parent_process
from multiprocessing.context import BaseContext
from threading import Thread
from typing import Any, Protocol, runtime_checkable

from icl_mech import __version__
from icl_mech.errors import InputError, first_line
from icl_mech.sweep.grid import Cell
from icl_mech.sweep.models import ModelEntry
from icl_mech.sweep.work import Bench, Outcome

#: Seconds to wait for an answer of a port, and of the cluster behind it.
PATIENCE, LONGER = 5.0, 20.0
#: A program that joins a cluster and leaves it again.
_JOIN = "import sys, ray; ray.init(sys.argv[1], logging_level='ERROR', log_to_driver=False)"


@runtime_checkable
class Worker(Protocol):
    """Measures cells on one model, one after the other."""

    def submit(self, cell: Cell) -> "Future[Outcome]":
        """Measure a cell; the future fails where the worker dies."""

    def close(self) -> None:
        """End the worker, and free its memory."""


@runtime_checkable
class Place(Protocol):
    """Makes workers.

    Attributes:
        n: the most workers at once.
    """

    n: int

    def worker(self, entry: ModelEntry) -> Worker:
        """Make a worker for a model; the worker loads it for its first cell."""

    def close(self) -> None:
        """Leave the place."""


class Here:
    """Runs cells in this process, one at a time."""

    n = 1

    def worker(self, entry: ModelEntry) -> Worker:
        return _Here(entry)

    def close(self) -> None:
        pass


class _Here:
    def __init__(self, entry: ModelEntry) -> None:
        self._bench: Bench | None = Bench(entry, __version__)

    def submit(self, cell: Cell) -> "Future[Outcome]":
        assert self._bench is not None
        done: Future[Outcome] = Future()
        done.set_result(self._bench.attempt(cell))
        return done

    def close(self) -> None:
        import gc

        import torch

        self._bench = None
        gc.collect()  # parts of a model refer to one another
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class Processes:
    """Runs cells in several processes of this machine, each with a share of its cores.

    The processes import the script that starts them, so it needs `if __name__ == "__main__":`.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._threads = max(1, _cores() // n)

    def worker(self, entry: ModelEntry) -> Worker:
        return _Process(entry, self._threads)

    def close(self) -> None:
        pass


class _Process:
    def __init__(self, entry: ModelEntry, threads: int) -> None:
        arguments = entry, __version__, threads
        self._pool = ProcessPoolExecutor(1, _context(), _begin, arguments)
        self._last: Future[Outcome] | None = None

    def submit(self, cell: Cell) -> "Future[Outcome]":
        self._last = self._pool.submit(_attempt, cell)
        return self._last

    def close(self) -> None:
        if self._last is not None and not self._last.done():  # in the middle of a cell
            for process in list(self._pool._processes.values()):
                process.kill()
        self._pool.shutdown(cancel_futures=True)


def _context() -> BaseContext:
    """How processes start: on Linux as copies of one that has imported the needed modules."""
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(["icl_mech.sweep.work", "icl_mech.model.loading"])
    return context


#: The bench of a worker's process.
_bench: Bench | None = None


def _begin(entry: ModelEntry, driver: str, threads: int) -> None:
    """Set up a new worker process, which ends when the process that started it ends."""
    global _bench
    _bench = Bench(entry, driver, threads)
    parent = parent_process()
    assert parent is not None

    def end() -> None:
        parent.join()
        os._exit(1)

    Thread(target=end, daemon=True).start()


def _attempt(cell: Cell) -> Outcome:
    assert _bench is not None
    return _bench.told(cell)


class OnRay:
    """Actors of a Ray cluster, each with a model of its own.

    Args:
        address: `"local"` (a new cluster on this machine), `"auto"` (one that already runs here),
            or `host:port`.
        n: actors at once; by default as many as the GPUs allow, or one on each machine with enough
            memory.
        gpus: GPUs of each actor.
        memory: bytes that each actor reserves.

    Raises:
        InputError: where Ray is not installed, the cluster cannot be reached, or it has no room
            for so many actors.
    """

    def __init__(
        self, address: str, n: int | None = None, gpus: float = 0, memory: int | None = None
    ) -> None:
        try:
            import ray
        except ImportError:
            raise InputError(
                "Ray is not installed; expected it for ray=: pip install 'icl-mech[ray]'"
            ) from None
        self._ray, self._begun = ray, not ray.is_initialized()
        if self._begun:
            _connect(ray, address)
        try:
            machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            self.n, self._cores = share_out(machines, n, gpus, memory or 0)
        except InputError:
            self.close()
            raise
        options = {"num_gpus": gpus, "memory": memory, "max_restarts": 0}
        self._actor = ray.remote(Bench).options(num_cpus=self._cores, **options)

    def worker(self, entry: ModelEntry) -> Worker:
        actor = self._actor.remote(entry, __version__, self._cores)
        return _Actor(actor, self._ray.kill)

    def close(self) -> None:
        if self._begun:
            self._ray.shutdown()


class _Actor:
    def __init__(self, actor: Any, kill: Callable[[Any], None]) -> None:
        self._actor, self._kill = actor, kill

    def submit(self, cell: Cell) -> "Future[Outcome]":
        future: Future[Outcome] = self._actor.told.remote(cell).future()
        return future

    def close(self) -> None:
        with suppress(Exception):  # it may have died
            self._kill(self._actor)


def _connect(ray: Any, address: str) -> None:
    """Join or start a cluster.

    Raises:
        InputError: where it cannot be reached; this takes seconds, not minutes.
    """
    try:
        if address not in ("auto", "local"):
            _knock(address)
            _try_to_join(address)
        ray.init(
            address=address,
            logging_level="ERROR",
            log_to_driver=False,
            **({"include_dashboard": False} if address == "local" else {}),
        )
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        raise InputError(
            f"the Ray cluster {address!r} cannot be reached ({type(error).__name__}: "
            f"{first_line(error)}); expected 'local', 'auto' where one runs on this machine, or "
            "the address of one (host:port)"
        ) from None


def _knock(address: str) -> None:
    """Check that an address accepts connections; Ray itself would wait for minutes.

    Raises:
        OSError: where it does not.
        ValueError: where it is not an address.
    """
    import socket

    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("no host:port")
    socket.create_connection((host, int(port)), timeout=PATIENCE).close()


def _try_to_join(address: str) -> None:
    """Join a cluster in another process, which can be stopped if the cluster does not answer.

    If something other than Ray listens there, Ray retries many times and then ends the process.

    Raises:
        OSError: where it takes too long.
        RuntimeError: where it does not work.
    """
    import subprocess

    words = [sys.executable, "-c", _JOIN, address]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=LONGER)
    except subprocess.TimeoutExpired:
        raise OSError(f"no cluster answers there within {LONGER:.0f} seconds") from None
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it ended at once"])[-1])


def share_out(
    machines: Sequence[Mapping[str, float]], n: int | None, gpus: float, memory: int
) -> tuple[int, int]:
    """The number of actors that run at once, and the cores of each, so that all of them fit.

    Args:
        machines: of a cluster, each with Ray's `CPU`, `GPU` and `memory` (bytes).
        n: the number of actors; None for as many as the GPUs allow, or one on each machine.
        gpus, memory: of each actor, which runs on one machine.

    Raises:
        InputError: where there is no room for them.

    Example:
        >>> share_out([{"CPU": 4.0}, {"CPU": 16.0}], 3, gpus=0, memory=0)
        (3, 5)
        >>> share_out([{"CPU": 16.0, "GPU": 4.0}], None, gpus=1, memory=0)
        (4, 4)
    """

    def room(machine: Mapping[str, float], cores: int) -> int:
        wanted = {"CPU": cores, "GPU": gpus, "memory": memory}
        return min(int(machine.get(name, 0) // of) for name, of in wanted.items() if of)

    most = sum(room(machine, 1) for machine in machines)
    if most < (n or 1):
        have = "; ".join(
            f"{m.get('CPU', 0):g} cores, {m.get('GPU', 0):g} GPUs, {_gb(m.get('memory', 0))}"
            for m in machines
        )
        raise InputError(
            f"the cluster has room for {most} workers with {gpus:g} GPUs and {_gb(memory)} "
            f"each, and {n or 1} are to work (its machines: {have}); expected no more than it has"
        )
    n = n or (most if gpus else sum(room(machine, 1) > 0 for machine in machines))
    cores = int(max(machine.get("CPU", 0) for machine in machines))
    while sum(room(machine, cores) for machine in machines) < n:
        cores -= 1
    return n, cores


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
