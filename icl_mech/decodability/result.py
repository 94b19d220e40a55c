"""What task decodability found."""

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.decodability.chance import own_inputs_chances
from icl_mech.decodability.intervals import widened, within_1
from icl_mech.decodability.neighbours import decoded
from icl_mech.decodability.notes import notes
from icl_mech.decodability.plan import half_of
from icl_mech.errors import InputError, choose
from icl_mech.results import TaskResult
from icl_mech.stats import Estimate, mean_change, shares

#: What TD is compared with: prompts with shuffled labels, the zero-shot query alone, and the query
#: after an instruction.
CONTROLS = ("shuffled", "input", "instruction")
#: How an answer is judged, see `Answered`.
SCORES = ("exact", "first_token")


class TaskDecodability(TaskResult):
    """Which task the neighbours of every prompt vote for, at every layer.

    `data` holds, over (`shots`, `task`, `point`, `layer`): `credit` (1 where the vote is right, 0
    where not, a share where tasks tie), the same under shuffled labels (`shuffled_credit`) and for
    the query alone (`input_credit`, without `shots`), for the query after an instruction where
    prompts begin with one (`instruction_credit`, also without), `votes` (also over `voted`: the
    share of the neighbours that are of each task), `pair_credit` (also over `other`: credit where
    only that task is in the pool too), `sensitivity` (also over `setting`: credit under it), and
    `probe_task` (the index of the task that the linear probe says). Over (`shots`, `half`,
    `layer`): `half_td`, TD of one half of the queries with the other out of the pool. Per
    (`shots`, `task`, `point`): `exact` and `first_token` (the answer was right), `logprob` of the
    answer (nats) and `answer_tokens` (how many the answer has); per (`task`, `point`): `query` and
    `query_id`.

    TD is reported at a layer that was chosen on other queries (`held_out`): the largest of many
    layers would be above chance without any task. Intervals are 95 % bootstraps over queries,
    as prompts that share a query are not independent; those of TD are wider by
    `icl_mech.decodability.intervals.MUTUAL`, as neighbours vote for one another. `shots` is always
    one of `result.shots`; the largest by default.
    """

    ARRAYS: ClassVar = {
        "credit": ("shots", "task", "point", "layer"),
        "half_td": ("shots", "half", "layer"),
        "exact": ("shots", "task", "point"),
        "query_id": ("task", "point"),
    }

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
        """What a representation that says nothing scores, see `chance_of`."""
        return self.chance_of()

    def chance_of(self, task: str | None = None) -> float:
        """What a representation that says nothing scores, on all tasks' points or on one task's.

        1 / (number of tasks) where these share their inputs, else less (`own_inputs_chances`).
        """
        if self.provenance["shared_inputs"]:
            return 1 / len(self.tasks)
        if task is None:
            return float(self._chances.mean())
        return float(self._chances[self.tasks.index(choose(task, self.tasks, "task"))])

    @cached_property
    def _chances(self) -> np.ndarray:
        queries = self.data["query_id"].transpose("task", "point").values
        return own_inputs_chances(queries, self.provenance["k"], self.provenance["leave_out"])

    def td(
        self, shots: int | None = None, task: str | None = None, control: str | None = None
    ) -> list[Estimate]:
        """TD at every layer, of all tasks' points or of one task's.

        Each interval is for a layer that was fixed beforehand. For one that is picked because TD
        is large there, see `held_out` and `peak`.

        Args:
            shots: how many demonstrations.
            task: count only this task's points; the pool stays whole.
            control: `"shuffled"`, `"input"` or `"instruction"` instead of the few-shot prompts.
                NaN for shuffled labels with one shot, which has none to shuffle.

        Raises:
            InputError: where a name or number is unknown, or the run had no controls.
        """
        return self._td(self._credit(shots, control), task)

    def peak(
        self, shots: int | None = None, task: str | None = None, control: str | None = None
    ) -> Estimate:
        """The largest TD of all layers, with an interval that accounts for the choice.

        The intervals of all layers together hold with 95 %. The value itself, chosen and reported
        on the same points, is too large on average.
        """
        credit = self._credit(shots, control)
        return max(self._td(credit, task, len(self.layers)), key=lambda e: e.value)

    def probe(self, shots: int | None = None, task: str | None = None) -> list[Estimate]:
        """Accuracy of the linear probe at every layer, on queries that it was not trained on.

        Raises:
            InputError: where the run had no probe.
        """
        return self._means(self._probe_right(shots), task)

    def probe_held_out(self, shots: int | None = None, task: str | None = None) -> Estimate:
        """Accuracy of the linear probe at the layers of `held_out`.

        Raises:
            InputError: where the run had no probe.
        """
        right = self._pick_held_out(self._probe_right(shots), shots)
        return self._means(right.expand_dims("layer"), task)[0]

    def best_layer(self, shots: int | None = None, task: str | None = None) -> int:
        """The layer with the largest TD, the earliest of equals.

        As in the paper, chosen on the points that TD is measured on: TD there is too large, see
        `held_out`.
        """
        values = [e.value for e in self.td(shots, task)]
        return self.layers[int(np.argmax(values))]

    def held_out(
        self, shots: int | None = None, task: str | None = None, control: str | None = None
    ) -> Estimate:
        """TD at a layer chosen on other queries.

        The queries are cut in two halves; each half's points count at the layer that is best on
        the other half's few-shot prompts, over all tasks, in a pool of that half alone
        (`half_td`). Without any task this is at chance, and the interval's lower end above chance
        in less than 5 % of runs (`tests/slow/test_decodability_noise.py`).

        Raises:
            InputError: as `td`; where a result of an earlier version lacks what the choice needs.
        """
        found = self.at_held_out(shots, control)
        return self._td(found.expand_dims("layer"), task)[0]

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
        queries = self.data["query_id"]
        if task is not None:
            choose(task, self.tasks, "task")
            difference, queries = difference.sel(task=task), queries.sel(task=task)
        values = difference.transpose(..., "point").values.ravel()
        found = mean_change(values, clusters=queries.transpose(..., "point").values.ravel())
        return widened([found], self._n_queries(task))[0]

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
        at = self.best_layer(shots) if layer is None else self._layer(layer)
        votes = self.data["votes"].sel(shots=self._shots(shots), layer=at)
        won = decoded(votes.transpose("task", "point", "voted").values.astype(float))
        return pd.DataFrame(won.mean(axis=1), self.tasks, self.tasks).rename_axis(
            index="task", columns="decoded as"
        )

    def pairwise(self, shots: int | None = None, layer: int | None = None) -> pd.DataFrame:
        """TD between two tasks with nothing else in the pool; the diagonal is empty.

        Chance is 0.5 where the tasks share their inputs, and less where they do not (`chance_of`).

        Args:
            shots: how many demonstrations.
            layer: by default the best one for all tasks together.
        """
        at = self.best_layer(shots) if layer is None else self._layer(layer)
        credit = self.data["pair_credit"].sel(shots=self._shots(shots), layer=at)
        means = credit.mean("point").transpose("task", "other").values
        return pd.DataFrame((means + means.T) / 2, self.tasks, self.tasks)

    def sensitivity(self, shots: int | None = None) -> pd.DataFrame:
        """TD under other numbers of neighbours and points, distances and normalisations.

        One row per setting, one thing varied at a time: TD at the layers of `held_out`, and the
        layer with the largest TD of all queries.
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
        right = self.data[score].sel(shots=self._shots(shots)).astype(float)
        return self._means(right.expand_dims("layer"), task)[0]

    def instruction_accuracy(self, task: str | None = None) -> Estimate:
        """Share of whole answers that are right after the instruction, without demonstrations.

        Raises:
            InputError: where the prompts of this run begin with no instruction.
        """
        self._credit(None, "instruction")
        return self._means(self.data["instruction_exact"].expand_dims("layer"), task)[0]

    # --- tables -----------------------------------------------------------------------------

    def summary(self) -> pd.DataFrame:
        """One row per number of shots and task, `"all"` first: TD with intervals, and controls.

        All of them at the layers of `held_out`.
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
        return as_text(self.summary())

    def to_frame(self) -> pd.DataFrame:
        """One row per (shots, task, point, layer)."""
        dims = {"shots", "task", "point", "layer"}
        kept = [name for name, array in self.data.items() if set(array.dims) <= dims]
        frame = self.data[kept].to_dataframe().reset_index()
        if "probe_task" in frame:
            frame["probe_task"] = [self.tasks[i] for i in frame["probe_task"]]
        return frame

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        return super().caveats() + notes(self)

    def plot(self, shots: int | None = None, layer: int | None = None) -> go.Figure:
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
        """1 where the probe is right, over (`task`, `point`, `layer`)."""
        if "probe_task" not in self.data:
            raise InputError("this run had no probe; expected task_decodability(..., probe=True)")
        said = self.data["probe_task"].sel(shots=self._shots(shots))
        right = said == xr.DataArray(np.arange(len(self.tasks)), dims="task")
        return right.astype(float)

    def _td(self, credit: xr.DataArray, task: str | None, n_choices: int = 1) -> list[Estimate]:
        """Mean credit at every layer, with intervals that know of mutual neighbours."""
        return within_1(widened(self._means(credit, task), self._n_queries(task), n_choices))

    def _means(self, values: xr.DataArray, task: str | None) -> list[Estimate]:
        """Means at every layer over points, with intervals over queries."""
        queries = self.data["query_id"]
        if task is not None:
            choose(task, self.tasks, "task")
            values, queries = values.sel(task=[task]), queries.sel(task=[task])
        rows = values.transpose("layer", "task", "point").values.astype(float)
        rows = rows.reshape(len(rows), -1)
        clusters = queries.transpose("task", "point").values.ravel()
        return shares(rows, clusters)

    def _n_queries(self, task: str | None) -> int:
        """How many different queries all tasks ask, or one of them."""
        queries = self.data["query_id"] if task is None else self.of(task)["query_id"]
        return len(np.unique(queries))

    def _shots(self, shots: int | None) -> int:
        if shots is None:
            return max(self.shots)
        if shots not in self.shots:
            raise InputError(f"no run with {shots} shots; expected one of {self.shots}")
        return shots

    def _layer(self, layer: int) -> int:
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
    # Chosen on one half of the queries each: the same where the choice is clear.
    text["layers"] = [", ".join(str(layer) for layer in sorted(set(pair))) for pair in layers]
    return text
