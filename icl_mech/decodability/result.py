"""The result of `task_decodability`."""

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.decodability.chance import chances
from icl_mech.decodability.neighbours import decoded
from icl_mech.decodability.notes import notes
from icl_mech.decodability.plan import half_of
from icl_mech.errors import InputError, choose
from icl_mech.layers import blocks
from icl_mech.results import TaskResult, few_queries, with_ends
from icl_mech.stats import Estimate, mean_change, shares, widened, within_1

#: The controls: prompts with shuffled labels, the zero-shot query alone, and the query after an
#: instruction.
CONTROLS = ("shuffled", "input", "instruction")
#: How an answer is judged, see `Answered`.
SCORES = ("exact", "first_token")


class TaskDecodability(TaskResult):
    """The task that the neighbours of every prompt vote for, at every layer.

    `data` holds, over (`shots`, `task`, `point`, `layer`): `credit` (1 if the vote is right, 0 if
    not, a share if tasks tie), the same under shuffled labels (`shuffled_credit`) and for the query
    alone (`input_credit`, without `shots`), for the query after an instruction if prompts begin
    with one (`instruction_credit`, also without), `votes` (also over `voted`: the share of the
    neighbours that are of each task), `pair_credit` (also over `other`: credit if that task is the
    only other one in the pool), `sensitivity` (also over `setting`: credit under it), and
    `probe_task` (the index of the task that the linear probe predicts). Over (`shots`, `half`,
    `layer`): `half_td`, TD of one half of the queries with the other half out of the pool. Per
    (`shots`, `task`, `point`): `exact` and `first_token` (whether the answer was right), `logprob`
    of the answer (nats) and `answer_tokens` (the number of tokens of the answer); per (`task`,
    `point`): `query` and `query_id`.

    TD is reported at a layer that was chosen on other queries (`held_out`), because the largest TD
    of many layers is above chance even without any task. Intervals are 95 % bootstraps over
    queries, because prompts that share a query are not independent; intervals of TD are wider by
    the factor `icl_mech.stats.MUTUAL`, because neighbours vote for one another. `shots` is always
    one of `result.shots`; the largest by default.
    """

    ARRAYS: ClassVar = {
        "credit": ("shots", "task", "point", "layer"),
        "half_td": ("shots", "half", "layer"),
        "exact": ("shots", "task", "point"),
        "query_id": ("task", "point"),
    }
    QUOTED: ClassVar = (
        *with_ends("td"),
        "shuffled",
        "input",
        "probe",
        "accuracy",
        "chance",
        "layer_first_half",
        "layer_second_half",
        "n_queries",
    )

    @property
    def shots(self) -> list[int]:
        """Numbers of demonstrations, as asked for."""
        return [int(n) for n in self.data["shots"].values]

    @property
    def layers(self) -> list[int]:
        """Block numbers."""
        return [int(layer) for layer in self.data["layer"].values]

    @property
    def chance(self) -> float:
        """TD of a representation without information about the task, see `chance_of`."""
        return self.chance_of()

    def chance_of(self, task: str | None = None) -> float:
        """TD of a representation without information, on all tasks' points or on one task's.

        It is 1 / (number of tasks) if the tasks share their inputs, and less otherwise: a point's
        query is then left out of its own task only, which has fewer possible neighbours than each
        other task.
        """
        if self.provenance["shared_inputs"]:
            return 1 / len(self.tasks)
        if task is None:
            return float(self._chances.mean())
        return float(self._chances[self.tasks.index(choose(task, self.tasks, "task"))])

    @cached_property
    def _chances(self) -> np.ndarray:
        queries = self.data["query_id"].transpose("task", "point").values
        labels = np.repeat(np.arange(len(queries)), queries.shape[1])
        by_query = self.provenance["leave_out"] == "query"
        groups = queries.ravel() if by_query else np.arange(queries.size)
        return chances(labels, groups, self.provenance["k"])

    def td(
        self, shots: int | None = None, task: str | None = None, control: str | None = None
    ) -> list[Estimate]:
        """TD at every layer, of all tasks' points or of one task's.

        Each interval is for a layer that was fixed beforehand. For a layer that is chosen because
        TD is large there, see `held_out` and `peak`.

        Args:
            shots: how many demonstrations.
            task: count only this task's points; the pool stays whole.
            control: `"shuffled"`, `"input"` or `"instruction"` instead of the few-shot prompts.
                `"shuffled"` is NaN with one shot, where there are no labels to shuffle.

        Raises:
            InputError: if a name or number is unknown, or the run had no controls.
        """
        return self._td(self._credit(shots, control), task)

    def peak(
        self, shots: int | None = None, task: str | None = None, control: str | None = None
    ) -> Estimate:
        """The largest TD of all layers, with an interval that accounts for the choice of layer.

        The intervals of all layers hold jointly with 95 %. The value itself is too large on
        average, because the layer is chosen on the points that it is reported on.
        """
        credit = self._credit(shots, control)
        return max(self._td(credit, task, len(self.layers)), key=lambda e: e.value)

    def probe(self, shots: int | None = None, task: str | None = None) -> list[Estimate]:
        """Accuracy of the linear probe at every layer, on queries that it was not trained on.

        Raises:
            InputError: if the run had no probe.
        """
        return self._means(self._probe_right(shots), task)

    def probe_held_out(self, shots: int | None = None, task: str | None = None) -> Estimate:
        """Accuracy of the linear probe at the layers of `held_out`.

        Raises:
            InputError: if the run had no probe.
        """
        right = self._pick_held_out(self._probe_right(shots), shots)
        return self._means(right, task)[0]

    def best_layer(self, shots: int | None = None, task: str | None = None) -> int:
        """The layer with the largest TD, the earliest of equals.

        As in the paper, it is chosen on the points that TD is measured on, so TD there is too large
        on average; see `held_out`.
        """
        values = [e.value for e in self.td(shots, task)]
        return self.layers[int(np.argmax(values))]

    def held_out(
        self, shots: int | None = None, task: str | None = None, control: str | None = None
    ) -> Estimate:
        """TD at a layer chosen on other queries.

        The queries are cut into two halves. Each half's points are scored at the layer that is best
        for the other half's few-shot prompts, over all tasks, in a pool of that other half alone
        (`half_td`). If nothing tells the tasks apart, TD is at chance, and the interval's lower end
        is above chance in less than 5 % of runs (`tests/slow/test_decodability_noise.py`).

        Raises:
            InputError: as `td`; if a result of an earlier version lacks what the choice needs.
        """
        return self._td(self.at_held_out(shots, control), task)[0]

    def held_out_layers(self, shots: int | None = None) -> tuple[int, int]:
        """The layers that `held_out` uses: for the first half of the queries, for the second."""
        if "half_td" not in self.data:
            raise InputError(
                "this result was written by an earlier version, which chose layers in a pool of "
                "all queries; expected task_decodability to be run again"
            )
        best = self.data["half_td"].sel(shots=self._shots(shots)).argmax("layer")
        return self.layers[int(best.sel(half=1))], self.layers[int(best.sel(half=0))]

    def at_held_out(self, shots: int | None = None, control: str | None = None) -> xr.DataArray:
        """Credit of every (`task`, `point`) at the layer chosen on the other half's queries."""
        return self._pick_held_out(self._credit(shots, control), shots)

    def _pick_held_out(self, values: xr.DataArray, shots: int | None) -> xr.DataArray:
        for_first, for_second = self.held_out_layers(shots)
        queries = self.data["query_id"]
        return xr.where(
            queries.copy(data=half_of(queries.values)) == 0,
            values.sel(layer=for_first, drop=True),
            values.sel(layer=for_second, drop=True),
        )

    def above(self, control: str, shots: int | None = None, task: str | None = None) -> Estimate:
        """TD minus that of a control on the same points, at the layers of `held_out`."""
        difference = self.at_held_out(shots) - self.at_held_out(shots, control)
        values, queries = self._by_point(difference, task), self._queries(task)
        found = mean_change(values, clusters=queries)
        return widened([found], len(np.unique(queries)))[0]

    def without_difference(self, shots: int | None = None) -> list[int]:
        """Layers at which all tasks tie for every point."""
        votes = self.data["votes"].sel(shots=self._shots(shots)).transpose("layer", ...)
        spread = votes.max("voted") - votes.min("voted")
        tied = (spread < 1e-6).all(("task", "point")).values
        return [layer for layer, same in zip(self.layers, tied, strict=True) if same]

    def confusion(self, shots: int | None = None, layer: int | None = None) -> pd.DataFrame:
        """Share of every task's points (rows) that are decoded as each task (columns).

        Args:
            shots: how many demonstrations.
            layer: by default the best one.
        """
        at = self._layer(layer, shots)
        votes = self.data["votes"].sel(shots=self._shots(shots), layer=at)
        won = decoded(votes.transpose("task", "point", "voted").values.astype(float))
        return pd.DataFrame(won.mean(axis=1), self.tasks, self.tasks).rename_axis(
            index="task", columns="decoded as"
        )

    def pairwise(self, shots: int | None = None, layer: int | None = None) -> pd.DataFrame:
        """TD of every two tasks with nothing else in the pool; the diagonal is empty.

        Chance is 0.5 if the tasks share their inputs, and less if they do not (`chance_of`).

        Args:
            shots: how many demonstrations.
            layer: by default the best one for all tasks together.
        """
        at = self._layer(layer, shots)
        credit = self.data["pair_credit"].sel(shots=self._shots(shots), layer=at)
        means = credit.mean("point").transpose("task", "other").values
        return pd.DataFrame((means + means.T) / 2, self.tasks, self.tasks)

    def sensitivity(self, shots: int | None = None) -> pd.DataFrame:
        """TD under other settings, one varied at a time, a row each.

        The settings are the number of neighbours, the number of points, the distance, the
        normalisation and what is left out. `td` is at the layers of `held_out`; `best_layer` has
        the largest TD over all queries.
        """
        rows = {}
        cells = self.data["sensitivity"].sel(shots=self._shots(shots))
        at_held_out = self._pick_held_out(cells, shots)
        for setting in cells["setting"].values:
            by_layer = cells.sel(setting=setting).mean(("task", "point"))
            rows[str(setting)] = {
                "td": float(at_held_out.sel(setting=setting).mean()),
                "best_layer": self.layers[int(by_layer.argmax("layer"))],
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")

    def accuracy(
        self, shots: int | None = None, task: str | None = None, score: str = "exact"
    ) -> Estimate:
        """Share of the same few-shot prompts that the model answers right."""
        choose(score, SCORES, "score")
        right = self.data[score].sel(shots=self._shots(shots))
        return self._means(right, task)[0]

    def instruction_accuracy(self, task: str | None = None) -> Estimate:
        """Share of whole answers that are right after the instruction, without demonstrations.

        Raises:
            InputError: if the prompts of this run begin with no instruction.
        """
        self._credit(None, "instruction")
        return self._means(self.data["instruction_exact"].expand_dims("layer"), task)[0]

    # --- tables -----------------------------------------------------------------------------

    def full_summary(self) -> pd.DataFrame:
        """TD with intervals, controls and probe at the layers of `held_out`, and accuracy.

        One row per number of shots and task; the task `"all"` comes first.
        """
        rows = [self._row(n, task) for n in self.shots for task in (None, *self.tasks)]
        return pd.DataFrame(rows).set_index(["shots", "task"])

    def _row(self, shots: int, task: str | None) -> dict[str, Any]:
        estimates = {"td": self.held_out(shots, task)}
        for control in CONTROLS:
            if f"{control}_credit" in self.data:
                estimates[control] = self.held_out(shots, task, control)
        if "probe_task" in self.data:
            estimates["probe"] = self.probe_held_out(shots, task)
        estimates["accuracy"] = self.accuracy(shots, task)
        if "instruction_credit" in self.data:
            estimates["instruction_accuracy"] = self.instruction_accuracy(task)
        first, second = self.held_out_layers(shots)
        row: dict[str, Any] = {"shots": shots, "task": task or "all"}
        row |= {"layer_first_half": first, "layer_second_half": second}
        for name, e in estimates.items():
            row |= e.columns(name)
        return row | {
            "first_token_accuracy": self.accuracy(shots, task, "first_token").value,
            "chance": self.chance_of(task),
            "n_points": self.data.sizes["point"],
            "n_queries": self._n_queries(task),
        }

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        return as_text(self.full_summary())

    def to_frame(self) -> pd.DataFrame:
        """One row per (shots, task, point, layer)."""
        dims = {"shots", "task", "point", "layer"}
        kept = [name for name, array in self.data.items() if set(array.dims) <= dims]
        frame = self.data[kept].to_dataframe().reset_index()
        if "probe_task" in frame:
            frame["probe_task"] = [self.tasks[i] for i in frame["probe_task"]]
        return frame

    def caveats(self) -> list[str]:
        """What a reader of the numbers must know, a line each."""
        return [*super().caveats(), *notes(self)]

    def few(self) -> str:
        n = self.data.sizes["point"]
        return few_queries({task: (self._n_queries(task), n) for task in self.tasks})

    def finding(self, shots: int | None = None, task: str | None = None) -> str:
        """Where the task can be read, and whether a control can be read as well.

        The task can be read if the interval of TD at a layer chosen on other queries (`held_out`)
        lies above chance. TD is first above chance after the first block whose interval, widened so
        that all layers' intervals hold jointly, lies above chance. A control (query alone,
        instruction alone, shuffled labels) gives the task away if it is above chance too, and TD is
        not above it beyond the interval (`above`).
        """
        if "half_td" not in self.data:
            return ""
        found, chance = self.held_out(shots, task), self.chance_of(task)
        if not found.low > chance:
            return "The task is not shown to be readable at any layer"
        said = f"The task can be read after {blocks(self.held_out_layers(shots))}"
        said += f" (TD {found.value:.2f})"
        for control, what in (("input", "query"), ("instruction", "instruction")):
            if self._gives_away(control, shots, task):
                return f"{said}, but the {what} alone gives it away"
        if self._gives_away("shuffled", shots, task):
            return f"{said}, from shuffled labels too"
        together = self._td(self._credit(shots, None), task, len(self.layers))
        above = (layer for layer, e in zip(self.layers, together, strict=True) if e.low > chance)
        first = next(above, None)
        if first is None or first >= min(self.held_out_layers(shots)):
            return said
        return f"{said}, first above chance after block {first}"

    def _gives_away(self, control: str, shots: int | None, task: str | None) -> bool:
        """Whether a control is above chance, and TD not above the control."""
        if f"{control}_credit" not in self.data:
            return False
        alone = self.held_out(shots, task, control)
        return bool(alone.low > self.chance_of(task) and self.above(control, shots, task).low <= 0)

    def _draw_task(
        self, task: str, shots: int | None = None, layer: int | None = None
    ) -> go.Figure:
        from icl_mech.decodability.plot import decodability_figure

        return decodability_figure(self, shots, layer, task)

    def _draw(self, shots: int | None = None, layer: int | None = None) -> go.Figure:
        """TD by layer for every number of shots; confusion and pairwise TD at one layer."""
        from icl_mech.decodability.plot import decodability_figure

        return decodability_figure(self, shots, layer)

    def headline(self) -> str:
        return f"{super().headline()} (chance {self.chance:.2f})"

    # --- values -----------------------------------------------------------------------------

    def _credit(self, shots: int | None, control: str | None) -> xr.DataArray:
        """Credit over (`task`, `point`, `layer`)."""
        if control is None:
            return self.data["credit"].sel(shots=self._shots(shots))
        name = f"{choose(control, CONTROLS, 'control')}_credit"
        if name not in self.data:
            wanted = "instruction='true'" if control == "instruction" else "controls=True"
            raise InputError(
                f"this run has no control {control!r}; expected task_decodability(..., {wanted})"
            )
        values = self.data[name]
        return values.sel(shots=self._shots(shots)) if "shots" in values.dims else values

    def _probe_right(self, shots: int | None) -> xr.DataArray:
        """Whether the probe is right, over (`task`, `point`, `layer`)."""
        if "probe_task" not in self.data:
            raise InputError("this run had no probe; expected task_decodability(..., probe=True)")
        said = self.data["probe_task"].sel(shots=self._shots(shots))
        return said == xr.DataArray(np.arange(len(self.tasks)), dims="task")

    def _td(self, credit: xr.DataArray, task: str | None, n_choices: int = 1) -> list[Estimate]:
        """Mean credit at every layer, with intervals that allow for mutual neighbours."""
        return within_1(widened(self._means(credit, task), self._n_queries(task), n_choices))

    def _means(self, values: xr.DataArray, task: str | None) -> list[Estimate]:
        """Means over points, with intervals over queries; one per layer if there are layers."""
        return shares(
            np.atleast_2d(self._by_point(values.astype(float), task)), self._queries(task)
        )

    def _by_point(self, values: xr.DataArray, task: str | None) -> np.ndarray:
        """The points of all tasks, or of one, along the last axis."""
        if task is not None:
            values = values.sel(task=[choose(task, self.tasks, "task")])
        found = values.transpose(..., "task", "point").values
        return found.reshape(*found.shape[:-2], -1)

    def _queries(self, task: str | None) -> np.ndarray:
        return self._by_point(self.data["query_id"], task)

    def _n_queries(self, task: str | None) -> int:
        """Number of different queries of all tasks, or of one."""
        return len(np.unique(self._queries(task)))

    def _shots(self, shots: int | None) -> int:
        if shots is None:
            return max(self.shots)
        if shots not in self.shots:
            raise InputError(f"no run with {shots} shots; expected one of {self.shots}")
        return shots

    def _layer(self, layer: int | None, shots: int | None) -> int:
        if layer is None:
            return self.best_layer(shots)
        if layer not in self.layers:
            raise InputError(f"layer {layer} was not measured; expected one of {self.layers}")
        return layer


_COLUMNS = {
    "td": "TD",
    "shuffled": "shuffled labels",
    "input": "query alone",
    "instruction": "instruction alone",
    "probe": "linear probe",
    "accuracy": "accuracy",
    "instruction_accuracy": "accuracy, instruction alone",
}


def as_text(summary: pd.DataFrame) -> pd.DataFrame:
    """Numbers with their intervals, for people."""
    text = pd.DataFrame(index=summary.index)
    for name, title in _COLUMNS.items():
        if name in summary:
            text[title] = [
                "–" if np.isnan(v) else f"{v:.2f} [{low:.2f}, {high:.2f}]"
                for v, low, high in summary[[name, f"{name}_low", f"{name}_high"]].to_numpy()
            ]
    layers = zip(summary["layer_first_half"], summary["layer_second_half"], strict=True)
    # Each is chosen on one half of the queries; the two agree if the choice is clear.
    text["layers"] = [", ".join(str(layer) for layer in sorted(set(pair))) for pair in layers]
    return text
