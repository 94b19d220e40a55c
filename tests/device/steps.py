"""The steps of a device check, each a generator of rows."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from device.check import Clock
from device.engines import engine_rows
from device.record import Record, Row, Step, Value, one_line
from tiny_models import EVERY_FAMILY

from icl_mech.errors import InputError, ModelError
from icl_mech.heads import METHODS, HeadAttribution, head_attribution
from icl_mech.localize import TaskMap, localize
from icl_mech.model import HookedModel, load_model
from icl_mech.patch import LayerScan, layer_scan
from icl_mech.synthetic import Training, preset, train
from icl_mech.tasks import Family, Task, Tasks

T = TypeVar("T")

CPU = torch.device("cpu")
#: The largest accepted difference between devices on the packaged model: nats, or shares of one.
#: Its sums are long, and log probabilities of what it would never say are large numbers.
TOLERANCE = 1e-2
#: Points of a training curve.
N_POINTS = 50
TITLES = {
    "engines": "Engines on tiny models of every family: largest differences (nats; reads: of 1)",
    "questions": "Questions on the packaged model, float32: the CPU beside the device",
    "placement": "device='auto' with limits: the numbers of one device",
    "bfloat16": "Layer scan in bfloat16 beside float32, on the device",
    "training": "Training of the synthetic preset",
}


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What runs, and how much of it.

    Attributes:
        families: of tiny models.
        source: the model of the questions.
        scan_tasks, heads_task, map_tasks: of layer scan, head attribution and map.
        n_prompts: test prompts per task of the scans; fewer where the CPU is slow.
        heads_methods, n_heads_prompts, n_heads_shots: of head attribution.
        n_map_prompts, n_map_points: of the map.
        limits: `max_memory` of models spread over devices; by default limits that split them.
        preset: what is trained.
        n_steps_cpu, n_steps: updates that are timed on the CPU, and on the device.
        most_steps: updates of the training curve at most.
    """

    families: Sequence[str] = EVERY_FAMILY
    source: str | Path = "gemma-3-270m"
    scan_tasks: Tasks = ("country_capital", "to_upper", "antonyms", "present_gerund")
    heads_task: Tasks = "country_capital"
    map_tasks: Tasks = "countries"
    n_prompts: int = 24
    heads_methods: Sequence[str] = METHODS
    n_heads_prompts: int = 8
    n_heads_shots: int = 10
    n_map_prompts: int = 10
    n_map_points: int = 30
    limits: Sequence[dict[int | str, int | str]] | None = None
    preset: str = "paper"
    n_steps_cpu: int = 3
    n_steps: int = 100
    most_steps: int = 80_000


class Check:
    """The steps, and the models and results that they share.

    Args:
        device: to check.
        clock: how much time there is; a part that would begin too late is left out.
        sizes: what runs.
    """

    def __init__(self, device: torch.device, clock: Clock, sizes: Sizes) -> None:
        self.device, self.clock, self.sizes = device, clock, sizes
        self.n_prompts = sizes.n_prompts
        self._kept: dict[Any, Any] = {}

    def run(self, record: Record, names: Sequence[str]) -> None:
        """Run steps in the order of `TITLES`, each by itself."""
        for name, title in TITLES.items():
            if name in names:
                record.run(Step(name, title), getattr(self, name)())
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

    # --- steps -----------------------------------------------------------------------------------

    def engines(self) -> Iterator[Row]:
        """Shared, plain and the CPU's numbers of every family."""
        return engine_rows(self.device, self.sizes.families, lambda: self.clock.past(0.35))

    def questions(self) -> Iterator[Row]:
        """Layer scan, head attribution and map on the CPU and on the device."""
        for device in (CPU, self.device):
            begun = time.perf_counter()
            model = self.model(device)
            numbers: dict[str, Value] = {"engine": model.engine, "dtype": str(model.dtype)[6:]}
            seconds = time.perf_counter() - begun
            yield Row(f"loading on {device.type}", numbers | {"seconds": seconds})
        self._fit(0.2 * self.clock.total)
        asked: list[tuple[str, Callable[[HookedModel], Any], Callable[..., Iterator[Row]], float]]
        asked = [
            ("layer scan", self._scan, _scan_rows, 0.6),
            ("head attribution", self._heads, _heads_rows, 0.65),
            ("localize", self._map, _map_rows, 0.7),
        ]
        for what, ask, rows, share in asked:
            if self.clock.past(share):
                yield Row(what, note="left out: no time")
                continue
            try:
                yield from self._beside(what, ask, rows)
            except Exception as error:  # any library's: the other questions are worth asking
                yield Row(what, ok=False, note=one_line(error))

    def placement(self) -> Iterator[Row]:
        """The numbers of a model spread over devices beside those on one."""
        here = self.model(self.device)
        expected, seconds, _ = self.timed(lambda: self._small_scan(here))
        yield Row(f"on {self.device.type}", _placed(here, seconds, None))
        for limits in self._limits(here):
            what = ", ".join(f"{place}: {limit}" for place, limit in limits.items())
            if self.clock.past(0.85):
                yield Row(what, note="left out: no time")
                continue
            try:
                yield self._spread(what, limits, expected)
            except Exception as error:  # any library's: the other limits are worth trying
                yield Row(what, ok=False, note=one_line(error))

    def bfloat16(self) -> Iterator[Row]:
        """Accuracies of the scan in both number formats."""
        wide, seconds, peak = self.scanned(self.device, "float32")
        half, half_seconds, half_peak = self.scanned(self.device, "bfloat16")
        yield Row("float32", {"seconds": seconds, "GB_beside_weights": peak})
        yield Row("bfloat16", {"seconds": half_seconds, "GB_beside_weights": half_peak})
        for task in wide.tasks:
            numbers: dict[str, Value] = {}
            for name, scan in (("float32", wide), ("bfloat16", half)):
                numbers |= {
                    f"layer_{name}": scan.best_layer(task),
                    f"theta_{name}": scan.hypothesis(task).value,
                    f"few_shot_{name}": scan.reference(task, "regular").value,
                }
            numbers["largest_difference"] = largest_difference(
                wide.of(task)["logprob"].values, half.of(task)["logprob"].values
            )
            yield Row(task, numbers)

    def training(self) -> Iterator[Row]:
        """Updates per second, then a training curve in the time that is left."""
        s = self.sizes
        on_cpu = self._rate(CPU, "float32", s.n_steps_cpu)
        yield Row("cpu, float32", {"updates_per_second": on_cpu, "ratio": 1.0})
        rates = {}
        for precision in ("float32", "bfloat16"):
            rates[precision] = self._rate(self.device, precision, s.n_steps)
            numbers: dict[str, Value] = {
                "updates_per_second": rates[precision],
                "ratio": rates[precision] / on_cpu,
            }
            yield Row(f"{self.device.type}, {precision}", numbers)
        # Five seconds for the tables; the rate may fall when the device gets warm.
        n = min(s.most_steps, int(0.9 * (self.clock.left - 5) * rates["float32"]))
        if n < 2:
            yield Row("curve", note="left out: no time")
            return
        done, seconds = self._train(self.device, "float32", n)
        points = curve(done)
        numbers = {
            "updates": n,
            "seconds": seconds,
            "updates_per_second": n / seconds,
            "first_loss": points["loss"][0],
            "last_loss": points["loss"][-1],
        }
        learns = points["loss"][-1] < points["loss"][0]
        note = "" if learns or n < 1000 else "the loss does not fall"
        yield Row("curve", numbers, ok=not note, note=note, more={"curve": points})

    # --- what steps share ------------------------------------------------------------------------

    def model(self, device: torch.device, dtype: str = "float32") -> HookedModel:
        """The model of the questions, loaded once; one prompt has run on it."""

        def load() -> HookedModel:
            model = load_model(self.sizes.source, device=device, dtype=dtype)
            self._small_scan(model, 2)  # what a device prepares at first use is not timed
            return model

        return self._once(("model", device, dtype), load)

    def scanned(self, device: torch.device, dtype: str) -> tuple[LayerScan, float, float | None]:
        """The layer scan, run once, with its seconds and memory."""
        model = self.model(device, dtype)
        return self._once(("scan", device, dtype), lambda: self.timed(lambda: self._scan(model)))

    def timed(self, run: Callable[[], T]) -> tuple[T, float, float | None]:
        """A result, the seconds it took, and the most GB that it took beside what was there."""
        on_cuda = self.device.type == "cuda"
        if on_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        begun = time.perf_counter()
        found = run()
        if on_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - begun
        if not on_cuda:
            return found, seconds, None
        return found, seconds, (torch.cuda.max_memory_allocated() - before) / 1e9

    def _once(self, key: Any, make: Callable[[], T]) -> T:
        if key not in self._kept:
            self._kept[key] = make()
        found: T = self._kept[key]
        return found

    def _beside(
        self,
        what: str,
        ask: Callable[[HookedModel], Any],
        rows: Callable[[Any, Any], Iterator[Row]],
    ) -> Iterator[Row]:
        """A question on both: seconds, then what `rows` compares."""
        found = []
        for device in (CPU, self.device):
            if ask == self._scan:
                found.append(self.scanned(device, "float32"))
            else:
                found.append(self.timed(partial(ask, self.model(device))))
        (expected, slow, _), (ours, fast, peak) = found
        numbers: dict[str, Value] = {
            "prompts": expected.data.sizes["prompt"],
            "cpu_seconds": slow,
            "device_seconds": fast,
            "ratio": slow / fast,
            "GB_beside_weights": peak,
        }
        yield Row(what, numbers)
        yield from rows(expected, ours)

    def _scan(self, model: HookedModel) -> LayerScan:
        return layer_scan(model, self.sizes.scan_tasks, self.n_prompts, progress=False)

    def _small_scan(self, model: HookedModel, n_prompts: int = 6) -> LayerScan:
        return layer_scan(
            model, self.sizes.heads_task, n_prompts, n_shots=3, n_dev=2, progress=False
        )

    def _fit(self, seconds: float) -> None:
        """Ask fewer prompts of a scan where the CPU would take longer than that for it."""
        model, n = self.model(CPU), 6
        _, small, _ = self.timed(lambda: self._small_scan(model, n))
        tasks = self.sizes.scan_tasks
        n_tasks = 1 if isinstance(tasks, str | Path | Task | Family) else len(tasks)
        self.n_prompts = max(4, min(self.n_prompts, int(seconds / small * n / n_tasks)))

    def _heads(self, model: HookedModel) -> HeadAttribution:
        s = self.sizes
        return head_attribution(
            model,
            s.heads_task,
            s.n_heads_prompts,
            s.n_heads_shots,
            n_clean=2 * s.n_heads_prompts,
            methods=s.heads_methods,
            progress=False,
        )

    def _map(self, model: HookedModel) -> TaskMap:
        s = self.sizes
        return localize(
            model,
            s.map_tasks,
            s.n_map_prompts,
            n_points=s.n_map_points,
            k=min(10, s.n_map_points // 2),
            progress=False,
        )

    def _limits(self, model: HookedModel) -> Sequence[dict[int | str, int | str]]:
        """Limits with which some blocks are not on the first GPU."""
        if self.sizes.limits is not None:
            return self.sizes.limits
        if self.device.type != "cuda":
            return []
        module = model.bridge.original_model
        whole = sum(p.numel() * p.element_size() for p in module.parameters())
        first = whole * 4 // 5  # of Gemma 3 270M the vocabulary alone takes 0.63
        limits: list[dict[int | str, int | str]] = [{0: first, "cpu": 4 * whole}]
        if torch.cuda.device_count() > 1:
            limits.append({0: first, 1: 4 * whole})
        return limits

    def _spread(self, what: str, limits: dict[int | str, int | str], expected: LayerScan) -> Row:
        try:
            model = load_model(self.sizes.source, device="auto", max_memory=limits)
        except (InputError, ModelError) as error:
            return Row(what, note=f"refused: {one_line(error)}")
        found, seconds, _ = self.timed(lambda: self._small_scan(model))
        apart = largest_difference(expected.data["logprob"].values, found.data["logprob"].values)
        numbers = _placed(model, seconds, apart)
        faults = [f"more than {TOLERANCE} apart"] * (not apart <= TOLERANCE)
        # Were it all in one place, this would have shown nothing.
        faults += ["not split"] * ("+" not in str(numbers["places"]))
        return Row(what, numbers, ok=not faults, note="; ".join(faults))

    def _rate(self, device: torch.device, precision: str, n_steps: int) -> float:
        """Updates per second, after a few that are not timed."""
        self._train(device, precision, min(n_steps, 10))
        _, seconds = self._train(device, precision, n_steps)
        return n_steps / seconds

    def _train(self, device: torch.device, precision: str, n_steps: int) -> tuple[Training, float]:
        settings = preset(self.sizes.preset, n_steps=n_steps, precision=precision)
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            done = train(settings, folder, device=device, n_log=0, n_regular=0, progress=False)
            return done, time.perf_counter() - begun


def largest_difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The largest difference; infinite where only one of two is a number.

    >>> largest_difference(np.array([1.0, np.nan]), np.array([1.5, np.nan]))
    0.5
    """
    apart = np.abs(ours.astype(float) - theirs.astype(float))
    apart[np.isnan(ours) & np.isnan(theirs)] = 0
    return float(np.nan_to_num(apart, nan=np.inf).max(initial=0.0))


def curve(done: Training, n_points: int = N_POINTS) -> dict[str, list[Any]]:
    """Mean losses of consecutive parts of a training, of all sequences and of each basis."""
    n = len(done.loss)
    ends = np.linspace(0, n, min(n_points, n) + 1).round().astype(int).tolist()
    parts = list(pairwise(ends))
    return {
        "updates": [end for _, end in parts],
        "loss": [float(done.loss[a:b].mean()) for a, b in parts],
        "basis_loss": [done.basis_loss[a:b].nanmean(0).tolist() for a, b in parts],
    }


def _placed(model: HookedModel, seconds: float, apart: float | None) -> dict[str, Value]:
    return {
        "places": str(model.provenance()["device"]),
        "engine": model.engine,
        "seconds": seconds,
        "largest_difference": apart,
    }


def _scan_rows(expected: LayerScan, ours: LayerScan) -> Iterator[Row]:
    for task in expected.tasks:
        apart = max(
            largest_difference(expected.of(task)[name].values, ours.of(task)[name].values)
            for name in ("logprob", "reference_logprob", "dev_logprob")
        )
        numbers: dict[str, Value] = {}
        for name, scan in (("cpu", expected), ("device", ours)):
            numbers |= {
                f"layer_{name}": scan.best_layer(task),
                f"theta_{name}": scan.hypothesis(task).value,
                f"few_shot_{name}": scan.reference(task, "regular").value,
            }
        layers = (scan.best_layer(task) for scan in (expected, ours))
        yield _compared(task, numbers, apart, *layers)


def _heads_rows(expected: HeadAttribution, ours: HeadAttribution) -> Iterator[Row]:
    (task,) = expected.tasks
    for method in expected.methods:
        apart = largest_difference(expected.data[method].values, ours.data[method].values)
        tops = [
            [f"{x}.{h}" for x, h, _ in found.top(task, 3, method)] for found in (expected, ours)
        ]
        numbers: dict[str, Value] = {
            "top_cpu": " ".join(tops[0]),
            "top_device": " ".join(tops[1]),
            "effect_cpu": expected.top(task, 1, method)[0][2].value,
            "effect_device": ours.top(task, 1, method)[0][2].value,
        }
        yield _compared(method, numbers, apart, tops[0][0], tops[1][0])


def _map_rows(expected: TaskMap, ours: TaskMap) -> Iterator[Row]:
    for task in expected.tasks:
        # Accuracies (transfer, encoding) jump where two numbers are nearly equal: not compared.
        apart = max(
            largest_difference(expected.of(task)[name].values, ours.of(task)[name].values)
            for name in ("lens", "aie")
        )
        named = [
            {f"{what} {readout}": str(at) for (what, readout), at in found.layers_of(task).items()}
            for found in (expected, ours)
        ]
        # As "9 [9, 10]"; the interval may move where the layer does not.
        layers = [{name: at.split()[0] for name, at in each.items()} for each in named]
        numbers: dict[str, Value] = {
            "layers_named": sum(layer != "none" for layer in layers[0].values()),
            "other_layers": sum(layers[0][name] != layers[1][name] for name in layers[0]),
        }
        row = _compared(task, numbers, apart, *layers)
        yield Row(row.what, row.numbers, row.ok, row.note, {"cpu": named[0], "device": named[1]})


def _compared(what: str, numbers: dict[str, Value], apart: float, theirs: Any, ours: Any) -> Row:
    """A row that is right where numbers are close, and what they name is the same."""
    faults = [f"more than {TOLERANCE} apart"] * (not apart <= TOLERANCE)
    faults += ["another is named"] * (theirs != ours)
    numbers = numbers | {"largest_difference": apart}
    return Row(what, numbers, ok=not faults, note="; ".join(faults))
