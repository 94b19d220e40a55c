"""The main table: accuracies of every task, their means, and the published numbers."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from icl_mech.patch import LayerScan
from icl_mech.reference import Accuracies, hendel2023
from icl_mech.results import TaskResult, few_tasks, with_ends
from icl_mech.stats import Estimate, ratio_of_means, share
from icl_mech.table.plan import MEAN
from icl_mech.vectors import layer_name

ACCURACIES = ("baseline", "hypothesis", "regular")
CONTROLS = ("label_prior", "shuffled", "other_task", "random")


class TaskTable(TaskResult):
    """Accuracies of every task with intervals, controls, and the published numbers.

    `data` is that of a `LayerScan` over all tasks; `scan` returns this `LayerScan`.
    """

    ARRAYS: ClassVar = LayerScan.ARRAYS
    QUOTED: ClassVar = ("category", *with_ends(*ACCURACIES), "best_layer", "ratio")

    @property
    def scan(self) -> LayerScan:
        """The layer scans from which the table is read."""
        return LayerScan(self.data, self.provenance)

    def estimate(self, task: str, column: str, score: str = "first_token") -> Estimate:
        """One of `ACCURACIES` or `CONTROLS`, at the layer chosen on dev."""
        if column in ("baseline", "regular"):
            return self.scan.reference(task, column, score)
        if column == "label_prior":
            return self.scan.prior(task)
        return self.scan.hypothesis(task, "theta" if column == "hypothesis" else column, score)

    def ratio(self, task: str, score: str = "first_token") -> Estimate:
        """Hypothesis accuracy divided by regular accuracy; prompts (or queries) are resampled."""
        of_task = self.of(task)
        layer = self.scan.read_at(task, score)
        ours = of_task[score].sel(vector="theta", layer=layer).values.astype(float)
        theirs = of_task[f"reference_{score}"].sel(reference="regular").values.astype(float)
        return ratio_of_means(ours, theirs, clusters=of_task["query"].values).at()

    def mean(self, column: str, score: str = "first_token") -> Estimate:
        """Mean over tasks. Its interval is for other tasks, drawn as these were."""
        values = self._by_task(column, score)
        return share(values, None)

    def mean_ratio(self, score: str = "first_token") -> Estimate:
        """Mean hypothesis accuracy divided by mean regular accuracy; tasks are resampled."""
        ours, theirs = (self._by_task(c, score) for c in ("hypothesis", "regular"))
        return ratio_of_means(ours, theirs).at()

    def _by_task(self, column: str, score: str) -> np.ndarray:
        return np.array([self.estimate(task, column, score).value for task in self.tasks])

    def summary(self, score: str = "first_token") -> pd.DataFrame:
        """One row per task: category, accuracies with 95 % intervals, layer, ratio."""
        return self._quoted(self.full_summary(score))

    def full_summary(self, score: str = "first_token") -> pd.DataFrame:
        """As `LayerScan.full_summary`, with the category, and the ratio with its interval."""
        frame = self.scan.full_summary(score)
        ratios = pd.DataFrame(
            [self.ratio(task, score).columns("ratio") for task in self.tasks], index=self.tasks
        )
        frame = pd.concat([frame, ratios.rename_axis("task")], axis=1)
        of = self.provenance["tasks"]
        frame.insert(0, "category", [of[task]["category"] for task in self.tasks])
        return frame

    def means(self, score: str = "first_token") -> pd.DataFrame:
        """Means over tasks: this model's with intervals, then the published ones (they have none).

        `n_tasks` is the number of tasks; the published means are over 18.
        """
        ours: dict[str, Any] = {"model": str(self.provenance["model"]), "source": "measured"}
        for column in ACCURACIES:
            ours |= self.mean(column, score).columns(column)
        ours |= {**self.mean_ratio(score).columns("ratio"), "n_tasks": len(self.tasks)}
        rows = [ours]
        for name, accuracies in hendel2023().means.items():
            rows.append({"model": name, "source": "published", **_row(accuracies), "n_tasks": 18})
        return pd.DataFrame(rows).set_index("model")

    def published(self) -> pd.DataFrame:
        """Published accuracies on the tasks of this table: one row per (task, model)."""
        rows = [
            {"task": task, "model": model, **_row(scans[task])}
            for task in self.tasks
            for model, scans in hendel2023().scans.items()
            if task in scans
        ]
        columns = ["task", "model", *ACCURACIES, "ratio"]
        return pd.DataFrame(rows, columns=columns).set_index(["task", "model"])

    def caveats(self, score: str = "first_token") -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = [
            "intervals of tasks are over prompts; those of the mean resample tasks",
            "published numbers: other models and words, answers of one token only, prefixes count "
            "in knowledge tasks, n = 50 (baseline 100), no intervals",
        ]
        missing = set(self.published().index.get_level_values("task")) ^ set(self.tasks)
        if missing or len(self.tasks) != 18:
            notes.append(
                f"the published means are over 18 tasks; these {len(self.tasks)} are not the same"
            )
        return notes + self.scan.caveats(score)

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, vector, layer), as `LayerScan.to_frame`."""
        return self.scan.to_frame()

    def few(self) -> str:
        return "; ".join(filter(None, [super().few(), few_tasks(len(self.tasks))]))

    def finding(self, score: str = "first_token") -> str:
        """How much of few-shot accuracy θ keeps, with the 95 % interval of the ratio.

        For several tasks it is the ratio of means, with an interval over tasks. If there is no
        interval (fewer than four tasks, or few-shot accuracy that may be 0), or if it includes 0,
        the finding is that of `LayerScan.finding`.
        """
        n = len(self.tasks)
        kept = self.ratio(self.tasks[0], score) if n == 1 else self.mean_ratio(score)
        if not kept.low > 0:  # or NaN
            return self.scan.finding(score)
        over = f" over {n} tasks" if n > 1 else ""
        return (
            f"θ keeps {kept.value:.0%} [{kept.low:.0%}, {kept.high:.0%}] of few-shot accuracy{over}"
        )

    def _draw(self, score: str = "first_token") -> go.Figure:
        """The three accuracies of every task, and the range of published means."""
        from icl_mech.table.plot import task_table_figure

        return task_table_figure(self, score)

    def table(self, score: str = "first_token") -> pd.DataFrame:
        """The table as text, for people: tasks, then their mean."""
        rows = {}
        for task in self.tasks:
            rows[task] = {
                **{c: str(self.estimate(task, c, score)) for c in ACCURACIES},
                "hypothesis / regular": str(self.ratio(task, score)),
                "layer": layer_name(self.scan.best_layer(task, score)),
                **{_words(c): f"{self.estimate(task, c, score).value:.2f}" for c in CONTROLS},
                "n": str(self.data.sizes["prompt"]),
            }
        rows[MEAN] = {
            **{c: str(self.mean(c, score)) for c in ACCURACIES},
            "hypothesis / regular": str(self.mean_ratio(score)),
            "layer": "",
            **{_words(c): f"{self.mean(c, score).value:.2f}" for c in CONTROLS},
            "n": f"{len(self.tasks)} tasks",
        }
        return pd.DataFrame.from_dict(rows, orient="index")

    def published_table(self) -> pd.DataFrame:
        """Published means and, where the data have them, the tasks of this table, as text."""
        rows = {(MEAN, m): _row(a) for m, a in hendel2023().means.items()}
        rows |= {key: row.to_dict() for key, row in self.published().iterrows()}
        frame = pd.DataFrame.from_dict(rows, orient="index").map("{:.2f}".format)
        frame.index.names = ["task", "model"]
        return frame.rename(columns={"ratio": "hypothesis / regular"})


def _row(accuracies: Accuracies) -> dict[str, float]:
    three = {name: float(getattr(accuracies, name)) for name in ACCURACIES}
    return {**three, "ratio": three["hypothesis"] / three["regular"]}


def _words(name: str) -> str:
    return name.replace("_", " ")
