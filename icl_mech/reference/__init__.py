"""Published numbers to hold ours against. Facts only: knows no models and no prompts."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from icl_mech.errors import choose
from icl_mech.reference.han import ARMS, PublishedArm, PublishedHan, han2024
from icl_mech.stats import Estimate, proportions

__all__ = [
    "ARMS",
    "Accuracies",
    "Conflict",
    "PublishedArm",
    "PublishedHan",
    "PublishedScan",
    "PublishedScans",
    "han2024",
    "hendel2023",
]


@dataclass(frozen=True)
class Accuracies:
    """Shares of right answers (0 to 1): zero-shot, zero-shot with the task vector, few-shot."""

    baseline: float
    hypothesis: float
    regular: float


@dataclass(frozen=True)
class PublishedScan(Accuracies):
    """One model on one task, 5 shots.

    `baseline` is over 100 prompts, `hypothesis` and `regular` over `n_test`.
    `dev_accuracy_by_layer[l]` is the accuracy (0 to 1) with the vector written after block `l`
    (0-based), over the `n_dev` prompts on which the layer of `hypothesis` was chosen.
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
    """`scans` by model and task (three models), `means` over 18 tasks (seven), `conflicts`."""

    source: str
    scans: Mapping[str, Mapping[str, PublishedScan]]
    means: Mapping[str, Accuracies]
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
    """Hendel et al. 2023 (arXiv 2310.15916), under our task names. Means have two decimals."""
    raw = json.loads(files(__name__).joinpath("hendel2023.json").read_text(encoding="utf-8"))
    n = {"n_test": raw["n_prompts"]["hypothesis"], "n_dev": raw["n_prompts"]["dev"]}

    def scan(model: str, task: str, numbers: dict) -> PublishedScan:
        by_layer = {"dev_accuracy_by_layer": tuple(numbers["dev_accuracy_by_layer"])}
        return PublishedScan(**numbers | by_layer | n, model=model, task=task)

    return PublishedScans(
        raw["source"],
        {m: {t: scan(m, t, x) for t, x in tasks.items()} for m, tasks in raw["models"].items()},
        {model: Accuracies(*three) for model, three in raw["means_over_tasks"].items()},
        tuple(
            Conflict(c["task"], c["other_task"], tuple(c["regular"]), tuple(c["injected"]))
            for c in raw["conflicts"]
        ),
    )
