"""What a model encodes and solves, checkpoint by checkpoint."""

from collections.abc import Mapping
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.checkpoints.emergence import MEAN, Onset, Rise, rise_of, together
from icl_mech.checkpoints.notes import notes
from icl_mech.errors import InputError, choose
from icl_mech.localize import Located, TaskMap
from icl_mech.results import TaskResult, few_tasks, with_ends
from icl_mech.stats import Estimate, few_mean, share, shares, widened, within_1
from icl_mech.stats.onset import FRACTION, known_step

#: Shares of right answers: with demonstrations, without, and of the most frequent answer.
ACCURACIES = ("regular", "baseline", "prior")


class Checkpoints(TaskResult):
    """The arrays of a `TaskMap` per checkpoint, along a first axis `step`.

    `data` holds, over (`step`, `task`, ...):

    - `encoding` by `point` and `layer`: task decodability (TD) of Han et al. 2024 (1 right, 0
      wrong, a share for ties);
    - `transfer` by `prompt` and `layer`: right with theta injected after the layer;
    - `lens` by `prompt` and `layer`: the probability of the answer;
    - `regular` and `baseline` by `prompt`: right with demonstrations, and without.

    Over (`step`, `half`, `layer`): `half_td`, TD of one half of the queries with the other half out
    of the pool. Without `step`: `query`, what prompts ask; `query_half`, the half to which a query
    belongs; `prior`, whether the most frequent answer is right; `chance`, TD of a representation
    without information about the task.

    TD over training is read at fixed layers, which are chosen at the last checkpoint: each half of
    the queries at the layer that is best for the other half. Intervals of one task are over its
    queries. Intervals of the mean over tasks are over tasks: they hold for other tasks, drawn as
    these were.
    """

    ARRAYS: ClassVar = {
        "encoding": ("step", "task", "point", "layer"),
        "transfer": ("step", "task", "prompt", "layer"),
        "regular": ("step", "task", "prompt"),
        "baseline": ("step", "task", "prompt"),
        "half_td": ("step", "half", "layer"),
        "query": ("task", "point"),
        "query_half": ("task", "point"),
    }
    QUOTED: ClassVar = (*with_ends("td", "few_shot"), "zero_shot", "best_transfer")

    @property
    def steps(self) -> list[int]:
        """Updates done at each checkpoint, rising."""
        return [int(step) for step in self.data["step"].values]

    @property
    def layers(self) -> list[int]:
        """Block numbers."""
        return [int(layer) for layer in self.data["layer"].values]

    def at(self, step: int | None = None) -> TaskMap:
        """The task map of one checkpoint, as `localize` gives it; the last one by default.

        Raises:
            InputError: where there is no such checkpoint, with the nearest.
        """
        return self._maps[self._step(step)]

    @cached_property
    def _maps(self) -> dict[int, TaskMap]:
        return {
            step: TaskMap(self.data.sel(step=step, drop=True), run)
            for step, run in zip(self.steps, self.provenance["runs"], strict=True)
        }

    def _step(self, step: int | None) -> int:
        return known_step(self.steps, step)

    # --- task decodability --------------------------------------------------------------------

    def td_layers(self, step: int | None = None) -> tuple[int, int]:
        """The layers at which TD is read: for the first half of the queries, for the second.

        Args:
            step: at which checkpoint they are chosen; the last one by default.
        """
        best = self.data["half_td"].sel(step=self._step(step)).argmax("layer")
        return self.layers[int(best.sel(half=1))], self.layers[int(best.sel(half=0))]

    def td(
        self, step: int | None = None, task: str | None = None, layer: int | None = None
    ) -> Estimate:
        """Task decodability at a checkpoint.

        Args:
            step: the last one by default.
            task: of this task's points, with an interval over queries; by default the mean over
                tasks, with an interval over tasks (none for fewer than four).
            layer: by default those of `td_layers`, the same at every checkpoint.

        Raises:
            InputError: where there is no such step, task or layer.
        """
        credit = self._read_at(layer).sel(step=self._step(step))
        return self._over_tasks(credit, task, votes=True)

    def td_by_layer(self, step: int | None = None, task: str | None = None) -> list[Estimate]:
        """TD after every block, as `td`; each interval is for a layer that was fixed beforehand."""
        return [self.td(step, task, layer) for layer in self.layers]

    def _read_at(self, layer: int | None) -> xr.DataArray:
        """Credit over (`step`, `task`, `point`)."""
        if layer is None:
            return self._held_out
        if layer not in self.layers:
            raise InputError(f"layer {layer} was not measured; expected one of {self.layers}")
        return self.data["encoding"].sel(layer=layer, drop=True)

    @cached_property
    def _held_out(self) -> xr.DataArray:
        """Credit of every point, at the layer that is best for the other half at the end."""
        first, second = self.td_layers()
        credit = self.data["encoding"]
        found = xr.where(
            self.data["query_half"] == 0,
            credit.sel(layer=first, drop=True),
            credit.sel(layer=second, drop=True),
        )
        return found.transpose("step", "task", "point")

    # --- accuracy, transfer, layers -----------------------------------------------------------

    def accuracy(
        self, step: int | None = None, task: str | None = None, which: str = "regular"
    ) -> Estimate:
        """Share of prompts whose first token is right; intervals as of `td`.

        Args:
            step: the last one by default.
            task: one task, or the mean over all by default.
            which: `"regular"` (few-shot), `"baseline"` (zero-shot), or `"prior"` (always the most
                frequent answer; the same at every step).

        Raises:
            InputError: where there is no such step, task or accuracy.
        """
        array = self.data[choose(which, ACCURACIES, "accuracy")]
        at = self._step(step)
        right = array.sel(step=at) if "step" in array.dims else array
        return self._over_tasks(right, task)

    def transfer(self, step: int | None = None, task: str | None = None) -> list[Estimate]:
        """Share of zero-shot prompts that are right with theta injected, by layer; as `td`."""
        right = self.data["transfer"].sel(step=self._step(step))
        return [self._over_tasks(right.sel(layer=layer), task) for layer in self.layers]

    def map_layers(self) -> pd.DataFrame:
        """The layers that `localize`'s read-outs name, at every checkpoint, with intervals.

        One row per (`step`, `task`, `what`, `readout`): `layer`, `low`, `high`, the share of
        resamples in which there is one (`found`), and why none is named (`why`).
        """
        rows: dict[tuple, dict[str, Any]] = {}
        for step, task in ((s, t) for s in self.steps for t in self.tasks):
            for (what, readout), located in self.at(step).layers_of(task).items():
                rows[step, task, what, readout] = {
                    "layer": located.estimate.value,
                    "low": located.estimate.low,
                    "high": located.estimate.high,
                    "found": located.found,
                    "why": located.why,
                }
        frame = pd.DataFrame.from_dict(rows, orient="index")
        return frame.rename_axis(["step", "task", "what", "readout"])

    def _over_tasks(self, values: xr.DataArray, task: str | None, votes: bool = False) -> Estimate:
        """The mean of a task with an interval over queries, or of all tasks with one over tasks.

        If all tasks score the same (such as 0 before training), they do not show how tasks vary.
        Then this interval is over queries, too.

        Args:
            values: over `task` and `point` or `prompt`.
            task: None for all.
            votes: whether values are votes of neighbours, which are correlated (see `rise_of`).
        """
        names = self.tasks if task is None else [choose(task, self.tasks, "task")]
        each = values.transpose("task", ...).sel(task=names).values.astype(float)
        of_tasks = each.mean(axis=1)
        if np.ptp(of_tasks) > 0:
            return share(of_tasks, None)
        asked = self.data["query"].transpose("task", "point").sel(task=names).values
        queries = asked[:, : each.shape[1]].ravel()
        found = shares(each.reshape(1, -1), queries)
        return within_1(widened(found, len(np.unique(queries))))[0] if votes else found[0]

    # --- when ---------------------------------------------------------------------------------

    @cached_property
    def rises(self) -> Mapping[str, tuple[Rise, Rise]]:
        """How TD and few-shot accuracy rise over the steps, by task, and `"mean"` over all."""
        credit = self._held_out.transpose("task", "step", "point").values.astype(float)
        right = self.data["regular"].transpose("task", "step", "prompt").values.astype(float)
        asked = self.data["query"].transpose("task", "point").values
        # One number per query for both curves, so that they are resampled together.
        names, index = np.unique(asked, return_inverse=True)
        queries, k = index.reshape(asked.shape), len(names)
        n = right.shape[-1]
        found = {
            task: (
                rise_of(credit[[i]], queries[[i]], k, votes=True),
                rise_of(right[[i]], queries[[i], :n], k),
            )
            for i, task in enumerate(self.tasks)
        }
        every = rise_of(credit, queries, k, votes=True), rise_of(right, queries[:, :n], k)
        return {**found, MEAN: every}

    def onset(self, task: str | None = None, fraction: float = FRACTION) -> dict[str, Onset]:
        """When TD (`"encoding"`) and few-shot accuracy (`"accuracy"`) have risen, and the `"lead"`.

        See `onsets`.

        Args:
            task: one task; by default the mean over all.
            fraction: of the whole rise, between 0 and 1.

        Raises:
            InputError: where there is no such task, or the fraction cannot work.
        """
        name = MEAN if task is None else choose(task, self.tasks, "task")
        return together(self.steps, *self.rises[name], fraction)

    def onsets(self, fraction: float = FRACTION) -> pd.DataFrame:
        """The steps at which encoding and accuracy have risen, and how far they are apart.

        An onset is the step at which a curve has gone a fraction of the way from its value at the
        first checkpoint to its value at the last, for good. Between checkpoints the curve is taken
        as straight on a logarithmic axis of steps (`icl_mech.stats.onset.log_position`). Otherwise
        onsets are those of `icl_mech.synthetic.onsets`. An onset is NaN if the curve has not risen:
        the last checkpoint is not better than the first beyond the 95 % interval of their
        difference.

        Args:
            fraction: of the whole rise, between 0 and 1.

        Returns:
            A row per task, and `"mean"` for the mean curve over these tasks: `encoding`,
            `accuracy` and `lead` = accuracy - encoding (steps; positive if encoding comes first),
            with the ends of 95 % bootstrap intervals over queries. Both curves are resampled
            together.

        Raises:
            InputError: where the fraction is not between 0 and 1.
        """
        rows = {}
        for name in (*self.tasks, MEAN):
            row: dict[str, float] = {}
            for what, found in self.onset(None if name == MEAN else name, fraction).items():
                row |= found.estimate.columns(what)
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")

    def lead(self, fraction: float = FRACTION) -> Estimate:
        """By how many steps encoding precedes accuracy; negative if it comes later.

        Mean over the tasks in which both rose, with Student's t interval over these tasks (`n`).
        """
        leads = np.array([self.onset(t, fraction)["lead"].estimate.value for t in self.tasks])
        return few_mean(leads[~np.isnan(leads)])

    # --- tables -------------------------------------------------------------------------------

    def full_summary(self) -> pd.DataFrame:
        """One row per checkpoint and task, and per checkpoint for the mean over tasks.

        `best_td` and `best_transfer` are the largest values over all layers, with their layers.
        They are chosen and reported on the same prompts, so they are too large on average.
        `formation_*` and `decoding_*` are the layers of `TaskMap.full_summary`. `*_onset` and
        `lead` are those of `onsets`, the same in all rows of a task.
        """
        onsets = self.onsets().rename(columns=lambda c: c.replace("encoding", "encoding_onset"))
        onsets = onsets.rename(columns=lambda c: c.replace("accuracy", "accuracy_onset"))
        rows = []
        for step in self.steps:
            layers = self.at(step).full_summary()
            for task in (MEAN, *self.tasks):
                rows.append(self._row(step, task, layers) | onsets.loc[task].to_dict())
        return pd.DataFrame(rows).set_index(["step", "task"])

    def _row(self, step: int, name: str, layers: pd.DataFrame) -> dict[str, Any]:
        task = None if name == MEAN else name
        row: dict[str, Any] = {"step": step, "task": name}
        row |= self.td(step, task).columns("td")
        row |= self.accuracy(step, task).columns("few_shot")
        row |= self.accuracy(step, task, "baseline").columns("zero_shot")
        row["label_prior"] = self.accuracy(step, task, "prior").value
        chance = self.data["chance"]
        row["chance"] = float(chance.mean() if task is None else chance.sel(task=task))
        for what, found in (
            ("td", self.td_by_layer(step, task)),
            ("transfer", self.transfer(step, task)),
        ):
            values = [e.value for e in found]
            row |= {f"best_{what}": max(values), f"best_{what}_layer": int(np.argmax(values))}
        if task is not None:
            located = [c for c in layers if c.startswith(("formation_", "decoding_"))]
            row |= layers.loc[task, located].to_dict()
        return row

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for step in self.steps:
            rows[f"{step:,}"] = {
                "TD": _text(self.td(step)),
                "few-shot": _text(self.accuracy(step)),
                "zero-shot": f"{self.accuracy(step, which='baseline').value:.2f}",
                "θ at its best layer": f"{max(e.value for e in self.transfer(step)):.2f}",
                **{f"{what} after": self._named(step, what) for what in ("formation", "decoding")},
            }
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")
        return table.rename(columns={"formation after": "formed", "decoding after": "decoded"})

    def _named(self, step: int, what: str) -> str:
        """The range over tasks of the layer at which theta starts (or stops) to work."""
        found: list[Located] = [
            self.at(step).layers_of(task)[what, "transfer"] for task in self.tasks
        ]
        named = [int(f.estimate.value) for f in found if not f.why]
        if not named:
            return "none"
        return f"{min(named)} to {max(named)}" if min(named) < max(named) else str(named[0])

    def few(self) -> str:
        return "; ".join(filter(None, [super().few(), few_tasks(len(self.tasks))]))

    def finding(self) -> str:
        """Whether and when encoding and accuracy rise over training, and which comes first.

        A curve rises if its last checkpoint is above its first beyond the 95 % interval (`onset`).
        The order is stated if the interval of the lead excludes 0.
        """
        found = self.onset()
        when = {what: found[what].estimate.value for what in ("encoding", "accuracy")}
        rose = [what for what, step in when.items() if step == step]
        if not rose:
            return "Neither encoding nor accuracy is shown to rise"
        if len(rose) == 1:
            (other,) = set(when) - set(rose)
            at = f"{rose[0].capitalize()} rises (half by step {when[rose[0]]:,.0f})"
            return f"{at}, {other} is not shown to"
        said = f"half by step {when['encoding']:,.0f} against {when['accuracy']:,.0f}"
        lead = found["lead"].estimate
        if lead.low > 0:
            return f"Encoding rises before accuracy: {said}"
        if lead.high < 0:
            return f"Encoding rises after accuracy: {said}"
        return f"Encoding and accuracy rise, which first is not told: {said}"

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        return super().caveats() + notes(self)

    def to_frame(self) -> pd.DataFrame:
        """One row per (step, task, read-out, prompt, layer), as `TaskMap.to_frame`."""
        parts = [self.at(step).to_frame().assign(step=step) for step in self.steps]
        frame = pd.concat(parts, ignore_index=True)
        return frame[["step", *(c for c in frame if c != "step")]]

    def _draw(self) -> go.Figure:
        """TD and accuracy over training; TD and theta's transfer by layer and step."""
        from icl_mech.checkpoints.plot import checkpoints_figure

        return checkpoints_figure(self)


def _text(e: Estimate) -> str:
    """An estimate as text; if it has no interval, the caveats say why."""
    return f"{e.value:.2f}" if e.low != e.low else str(e)
