"""What a sweep is expected to take, from the models' configurations alone."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from icl_mech.cost import Cost, expected_cost
from icl_mech.cost.questions import QUESTIONS
from icl_mech.errors import IclMechError
from icl_mech.sweep.folder import told
from icl_mech.sweep.grid import Grid
from icl_mech.sweep.measures import Asked
from icl_mech.sweep.models import ModelEntry
from icl_mech.tasks import flat

#: Settings that change what a question costs.
_COUNTS = ("n_prompts", "n_dummies", "control_layers")
#: Of a device's memory, what a model may take.
_ROOM = 0.9


@dataclass(frozen=True)
class Estimate:
    """What every model and measure of a sweep takes.

    Attributes:
        rows: per model and measure: `cells`, `forward_passes` (as many of a few-shot prompt would
            take as long), `operations`, `bytes` (read and written), `memory` (bytes at most,
            with the weights), `hours` (all cells, one after the other).
        notes: what is not in the numbers.
    """

    rows: pd.DataFrame
    notes: list[str]

    def table(self) -> pd.DataFrame:
        """The rows as text, for people, with the sum over everything that is known."""
        r = self.rows
        said = pd.DataFrame(
            {
                "model": r["model"],
                "measure": r["entry"],
                "cells": r["cells"].map("{:,}".format),
                "forward passes": r["forward_passes"].map("{:,.0f}".format),
                "10¹² operations": (r["operations"] / 1e12).map("{:,.2f}".format),
                "GB of memory": (r["memory"] / 1e9).map("{:,.2f}".format),
                "hours": r["hours"].map("{:,.3f}".format),
            }
        ).replace("nan", "?")
        total = {"model": "all", "cells": f"{r['cells'].sum():,}"}
        total["10¹² operations"] = f"{r['operations'].sum() / 1e12:,.2f}"
        total |= {"hours": f"{r['hours'].sum():,.3f}"}
        return pd.concat([said, pd.DataFrame([total])]).fillna("")

    def too_large(self, memory: float) -> dict[str, float]:
        """The models that do not fit a device, with the bytes that they need.

        Args:
            memory: of the device, in bytes, of which nine tenths are taken to be free.
        """
        most = self.rows.groupby("model", sort=False)["memory"].max()
        return {str(name): float(of) for name, of in most.items() if of > _ROOM * memory}


def estimate(
    grid: Grid, flops_per_second: float = 1e12, bytes_per_second: float = 1e11
) -> Estimate:
    """What a sweep is expected to take on a machine; no weights are read.

    Args:
        grid: from `plan_sweep`.
        flops_per_second, bytes_per_second: that the machine really reaches.

    Raises:
        InputError: where a model is not there.

    Example:
        >>> from icl_mech.sweep import plan_sweep
        >>> found = estimate(plan_sweep("gemma-3-270m", "scan", ["antonyms", "to_upper"]))
        >>> found.rows["cells"].tolist(), bool(found.rows["operations"][0] > 1e12)
        ([2], True)
    """
    sizes: dict[tuple[str, str], list[int]] = {}
    for cell in grid.cells:
        n = sum(len(flat([t])) if not isinstance(t, str) else 1 for t in cell.subject.tasks)
        sizes.setdefault((cell.model, cell.asked.entry), []).append(n)
    rows, notes = [], dict[str, None]()
    for name, entry in grid.models.items():
        config, why = _config(entry)
        notes |= {f"{name}: {why}": None} if why else {}
        for of in grid.measures:
            counts = sizes.get((name, of.entry), [])
            known = {"model": name, "entry": of.entry, "cells": len(counts)}
            if of.measure not in QUESTIONS:
                notes[f"the cost of {of.measure} is not modelled"] = None
                config_of = None
            else:
                config_of = config
            found = None if config_of is None else _cost(of, config_of, sum(counts), entry, notes)
            rows.append(known | _row(found, flops_per_second, bytes_per_second))
    return Estimate(pd.DataFrame(rows), list(notes))


def _config(entry: ModelEntry) -> tuple[Any, str]:
    """The model's configuration, which may lie there without weights, or why it is not known."""
    if not isinstance(entry.source, str):
        return None, "a model in memory, whose cost is not told"
    file = Path(entry.source).expanduser() / "config.json"
    try:
        return (json.loads(file.read_text()) if file.is_file() else entry.config()), ""
    except (OSError, ValueError, IclMechError) as error:
        return None, told(error)


def _cost(
    of: Asked, config: Any, n_tasks: int, entry: ModelEntry, notes: dict[str, None]
) -> tuple[Cost, float] | None:
    """Of all cells of a measure on a model, and what a forward pass of a few-shot prompt takes."""
    settings = vars(of.settings)
    kind = entry.loading.device or "cpu"
    shared: dict[str, Any] = {
        "engine": "plain" if entry.loading.engine == "plain" else "shared",
        "dtype": entry.loading.dtype if entry.loading.dtype not in (None, "auto") else "float32",
        "device": "cuda" if kind == "auto" else kind,
    }
    counts = {name: settings[name] for name in _COUNTS if name in settings}
    shots = settings["n_shots"]
    each = shots if isinstance(shots, tuple) else (shots,)
    try:
        # Every cell costs the same but for its number of tasks.
        costs = [
            expected_cost(of.measure, config, n_tasks, n_shots=n, **counts, **shared) for n in each
        ]
        one = expected_cost("decodability", config, 1, 1, max(each), **shared).operations
    except IclMechError as error:
        notes[f"{entry.name}: {error}"] = None
        return None
    parts = {f"{i}{name}": part for i, c in enumerate(costs) for name, part in c.parts.items()}
    memory = max(c.memory for c in costs)
    return Cost(parts, costs[0].weights, memory), sum(c.operations for c in costs) / one


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
