"""The result of mean-activation patching."""

from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import InputError, choose
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, mean, mean_change, share

#: Names of the controls among `injected`: the mean of all tasks' means; a random direction with the
#: norm of the own task's mean; and the mean of all tasks' means plus a random direction with the
#: norm of the difference between the own task's mean and the mean of all tasks' means.
MEAN, RANDOM, RANDOM_TASK = "mean of tasks", "random", "mean + random"
#: What a matrix shows: accuracy (first token) or log probability (nats).
MEASURES = ("right", "logprob")
#: The kind of values that are averaged: right or wrong, changes of these, or any numbers.
Kind = Literal["share", "change", "number"]


class MeanPatching(TaskResult):
    """Answers to every task's prompts with every mean written in, per prompt.

    `data` holds, over (`task`, `prompt`, `mode`, `layer`, `injected`, `answered`): `right` (the
    top token begins an answer that task `answered` accepts for the same query) and `logprob`
    (nats) of its first token; the same before any edit (`right_before`, `logprob_before`) per
    (`task`, `prompt`, `answered`). `injected` names the tasks, the null task if there is one, and
    the controls `"mean of tasks"`, `"random"` and `"mean + random"`.

    Intervals are 95 %, over queries (`icl_mech.stats`).
    """

    ARRAYS: ClassVar = {
        "right": ("task", "prompt", "mode", "layer", "injected", "answered"),
        "right_before": ("task", "prompt", "answered"),
    }
    QUOTED: ClassVar = (
        "before",
        *with_ends("own", "others"),
        "null",
        "mean_of_tasks",
        "random",
        "followed",
        "n_queries",
    )

    @property
    def layers(self) -> list[int]:
        """Block numbers."""
        return [int(layer) for layer in self.data["layer"].values]

    @property
    def modes(self) -> list[str]:
        """`"replace"`, `"add"`, or both."""
        return [str(mode) for mode in self.data["mode"].values]

    @property
    def injected(self) -> list[str]:
        """The names of the vectors that were written: tasks, null task, controls."""
        return [str(name) for name in self.data["injected"].values]

    def before(self, task: str | None = None, measure: str = "right") -> Estimate:
        """Accuracy (or mean log probability) without an edit."""
        own = self._own(self.data[f"{_measure(measure)}_before"])
        return self._mean(own, task, "share" if measure == "right" else "number")

    def change(
        self,
        injected: str,
        layer: int,
        mode: str = "replace",
        task: str | None = None,
        measure: str = "right",
    ) -> Estimate:
        """The change in a task's own answers when a mean is written: after minus before, paired.

        Args:
            injected: one of `result.injected`; `"own"` is the positive of the paper, `"others"`
                averages the change over the means of all other tasks.
            layer: the block after which it was written.
            mode: `"replace"` or `"add"`.
            task: of the prompts; all by default.
            measure: `"right"` or `"logprob"`.

        Raises:
            InputError: if a name is unknown or a layer was not patched.
        """
        after = self._own(self._at(layer, mode)[_measure(measure)])
        change = after - self._own(self.data[f"{measure}_before"])
        same = xr.DataArray(
            np.equal.outer(self.tasks, self.injected), dims=("task", "injected")
        ).assign_coords(task=self.tasks, injected=self.injected)
        kind: Kind = "change" if measure == "right" else "number"
        if injected == "own":
            return self._mean(change.where(same).mean("injected"), task, kind)
        if injected == "others":
            others = change.where(~same).sel(injected=self.tasks)
            return self._mean(others.mean("injected"), task, kind)
        choose(injected, ("own", "others", *self.injected), "injected vector")
        return self._mean(change.sel(injected=injected), task, kind)

    def followed(self, layer: int, mode: str = "replace") -> Estimate:
        """How often the answer is that of the injected *other* task to the same query.

        Compare it with `followed_before`, the same share without an edit.
        """
        right = self._at(layer, mode)["right"].sel(injected=self.tasks)
        return self._mean(self._off_diagonal(right), None, "share")

    def followed_before(self) -> Estimate:
        """How often a prompt's answer is right for another task without any edit."""
        right = self.data["right_before"].astype(float)
        other = right.where(right["answered"] != right["task"]).mean("answered")
        return self._mean(other, None, "share")

    def matrix(
        self, layer: int, mode: str = "replace", measure: str = "right", answer: str = "source"
    ) -> pd.DataFrame:
        """Source task (rows) x injected mean (columns).

        Args:
            layer: the block after which it was written.
            mode: `"replace"` or `"add"`.
            measure: `"right"` or `"logprob"`.
            answer: `"source"`: change of the source task's own answer, after minus before.
                `"injected"`: change of the injected task's answer to the same query; columns are
                then tasks only.
        """
        choose(answer, ("source", "injected"), "answer")
        after = self._at(layer, mode)[_measure(measure)].astype(float)
        change = (after - self.data[f"{measure}_before"]).mean("prompt")
        if answer == "source":
            found = self._own(change).transpose("task", "injected").values
            return pd.DataFrame(found, self.tasks, self.injected)
        of_tasks = change.sel(injected=self.tasks).transpose("task", "injected", "answered").values
        return pd.DataFrame(np.einsum("tii->ti", of_tasks), self.tasks, self.tasks)

    def full_summary(self) -> pd.DataFrame:
        """One row per (mode, layer), over all tasks' prompts: changes in accuracy, intervals."""
        rows = []
        for mode in self.modes:
            for layer in self.layers:
                before = self.before()
                row = {"mode": mode, "layer": layer, "before": before.value}
                estimates = {k: self.change(v, layer, mode) for k, v in self._kinds_of().items()}
                estimates["followed"] = self.followed(layer, mode)
                for name, e in estimates.items():
                    row |= e.columns(name)
                rows.append(row | {"n_queries": before.n_clusters})
        return pd.DataFrame(rows).set_index(["mode", "layer"])

    def _kinds_of(self) -> dict[str, str]:
        """Columns of the summary, each with the vector that it injects."""
        null = self.provenance["null"]
        kinds = {"own": "own", "others": "others"} | ({"null": null} if null else {})
        return kinds | {"mean_of_tasks": MEAN, "random": RANDOM, "mean_plus_random": RANDOM_TASK}

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        summary = self.full_summary()
        titles = {
            "own": "own mean",
            "others": "other tasks' mean",
            "null": "null task's mean",
            "mean_of_tasks": "mean of tasks",
            "random": "random",
            "mean_plus_random": "mean + random",
        }
        text = pd.DataFrame(index=summary.index)
        text["accuracy before"] = [f"{v:.2f}" for v in summary["before"]]
        for name, title in titles.items():
            if name in summary:
                cells = summary[[name, f"{name}_low", f"{name}_high"]].to_numpy()
                text[title] = [f"{v:+.2f} [{low:+.2f}, {high:+.2f}]" for v, low, high in cells]
        text["injected task answered"] = [f"{v:.2f}" for v in summary["followed"]]
        return text

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, mode, layer, injected, answered)."""
        return self.data.to_dataframe().reset_index()

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = [*super().caveats(), "accuracy is that of the answer's first token"]
        if self.provenance["null"] is None:
            notes.append("the family has no null task: the paper's negative is missing")
        if self.provenance["n_queries"] < self.data.sizes["prompt"]:
            notes.append(
                f"{self.provenance['n_queries']} different queries in "
                f"{self.data.sizes['prompt']} prompts per task; the intervals are over queries"
            )
        for task in self.tasks:
            if self.before(task).value < 0.1:
                notes.append(f"{task}: the model hardly does this task in context: little to lose")
        return notes

    def finding(self) -> str:
        """Whether answers follow the mean of another task.

        `followed` is taken at the block and mode where it is largest. Answers follow the mean if
        its interval lies above that of `followed_before`. If they do not, but other tasks' means
        cost accuracy beyond the interval at some block, the finding says so.
        """
        before = self.followed_before()
        at = [(mode, layer) for mode in self.modes for layer in self.layers]
        mode, layer = max(at, key=lambda place: self.followed(place[1], place[0]).value)
        most = self.followed(layer, mode)
        if most.low > before.high:
            return (
                f"Another task's mean (block {layer}) makes {most.value:.0%} of the answers its "
                f"own, from {before.value:.0%}"
            )
        mode, layer = min(at, key=lambda place: self.change("others", place[1], place[0]).value)
        cost = self.change("others", layer, mode)
        if cost.high < 0:
            lost = f"costs {-cost.value:.2f} of accuracy"
            return f"Another task's mean {lost} after block {layer}; no more is shown"
        return "No other task's mean is shown to change the answers"

    def _draw_task(
        self,
        task: str,
        mode: str | None = None,
        measure: str = "right",
        answer: str = "source",
    ) -> go.Figure:
        from icl_mech.patch.means_plot import mean_patching_figure

        return mean_patching_figure(self, mode, measure, answer, task)

    def _draw(
        self, mode: str | None = None, measure: str = "right", answer: str = "source"
    ) -> go.Figure:
        """Maps of source x injected, one per layer, as `matrix` gives them."""
        from icl_mech.patch.means_plot import mean_patching_figure

        return mean_patching_figure(self, mode, measure, answer)

    def headline(self) -> str:
        return f"{super().headline()}: changes in accuracy ({', '.join(self.tasks)})"

    # --- values -----------------------------------------------------------------------------

    def _at(self, layer: int, mode: str) -> xr.Dataset:
        choose(mode, self.modes, "mode")
        if layer not in self.layers:
            raise InputError(f"layer {layer} was not patched; expected one of {self.layers}")
        return self.data.sel(layer=layer, mode=mode)

    def _own(self, values: xr.DataArray) -> xr.DataArray:
        """The values of the own task's answer, for the prompts of every task."""
        values = values.astype(float)
        return values.where(values["answered"] == values["task"]).mean("answered")

    def _off_diagonal(self, right: xr.DataArray) -> xr.DataArray:
        """How often the injected task's own answer is given, mean over other injected tasks."""
        right = right.astype(float)
        theirs = right.where(right["answered"] == right["injected"]).mean("answered")
        return theirs.where(theirs["injected"] != theirs["task"]).mean("injected")

    def _mean(
        self,
        values: xr.DataArray,
        task: str | None,
        kind: Kind,
    ) -> Estimate:
        """Mean over (`task`, `prompt`), its interval over queries."""
        queries = self.data["query"].transpose("task", "prompt")
        if task is not None:
            choose(task, self.tasks, "task")
            values, queries = values.sel(task=[task]), queries.sel(task=[task])
        flat, clusters = values.transpose("task", "prompt").values.ravel(), queries.values.ravel()
        if kind == "share":
            return share(flat, clusters)
        return (mean_change if kind == "change" else mean)(flat, clusters=clusters)


def _measure(measure: str) -> str:
    return choose(measure, MEASURES, "measure")
