"""Runs the cells of a sweep with the same loop in every place (`places`)."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from icl_mech.errors import InputError
from icl_mech.progress import progress_bar, say
from icl_mech.prompts import whole
from icl_mech.sweep.folder import CellFolder, told
from icl_mech.sweep.grid import Cell, Grid, check_models, check_room, plan_sweep
from icl_mech.sweep.places import Here, OnRay, Place, Processes, Worker
from icl_mech.sweep.result import Sweep
from icl_mech.sweep.work import Outcome


def sweep(
    models: Any,
    measures: Any,
    tasks: Any = None,
    seeds: Any = (0,),
    *,
    folder: str | Path,
    settings: Mapping[str, Any] | None = None,
    load: Mapping[str, Any] | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus_per_worker: float = 0,
    max_memory: int | None = None,
    retries: int = 0,
    copy_to: str | None = None,
    progress: bool = True,
) -> Sweep:
    """Measure many tasks on many models, and save each cell as soon as it is finished.

    A cell is a measure of one task (or of a set of tasks, if the measure compares tasks) on a model
    with a seed. The next call with the same folder runs only unfinished cells, whatever ended this
    call. If a cell fails, its error is recorded, and the other cells still run.

    Args:
        models: sources as in `load_model`, one or several, or a mapping from names to them. Cells
            that run in this process may also use loaded models, and functions that load one.
        measures: names of commands (`"scan"`, `"decodability"`, ...), or a mapping from names to
            options: `{"scan": {"n_prompts": 20}, "few": {"measure": "scan", "n_shots": 2}}`.
        tasks: tasks, families, paths to pairs, or `"all"`; by default every measure's own. If a
            measure compares tasks, each family and each list within the list is a set of its own.
        seeds: one or several seeds of the random draws.
        folder: for the results; more models, measures, tasks and seeds may be added to it later.
        settings: options for every measure that has them.
        load: arguments of `load_model` for all models.
        workers: processes on this machine, or actors of a Ray cluster; by default this process.
        ray: `"local"`, `"auto"` or the address of a Ray cluster (extra `ray`).
        gpus_per_worker: GPUs of every actor.
        max_memory: bytes that every actor reserves.
        retries: how often a failed cell is tried again.
        copy_to: a second place for every result, as fsspec names it (`"s3://bucket/run"`).
        progress: show a progress bar, and print failures.

    Raises:
        InputError: before anything runs, where a name is unknown or an option cannot work, the
            folder holds other settings or is being written, or the disk is too full.

    Example:
        >>> import tempfile
        >>> done = icl_mech.sweep(
        ...     model, "decodability", "letters", folder=tempfile.mkdtemp(), progress=False,
        ...     settings={"n_prompts": 8, "k": 2}
        ... )
        >>> done.cells()["state"].tolist()
        ['done']
    """
    grid = plan_sweep(models, measures, tasks, seeds, settings, load)
    place = choose_place(workers, ray, gpus_per_worker, max_memory)
    run_grid(grid, folder, place, retries, copy_to, progress)
    return Sweep(folder)


def choose_place(
    workers: int | None,
    ray: str | None = None,
    gpus: float = 0,
    memory: int | None = None,
) -> Callable[[], Place]:
    """Choose the place where cells run; the returned function makes it when it is needed.

    Raises:
        InputError: where the options do not go together.
    """
    if workers is not None and whole("workers", workers) < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    if ray is not None:
        return lambda: OnRay(ray, workers, gpus, memory)
    if gpus or memory:
        raise InputError("gpus_per_worker and max_memory are for ray; expected it beside them")
    return Here if workers is None else lambda: Processes(workers)


def run_grid(
    grid: Grid,
    folder: str | Path,
    place: Callable[[], Place] = Here,
    retries: int = 0,
    copy_to: str | None = None,
    progress: bool = True,
    stop: bool = False,
) -> list[str]:
    """Run every cell of a grid that its folder does not hold yet.

    Args:
        grid: from `plan_sweep`.
        folder, retries, copy_to, progress: as in `sweep`.
        place: makes the place where cells run.
        stop: raise the first error of a cell instead of going on.

    Returns:
        The names of the cells that the folder already held.

    Raises:
        InputError: where a model is not there, a model in memory would be needed by another
            process, or the folder holds other settings, is being written, or cannot be written
            (full disk).
    """
    kept = CellFolder(folder)
    kept.check(grid.recorded)
    kept.check_free()
    held = dict.fromkeys(c.name for c in grid.cells if kept.finished(c.name, c.made_of))
    todo = [c for c in grid.cells if c.name not in held]
    with ExitStack() as at_end:
        # Everything that can be refused is refused before the folder is made or written.
        if todo:
            waiting = {cell.model for cell in todo}
            order = by_size(grid, check_models(grid, waiting))
            check_room(kept.path, len(todo))
            copy = _copier(copy_to)
            there = place()
            at_end.callback(there.close)
            _refuse_objects(grid, waiting, there)
        names = {cell.name: cell.recorded() for cell in grid.cells}
        at_end.enter_context(kept.writing(grid.recorded, names))
        # Another run may have finished cells meanwhile.
        held |= dict.fromkeys(c.name for c in todo if kept.finished(c.name, c.made_of))
        todo = [c for c in todo if c.name not in held]
        if todo:
            bar = at_end.enter_context(progress_bar(len(grid.cells), "cells", progress))
            bar.update(len(grid.cells) - len(todo))
            bar.unpause()  # the remaining time is estimated from the cells of this run
            driver = _Driver(grid, kept, there, retries, copy, stop, bar, progress, order)
            at_end.callback(driver.close)
            driver.run(todo)
    return list(held)


def by_size(grid: Grid, configs: Mapping[str, Any]) -> list[str]:
    """The models, the largest first, so that the slowest do not run last."""
    from icl_mech.cost.sizes import Sizes

    sizes: dict[str, float] = {}
    for name in grid.models:
        try:
            sizes[name] = Sizes.of(configs[name]).weights if name in configs else 0
        except InputError:  # not a dense transformer
            sizes[name] = 0
    return sorted(grid.models, key=lambda name: -sizes[name])


def _refuse_objects(grid: Grid, waiting: Iterable[str], place: Place) -> None:
    objects = [name for name in waiting if not grid.models[name].named]
    if objects and not isinstance(place, Here):
        raise InputError(
            f"{objects[0]} is a model in memory, which only this process can use; expected the "
            "name of a model, or no workers="
        )


@dataclass
class _Slot:
    """A worker with its model and current cell."""

    model: str
    worker: Worker
    cell: Cell


@dataclass
class _Driver:
    """Gives cells to workers, saves their results, and records failures."""

    grid: Grid
    folder: CellFolder
    place: Place
    retries: int
    copy: Callable[[Path], None]
    stop: bool
    bar: Any
    talks: bool
    order: Sequence[str]
    _queues: dict[str, deque[Cell]] = field(default_factory=lambda: defaultdict(deque))
    _deaths: Counter[str] = field(default_factory=Counter)
    _tries: Counter[str] = field(default_factory=Counter)
    _running: dict["Future[Outcome]", _Slot] = field(default_factory=dict)
    _loaded: set[str] = field(default_factory=set)
    _weights: dict[str, str] = field(default_factory=dict)

    def run(self, todo: Sequence[Cell]) -> None:
        """Run until every cell is finished or has failed."""
        for cell in todo:
            self._queues[cell.model].append(cell)
        waiting = {cell.name for cell in todo}
        for name, line in self.folder.done.items():
            if name not in waiting and "weights_sha256" in line:
                self._weights[line["model"]] = line["weights_sha256"]
        while True:
            while len(self._running) < self.place.n and any(self._queues.values()):
                model = self._next_model()
                self._give(model, self.place.worker(self.grid.models[model]))
            if not self._running:
                return
            done, _ = wait(self._running, return_when=FIRST_COMPLETED)
            for future in done:
                self._take(future, self._running.pop(future))

    def close(self) -> None:
        """End the workers."""
        for slot in self._running.values():
            slot.worker.close()

    def _next_model(self) -> str:
        """The largest model with waiting cells; models without a worker come first."""
        busy = {slot.model for slot in self._running.values()}
        waiting = [name for name in self.order if self._queues[name]]
        return next((name for name in waiting if name not in busy), waiting[0])

    def _give(self, model: str, worker: Worker) -> None:
        cell = self._queues[model].popleft()
        loading = "" if model in self._loaded else "loading "
        self.bar.set_description(f"{loading}{cell.name}")
        self._running[worker.submit(cell)] = _Slot(model, worker, cell)

    def _take(self, future: "Future[Outcome]", slot: _Slot) -> None:
        """Save or record the outcome of a cell, and give its worker another cell."""
        died = False
        try:
            outcome = future.result()
        except Exception as error:  # the worker's process ended, or its machine is gone
            died = True
            self._deaths[slot.model] += 1
            # One death may be the cell's fault. From the second on, the model is blamed: `_failed`
            # then gives up all its cells, unless a worker has loaded the model before.
            again = self._deaths[slot.model] > 1
            outcome = Outcome(error=f"the worker died ({told(error)})", of_model=again)
        outcome = self._same_weights(slot, outcome)
        if outcome.content is not None:
            self._loaded.add(slot.model)
            self._keep(slot.cell, outcome)
        elif outcome.fatal:
            slot.worker.close()
            raise InputError(outcome.error)
        else:
            if not (died or outcome.of_model):
                self._loaded.add(slot.model)
            self._failed(slot, outcome)
        if died or outcome.of_model or not self._queues[slot.model]:
            slot.worker.close()
        else:
            self._give(slot.model, slot.worker)

    def _same_weights(self, slot: _Slot, outcome: Outcome) -> Outcome:
        """Turn a result into an error if its weights differ from those of the finished cells."""
        found = outcome.facts.get("weights_sha256")
        if found is None or self._weights.setdefault(slot.model, found) == found:
            return outcome
        error = InputError(
            f"{slot.model} has other weights ({found[:12]}) than when its finished cells were "
            f"made ({self._weights[slot.model][:12]}); expected the same, or another folder"
        )
        return Outcome(error=str(error), of_model=True, raised=error)

    def _keep(self, cell: Cell, outcome: Outcome) -> None:
        assert outcome.content is not None
        file = self.folder.keep(
            cell.name, cell.made_of, outcome.content, **cell.recorded(), **outcome.facts
        )
        self.copy(file)
        self.bar.update()

    def _failed(self, slot: _Slot, outcome: Outcome) -> None:
        """Retry a cell or record its failure; all its model's cells fail if that cannot load."""
        if self.stop and outcome.raised is not None:
            slot.worker.close()
            raise outcome.raised
        self._tries[slot.cell.name] += 1
        if self._tries[slot.cell.name] <= self.retries:
            self._queues[slot.model].append(slot.cell)
            return
        # If another worker has loaded the model, only this one has no room for it.
        gone = outcome.of_model and slot.model not in self._loaded
        others = list(self._queues.pop(slot.model, ())) if gone else []
        for cell in [slot.cell, *others]:
            self.folder.failed(cell.name, cell.made_of, outcome.error)
            self.bar.update()
        if self.talks:
            also = f" (and {len(others)} other cells)" if others else ""
            say(f"failed: {slot.cell.name}{also}: {outcome.error}")


def _copier(copy_to: str | None) -> Callable[[Path], None]:
    """A function that copies a finished file to a place of fsspec; it does nothing for None.

    Raises:
        InputError: where the place cannot be written.
    """
    if copy_to is None:
        return lambda file: None
    from fsspec import url_to_fs

    try:
        system, root = url_to_fs(copy_to)
        system.makedirs(root, exist_ok=True)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(
            f"cannot copy to {copy_to!r} ({error}); expected a place that fsspec can write, such "
            "as s3://bucket/folder, with the package that it needs"
        ) from None

    def copy(file: Path) -> None:
        try:
            system.put_file(str(file), f"{root}/{file.name}")
        except Exception as error:  # of the network or the store
            raise InputError(f"cannot copy {file.name} to {copy_to!r} ({told(error)})") from None

    return copy
