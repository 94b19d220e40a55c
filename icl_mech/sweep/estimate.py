"""Predicts the cost of a sweep from the models' configurations and tokenizers alone."""

import inspect
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from icl_mech.cost import Cost, expected_cost
from icl_mech.cost.questions import NAMES
from icl_mech.errors import IclMechError
from icl_mech.prompts import Encoder, Template, wants_leading_space
from icl_mech.sweep.folder import told
from icl_mech.sweep.grid import Grid, Subject
from icl_mech.sweep.measures import Asked
from icl_mech.sweep.models import ModelEntry
from icl_mech.tasks import Task, flat

#: The share of a device's memory that a model may take.
_ROOM = 0.9
#: The most pairs of a task whose tokens are counted.
_PAIRS = 20
#: Arguments of `expected_cost` that are not settings of a question.
_OTHERS = ("question", "config", "n_tasks", "n_shots", "engine", "dtype", "device", "batch_tokens")


@dataclass(frozen=True)
class Estimate:
    """The expected cost of a sweep, for every model and measure.

    Attributes:
        rows: per model and measure: `cells`, `forward_passes` (the same work in forward passes of
            a few-shot prompt), `operations`, `bytes` (read and written), `memory` (bytes at most,
            with the weights), `hours` (all cells, one after the other).
        notes: what the numbers leave out.
    """

    rows: pd.DataFrame
    notes: list[str]

    def table(self) -> pd.DataFrame:
        """The rows as text, with a row for the sum over everything that is known."""
        r = self.rows
        said = pd.DataFrame(
            {
                "model": r["model"],
                "measure": r["entry"],
                "cells": r["cells"].map("{:,}".format),
                "forward passes": r["forward_passes"].map("{:,.0f}".format),
                "10¹² operations": (r["operations"] / 1e12).map(_shortly),
                "of a cell": (r["operations"] / r["cells"] / 1e12).map(_shortly),
                "GB of memory": (r["memory"] / 1e9).map(_shortly),
                "hours": r["hours"].map(_shortly),
            }
        ).replace("nan", "?")
        total = {"model": "all", "cells": f"{r['cells'].sum():,}"}
        total["10¹² operations"] = _shortly(r["operations"].sum() / 1e12)
        total |= {"hours": _shortly(r["hours"].sum())}
        return pd.concat([said, pd.DataFrame([total])]).fillna("")

    def too_large(self, memory: float) -> dict[str, float]:
        """The models that do not fit into a device's memory, with the bytes that they need.

        Args:
            memory: of the device, in bytes; nine tenths of it are assumed to be free.
        """
        most = self.rows.groupby("model", sort=False)["memory"].max()
        return {str(name): float(of) for name, of in most.items() if of > _ROOM * memory}


def estimate(
    grid: Grid, flops_per_second: float = 1e12, bytes_per_second: float = 1e11
) -> Estimate:
    """Predict the cost of a sweep on a machine, without reading any weights.

    The model's tokenizer gives the lengths of prompts. If it is not available, a demonstration is
    assumed to have five tokens.

    Args:
        grid: from `plan_sweep`.
        flops_per_second, bytes_per_second: the rates that the machine really reaches.

    Raises:
        InputError: where a model is not there.

    Example:
        >>> from icl_mech.sweep import plan_sweep
        >>> found = estimate(plan_sweep("gemma-3-270m", "scan", ["antonyms", "to_upper"]))
        >>> found.rows["cells"].tolist(), bool(found.rows["operations"][0] > 1e12)
        ([2], True)
    """
    asked: dict[tuple[str, str], Counter[str]] = {}
    for cell in grid.cells:
        asked.setdefault((cell.model, cell.asked.entry), Counter())[cell.subject.name] += 1
    subjects = {(cell.asked.entry, cell.subject.name): cell.subject for cell in grid.cells}
    rows, notes = [], dict[str, None]()
    for name, entry in grid.models.items():
        model = _Known(entry)
        notes |= {f"{name}: {why}": None for why in model.notes}
        for of in grid.measures:
            counts = asked.get((name, of.entry), Counter())
            known = {"model": name, "entry": of.entry, "cells": counts.total()}
            found = None
            if of.measure not in NAMES:
                notes[f"the cost of {of.measure} is not modelled"] = None
            elif model.config is not None:
                try:
                    these = [(subjects[of.entry, subject], n) for subject, n in counts.items()]
                    found = _costs(of, model, these)
                except IclMechError as error:
                    notes[f"{name}: {error}"] = None
            rows.append(known | _row(found, flops_per_second, bytes_per_second))
    return Estimate(pd.DataFrame(rows), list(notes))


def _shortly(number: float) -> str:
    """A number with three significant digits, or without decimals from 1,000 on.

    >>> _shortly(1234.5), _shortly(0.01234)
    ('1,234', '0.0123')
    """
    return f"{number:,.0f}" if number >= 1000 else f"{number:.3g}"


class _Known:
    """What is known of a model without its weights.

    Attributes:
        entry: the model.
        config: its configuration; None where it is not known.
        notes: what is unknown about the model, and why.
    """

    def __init__(self, entry: ModelEntry) -> None:
        self.entry = entry
        self.config: Any = None
        self.notes: list[str] = []
        self._tokenizer: Any = None
        self._lengths: dict[tuple[str, Any], tuple[float, float]] = {}
        if not isinstance(entry.source, str):
            self.notes = ["a model in memory, whose cost is not told"]
            return
        try:
            self.config = _read_config(entry, entry.source)
        except (OSError, ValueError, IclMechError) as error:
            self.notes = [told(error)]
            return
        try:
            self._tokenizer = entry.tokenizer()
        except IclMechError:
            self.notes = ["its tokenizer is not at hand: five tokens are taken per demonstration"]

    def lengths(self, task: Task, of: Asked) -> tuple[float, float]:
        """Mean numbers of tokens in a demonstration, and in a query with its arrow."""
        s = of.settings
        key = task.name, (s.template, s.leading_space)
        if key not in self._lengths:
            self._lengths[key] = self._counted(task, s.template, s.leading_space)
        return self._lengths[key]

    def _counted(self, task: Task, template: str, space: bool | None) -> tuple[float, float]:
        if self._tokenizer is None:
            usual = inspect.signature(expected_cost).parameters
            return usual["per_demonstration"].default, usual["per_query"].default
        if space is None:
            space = wants_leading_space(self._tokenizer, [pair.y for pair in task.pairs])
        encoder = Encoder(self._tokenizer, Template(template, leading_space=space))
        pairs = task.pairs[:: max(1, len(task.pairs) // _PAIRS)][:_PAIRS]
        alone = np.mean([len(encoder.encode([], pair.x)) for pair in pairs])
        shown = np.mean([len(encoder.encode([pair], pair.x)) for pair in pairs])
        return float(shown - alone), float(alone - 1)


def _read_config(entry: ModelEntry, source: str) -> Any:
    """The model's configuration; its folder may have no weights."""
    file = Path(source).expanduser() / "config.json"
    return json.loads(file.read_text()) if file.is_file() else entry.config()


def _costs(
    of: Asked, model: _Known, subjects: Iterable[tuple[Subject, int]]
) -> tuple[Cost, float] | None:
    """The cost of all cells of a measure on a model, and the same in few-shot forward passes.

    Args:
        of: the measure.
        model: what is known of the model.
        subjects: the subjects of the cells, each with its number of cells.
    """
    shots = of.settings.n_shots
    each = shots if isinstance(shots, tuple) else (shots,)
    cells: Counter[tuple[int, int, int]] = Counter()
    for subject, n in subjects:
        cells[(*_tokens(of, model, subject), _n_tasks(subject))] += n
    parts, memory, passes, weights = {}, 0, 0.0, 0
    for (per_demonstration, per_query, n_tasks), n in cells.items():
        shared = {
            **_loaded(model.entry),
            "per_demonstration": per_demonstration,
            "per_query": per_query,
        }
        costs = [
            expected_cost(of.measure, model.config, n_tasks, n_shots=k, **_settings(of), **shared)
            for k in each
        ]
        one = expected_cost("decodability", model.config, 1, 1, max(each), **shared).operations
        passes += n * sum(c.operations for c in costs) / one
        memory, weights = max(memory, *(c.memory for c in costs)), costs[0].weights
        for i, cost in enumerate(costs):
            for name, part in cost.parts.items():
                parts[f"{name} {i} {per_demonstration} {per_query} {n_tasks}"] = part * n
    return (Cost(parts, weights, memory), passes) if parts else None


def _settings(of: Asked) -> dict[str, Any]:
    """The options of a measure that change what it costs."""
    known = {**vars(of.settings), **of.measured}
    taken = [n for n in inspect.signature(expected_cost).parameters if n not in _OTHERS]
    return {name: known[name] for name in taken if name in known}


def _loaded(entry: ModelEntry) -> dict[str, Any]:
    """How a model is loaded, as arguments of `expected_cost`."""
    of, kind = entry.loading, entry.loading.device or "cpu"
    return {
        "engine": "plain" if of.engine == "plain" else "shared",
        "dtype": of.dtype if of.dtype not in (None, "auto") else "float32",
        "device": "cuda" if kind == "auto" else kind,
        "batch_tokens": of.batch_tokens,
    }


def _n_tasks(subject: Subject) -> int:
    return sum(1 if isinstance(t, str) else len(flat([t])) for t in subject.tasks)


def _tokens(of: Asked, model: _Known, subject: Subject) -> tuple[int, int]:
    """Mean numbers of tokens in a demonstration and in a query, over a subject's tasks."""
    tasks = [t for each in subject.tasks if not isinstance(each, str) for t in flat([each])]
    lengths = [model.lengths(task, of) for task in tasks] or [(5.0, 2.0)]
    demonstration, query = np.mean(lengths, axis=0)
    return max(1, round(demonstration)), max(1, round(query))


def _row(found: tuple[Cost, float] | None, *rates: float) -> dict[str, float]:
    if found is None:
        names = ("forward_passes", "operations", "bytes", "memory", "hours")
        return dict.fromkeys(names, float("nan"))
    cost, passes = found
    return {
        "forward_passes": passes,
        "operations": cost.operations,
        "bytes": cost.bytes,
        "memory": cost.memory,
        "hours": cost.seconds(*rates) / 3600,
    }
