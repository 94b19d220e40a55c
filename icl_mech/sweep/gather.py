"""Gathers the contents of a report about a measure: its summaries, and the numbers of figures."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from icl_mech.decodability import TaskDecodability, td_predicts_accuracy
from icl_mech.decodability.accuracy import td_and_accuracy
from icl_mech.localize import TaskMap
from icl_mech.patch import LayerScan
from icl_mech.stats import MIN_CLUSTERS, Estimate, means, ratio_of_means, share
from icl_mech.sweep.result import Sweep, with_cell
from icl_mech.variability import VectorVariability

#: Accuracies of a scan: zero-shot, zero-shot with θ, few-shot.
ACCURACIES = ("baseline", "hypothesis", "regular")
#: The two layers of a map that a figure shows, and the read-out that gives each.
LAYERS = {"formation": "transfer", "decoding": "lens"}


@dataclass
class Gathered:
    """All finished cells of a measure. Figures show only every model's first seed.

    Attributes:
        entry: the name of the measure in the sweep.
        full: the full summaries of all cells, one below the other.
        narrow: the short summaries, with the columns that are usually quoted.
        scans: of layer scans, per model: accuracies by task, and those with θ by task and layer.
        maps: of task maps, per model: relative depths of formation and decoding, by task.
        decodability: of task decodability: TD and accuracy by model, task and shots.
        r_squared: how much of the accuracy TD explains, by model.
        variability: results to compare, by the set of tasks that they measured.
    """

    entry: str
    full: pd.DataFrame
    narrow: pd.DataFrame
    scans: dict[str, "Scans"] = field(default_factory=dict)
    maps: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    decodability: list[pd.DataFrame] = field(default_factory=list)
    r_squared: dict[str, Estimate] = field(default_factory=dict)
    variability: dict[str, list[VectorVariability]] = field(default_factory=dict)


@dataclass
class Scans:
    """The layer scans of a model: one value per task.

    Attributes:
        accuracies: a list per name in `ACCURACIES`, with one value per task.
        theta: accuracy with θ, by task and layer.
    """

    accuracies: dict[str, list[float]] = field(default_factory=dict)
    theta: list[list[float]] = field(default_factory=list)

    def add(self, scan: LayerScan) -> None:
        """Add a scan, of one task or several."""
        for task in scan.tasks:
            found = {n: scan.reference(task, n).value for n in ("baseline", "regular")}
            found["hypothesis"] = scan.hypothesis(task).value
            for name, value in found.items():
                self.accuracies.setdefault(name, []).append(value)
            self.theta.append([e.value for e in scan.curve(task)])

    def mean(self, name: str) -> Estimate:
        """A mean accuracy over tasks; its interval treats the tasks as a random sample."""
        return _over_tasks(np.array(self.accuracies[name]))

    def ratio(self) -> Estimate:
        """Mean hypothesis accuracy divided by mean regular accuracy; tasks are resampled."""
        of = self.accuracies
        return ratio_of_means(np.array(of["hypothesis"]), np.array(of["regular"])).at()

    def curve(self) -> list[Estimate]:
        """The accuracy with θ after every block, averaged over tasks."""
        return [_over_tasks(of_layer) for of_layer in np.array(self.theta).T]


def _over_tasks(shares: np.ndarray) -> Estimate:
    """The mean of shares, one per task; too few tasks give no interval."""
    if len(shares) < MIN_CLUSTERS:
        return means(shares[:, None]).at(0)
    return share(shares, None)


def gather(sweep: Sweep, entry: str) -> Gathered:
    """Read every finished cell of a measure once, and keep only what the report needs."""
    full, narrow = [], []
    found = Gathered(entry, pd.DataFrame(), pd.DataFrame())
    first: dict[str, int] = {}
    maps: dict[str, list[TaskMap]] = {}
    read: dict[str, list[TaskDecodability]] = {}
    for known, result in sweep.results(entry):
        model = str(known["model"])
        # Two names may have the same weights, so figures use the names in the sweep.
        result.provenance["model"] = model
        full.append(with_cell(known, result.full_summary()))
        narrow.append(with_cell(known, result.summary()))
        if known["seed"] != first.setdefault(model, known["seed"]):
            continue
        match result:
            case LayerScan():
                found.scans.setdefault(model, Scans()).add(result)
            case TaskMap():
                maps.setdefault(model, []).append(result)
            case TaskDecodability():
                read.setdefault(model, []).append(result)
            case VectorVariability():
                found.variability.setdefault(str(known["task"]), []).append(result)
    found.full = pd.concat(full, ignore_index=True) if full else found.full
    found.narrow = pd.concat(narrow, ignore_index=True) if narrow else found.narrow
    found.maps = {model: _depths(of) for model, of in maps.items()}
    for model, of in read.items():
        found.decodability.append(td_and_accuracy(of))
        row = td_predicts_accuracy(of).loc["overall"]
        found.r_squared[model] = Estimate(row["r2"], row["r2_low"], row["r2_high"], row["n_rows"])
    return found


def _depths(maps: list[TaskMap]) -> dict[str, list[float]]:
    """The relative depths of formation and decoding, for tasks where a layer is found."""
    found: dict[str, list[float]] = {what: [] for what in LAYERS}
    for of in maps:
        for task in of.tasks:
            located = {"formation": of.formation(task), "decoding": of.decoding(task)}
            for what, at in located.items():
                if not at.why and at.estimate.value == at.estimate.value:
                    found[what].append(of.depth(at.estimate.value))
    return found
