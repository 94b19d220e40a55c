"""Accuracy, decodability and cosine of vectors between formats, and between tokens."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from icl_mech.errors import choose
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, paired_difference, ratio_of_means, share

#: The controls: a random vector of the same norm, and the vector of the next task in the list.
CONTROLS = ("random", "other_task")


class VectorTransfer(TaskResult):
    """Vectors formed under one format and written under every other, per prompt.

    `data` holds, over (`task`, `formed`, `written`, `prompt`): `right` (first token of a zero-shot
    prompt with the vector, at `chosen_layer`, the best on dev prompts), and `control` with a
    further axis `control_vector`; `decoded` with a further axis `layer`: whether the nearest
    neighbours of the task's vector under the format `written`, among all tasks' vectors under
    `formed`, are of its task; `cosine` and `centred_cosine` (of means over prompts, the second
    without the mean over tasks) over (`task`, `formed`, `written`, `layer`); `zero_shot` and
    `few_shot` over (`task`, `written`, `prompt`); `at_token` over (`task`, `formed_at`,
    `written_at`, `prompt`), at `token_layer`.
    """

    ARRAYS: ClassVar = {
        "right": ("task", "formed", "written", "prompt"),
        "decoded": ("task", "formed", "written", "layer", "prompt"),
        "at_token": ("task", "formed_at", "written_at", "prompt"),
        "chosen_layer": ("task", "formed", "written"),
        "query": ("task", "prompt"),
    }
    QUOTED: ClassVar = (
        "layer",
        *with_ends("right"),
        "recovered",
        "decoded",
        "centred_cosine",
        "random",
        "few_shot",
    )

    @property
    def formats(self) -> list[str]:
        """The names of the formats."""
        return [str(name) for name in self.data["formed"].values]

    # --- between formats -------------------------------------------------------------------------

    def accuracy(self, task: str, formed: str, written: str) -> Estimate:
        """Share of zero-shot prompts of one format that are right with a vector of another.

        Args:
            task: one of `tasks`.
            formed: the format under which vectors were formed.
            written: the format of the prompts into which they were written.
        """
        return share(self._cell(task, formed, written)["right"].values, self.queries(task))

    def reference(self, task: str, written: str, what: str = "few_shot") -> Estimate:
        """Accuracy without a vector, of `"few_shot"` or `"zero_shot"` prompts."""
        choose(what, ("few_shot", "zero_shot"), "reference")
        choose(written, self.formats, "format")
        return share(self.of(task)[what].sel(written=written).values, self.queries(task))

    def control(self, task: str, formed: str, written: str, control: str = "random") -> Estimate:
        """Accuracy with a control in place of the vector (`"other_task"`: NaN with one task)."""
        choose(control, CONTROLS, "control")
        values = self._cell(task, formed, written)["control"].sel(control_vector=control).values
        return share(values, self.queries(task))

    def recovered(self, task: str, formed: str, written: str) -> Estimate:
        """Accuracy with the vector over few-shot accuracy in the format that it is written into."""
        ours = self._cell(task, formed, written)["right"].values.astype(float)
        few = self.of(task)["few_shot"].sel(written=written).values.astype(float)
        return ratio_of_means(ours, few, clusters=self.queries(task)).at()

    def layer(self, task: str, formed: str, written: str) -> int:
        """The block after which the vectors were read and written."""
        return int(self._cell(task, formed, written)["chosen_layer"])

    def decoded(self, task: str, formed: str, written: str, layer: int | None = None) -> Estimate:
        """Task decodability of the same vectors across formats.

        The share of the task's vectors under the format `written` whose nearest neighbours, among
        the vectors of all tasks under `formed`, are of this task.

        Args:
            task, formed, written: as in `accuracy`.
            layer: the block; by default the one after which the vectors were written.
        """
        at = self.layer(task, formed, written) if layer is None else layer
        values = self._cell(task, formed, written)["decoded"].sel(layer=at).values
        return share(values.astype(float), self.queries(task))

    def cosine(self, task: str, formed: str, written: str, centred: bool = True) -> float:
        """Cosine of the mean vectors of two formats, after the block where they were written.

        Args:
            task, formed, written: as in `accuracy`.
            centred: subtract each format's mean over tasks first (NaN if there is only one task).
        """
        name = "centred_cosine" if centred else "cosine"
        at = self.layer(task, formed, written)
        return float(self._cell(task, formed, written)[name].sel(layer=at))

    def lost(self, task: str) -> Estimate:
        """Accuracy with vectors of the prompt's own format minus that with others, by prompt.

        Both are means over the formats in which the prompt is written.
        """
        own, others = self._own_and_others(task)
        return paired_difference(own, others, clusters=self.queries(task))

    def pooled_lost(self) -> Estimate:
        """`lost` over the prompts of all tasks together."""
        parts = [self._own_and_others(task) for task in self.tasks]
        own, others = (np.concatenate(arm) for arm in zip(*parts, strict=True))
        return paired_difference(own, others, clusters=self._clusters())

    def pooled_decoded(self, across: bool = True) -> Estimate:
        """Decodability over all tasks: across formats, or within each format."""
        values = [self._mean(task, "decoded", across) for task in self.tasks]
        return share(np.concatenate(values), self._clusters())

    def pooled_accuracy(self, across: bool = True) -> Estimate:
        """Accuracy over all tasks: with vectors of other formats, or of the prompt's own one."""
        values = [self._mean(task, "right", across) for task in self.tasks]
        return share(np.concatenate(values), self._clusters())

    # --- between tokens --------------------------------------------------------------------------

    def at_token(self, task: str, formed_at: str, written_at: str) -> Estimate:
        """Accuracy of vectors that were formed at one token and written over another.

        Args:
            task: one of `tasks`.
            formed_at: a key of `FORMED_AT`.
            written_at: a key of `WRITTEN_AT`.
        """
        of = self.of(task)["at_token"]
        choose(formed_at, [str(n) for n in of["formed_at"].values], "token")
        choose(written_at, [str(n) for n in of["written_at"].values], "token")
        values = of.sel(formed_at=formed_at, written_at=written_at).values
        return share(values, self.queries(task))

    def token_layer(self, task: str, formed_at: str, written_at: str) -> int:
        """The block after which vectors between two tokens were read and written."""
        of = self.of(task)["token_layer"]
        return int(of.sel(formed_at=formed_at, written_at=written_at))

    # --- what results have -----------------------------------------------------------------------

    def full_summary(self) -> pd.DataFrame:
        """One row per task and pair of formats: every number, with 95 % intervals."""
        rows = [
            self._row(task, formed, written)
            for task in self.tasks
            for formed in self.formats
            for written in self.formats
        ]
        return pd.DataFrame(rows).set_index(["task", "formed", "written"])

    def _row(self, task: str, formed: str, written: str) -> dict[str, Any]:
        cell = task, formed, written
        row: dict[str, Any] = {"task": task, "formed": formed, "written": written}
        row |= {"layer": self.layer(*cell), "rises": bool(self._cell(*cell)["rises"])}
        row |= self.accuracy(*cell).columns("right")
        row |= self.recovered(*cell).columns("recovered")
        row |= self.decoded(*cell).columns("decoded")
        row["cosine"] = self.cosine(*cell, centred=False)
        row["centred_cosine"] = self.cosine(*cell)
        for control in CONTROLS:
            row |= self.control(*cell, control).columns(control)
        for what in ("zero_shot", "few_shot"):
            row |= self.reference(task, written, what).columns(what)
        return row | {"n_queries": int(self.of(task)["n_queries"])}

    def tokens_frame(self) -> pd.DataFrame:
        """One row per task and pair of tokens: accuracy with its interval, and the layer."""
        of = self.data
        rows = [
            {
                "task": task,
                "formed_at": formed,
                "written_at": written,
                **self.at_token(task, formed, written).columns("right"),
                "layer": self.token_layer(task, formed, written),
            }
            for task in self.tasks
            for formed in map(str, of["formed_at"].values)
            for written in map(str, of["written_at"].values)
        ]
        return pd.DataFrame(rows).set_index(["task", "formed_at", "written_at"])

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, formed, written, prompt)."""
        return self.data[["right", "query"]].to_dataframe().reset_index()

    def finding(self) -> str:
        """Whether vectors are shown to lose accuracy under other formats, over all tasks together.

        With several tasks, it also says how often the task can be decoded across formats.
        """
        lost = self.pooled_lost()
        own, across = (self.pooled_accuracy(which).value for which in (False, True))
        numbers = f"({own:.0%} under its own format, {across:.0%} under others)"
        if lost.low > 0:
            said = f"A vector loses accuracy under other formats {numbers}"
        elif lost.high < 0:
            said = f"A vector works better under other formats {numbers}"
        else:
            said = f"A vector is not shown to lose accuracy under other formats {numbers}"
        if len(self.tasks) == 1:
            return said
        return f"{said}; its task is decoded across formats in {self.pooled_decoded().value:.0%}"

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats()
        if len(self.tasks) == 1:
            notes.append("one task: decodability and centred cosines need at least two")
        else:
            notes.append(
                f"decodability of one task by chance: {1 / len(self.tasks):.2f} (tasks that ask "
                "different inputs or have different kinds of answers are told apart by these)"
            )
        for task in self.tasks:
            weak = [
                written
                for written in self.formats
                if not self.reference(task, written).low
                > self.reference(task, written, "zero_shot").value
            ]
            if weak:
                notes.append(
                    f"{task}: demonstrations are not shown to help under {', '.join(weak)}; little "
                    "can be carried there"
                )
        return notes + self.repeated_queries()

    def table(self) -> pd.DataFrame:
        """The summary as text, for people: vectors in rows, prompts in columns."""
        rows = {}
        for task in self.tasks:
            for formed in self.formats:
                row = {}
                for written in self.formats:
                    cell = task, formed, written
                    td = self.decoded(*cell).value
                    read = "" if td != td else f", TD {td:.2f}"
                    row[f"under {written}"] = f"{self.accuracy(*cell)}{read}"
                rows[f"{task}, {formed}"] = row
            for what in ("few_shot", "zero_shot"):
                rows[f"{task}, {what.replace('_', '-')}"] = {
                    f"under {w}": str(self.reference(task, w, what)) for w in self.formats
                }
        return pd.DataFrame.from_dict(rows, orient="index")

    def _draw(self) -> go.Figure:
        """Maps of accuracy and of decodability between formats, and of accuracy between tokens."""
        from icl_mech.transfer.plot import transfer_figure

        return transfer_figure(self)

    def _draw_task(self, task: str, *args: Any, **options: Any) -> go.Figure:
        """The maps of one task; its decodability is among all tasks that were measured."""
        from icl_mech.transfer.plot import transfer_figure

        return transfer_figure(self, [task])

    # --- implementation --------------------------------------------------------------------------

    def _cell(self, task: str, formed: str, written: str) -> Any:
        choose(formed, self.formats, "format")
        choose(written, self.formats, "format")
        return self.of(task).sel(formed=formed, written=written)

    def _mean(self, task: str, what: str, across: bool) -> np.ndarray:
        """Mean over pairs of different formats (or of equal ones), a value per prompt."""
        rows = []
        for formed in self.formats:
            for written in self.formats:
                if (formed != written) != across:
                    continue
                values = self._cell(task, formed, written)[what]
                if what == "decoded":
                    values = values.sel(layer=self.layer(task, formed, written))
                rows.append(values.values.astype(float))
        found: np.ndarray = np.mean(rows, axis=0)
        return found

    def _own_and_others(self, task: str) -> tuple[np.ndarray, np.ndarray]:
        return self._mean(task, "right", False), self._mean(task, "right", True)

    def _clusters(self) -> np.ndarray:
        return np.concatenate([[f"{task}\0{q}" for q in self.queries(task)] for task in self.tasks])
