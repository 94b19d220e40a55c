"""Published numbers to hold ours against. Facts only: knows no models and no prompts."""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from icl_mech.errors import choose
from icl_mech.stats import Estimate, proportions

__all__ = ["Conflict", "Means", "PublishedScan", "PublishedScans", "hendel2023"]


@dataclass(frozen=True)
class Means:
    """Accuracies (0 to 1): zero-shot, zero-shot with the task vector, few-shot."""

    baseline: float
    hypothesis: float
    regular: float


@dataclass(frozen=True)
class PublishedScan(Means):
    """One model on one task, 5 shots.

    `baseline` is over 100 prompts, `hypothesis` and `regular` over `n_test`.
    `dev_accuracy_by_layer[l]` is the accuracy (0 to 1) with the vector written after block `l`,
    over `n_dev` prompts, on which the layer of `hypothesis` was chosen.
    """

    model: str
    task: str
    category: str
    dev_accuracy_by_layer: tuple[float, ...]
    n_test: int
    n_dev: int

    def curve(self) -> list[Estimate]:
        """Dev accuracy by layer. The 95 % Wilson intervals are ours: the paper gives none."""
        right = np.rint(np.array(self.dev_accuracy_by_layer)[:, None] * self.n_dev)
        return proportions(np.arange(self.n_dev) < right)


@dataclass(frozen=True)
class Conflict:
    """LLaMA-13B on few-shot prompts of `task`, with and without the vector of `other_task`.

    Both pairs hold the share of answers (0 to 1) right for `task`, then for `other_task`.
    """

    task: str
    other_task: str
    regular: tuple[float, float]
    injected: tuple[float, float]


@dataclass(frozen=True)
class PublishedScans:
    """What Hendel et al. 2023 (arXiv 2310.15916) report.

    `scans` is by model and task (three models), `means` over the 18 tasks (seven models, two
    decimals), `conflicts` is the conflicting-tasks experiment (section 4).
    """

    source: str
    scans: dict[str, dict[str, PublishedScan]]
    means: dict[str, Means]
    conflicts: tuple[Conflict, ...]

    def scan(self, model: str, task: str) -> PublishedScan:
        """One model on one task.

        Raises:
            InputError: where the paper's data have no such model or task.
        """
        of_model = self.scans[choose(model, self.scans, "published model")]
        return of_model[choose(task, of_model, "published task")]


@cache
def hendel2023() -> PublishedScans:
    """Hendel et al. 2023, "In-Context Learning Creates Task Vectors", under our task names."""
    raw = json.loads(files(__name__).joinpath("hendel2023.json").read_text(encoding="utf-8"))
    n = {"n_test": raw["n_prompts"]["hypothesis"], "n_dev": raw["n_prompts"]["dev"]}
    scans: dict[str, dict[str, PublishedScan]] = {}
    for model, tasks in raw["models"].items():
        scans[model] = {}
        for task, numbers in tasks.items():
            by_layer = tuple(numbers.pop("dev_accuracy_by_layer"))
            scans[model][task] = PublishedScan(
                model=model, task=task, dev_accuracy_by_layer=by_layer, **numbers, **n
            )
    means = {model: Means(*three) for model, three in raw["means_over_tasks"].items()}
    conflicts = tuple(
        Conflict(c["task"], c["other_task"], tuple(c["regular"]), tuple(c["injected"]))
        for c in raw["conflicts"]
    )
    return PublishedScans(raw["source"], scans, means, conflicts)
