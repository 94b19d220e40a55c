"""The result of dropping the demonstrations after the first answer tokens."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from icl_mech.errors import InputError, choose
from icl_mech.progressive.plan import KEPT, NOTHING
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, mean, paired_difference, share

#: How a generated text is judged, as in `answer_scores`.
SCORES = ("accepted", "begins")
#: Distances of the next-token distribution from that of the few-shot prompt.
MEASURES = ("kl", "total_variation")


class ProgressiveGeneration(TaskResult):
    """Divergence by answer token, whole answers by first tokens with demonstrations, and speed.

    `data` holds, over (`task`, `kept`, `position`, `prompt`): `kl` (nats) and `total_variation`
    between the next-token distributions without demonstrations and of the few-shot prompt, before
    each token of the right answer and of the template's stop text (NaN after its end); over
    (`task`, `kept`, `first_tokens`, `prompt`): `text`, and whether it is an accepted answer
    (`accepted`) or begins with one (`begins`); the same with demonstrations throughout as
    `few_text` and so on over (`task`, `prompt`); `seconds` and `timed` tokens over (`task`,
    `first_tokens`, `round`). `kept` is what replaces the dropped demonstrations: nothing, the
    separator's states (in blocks up to `layer`), or a method's vector (at `layer`).
    """

    ARRAYS: ClassVar = {
        "kl": ("task", "kept", "position", "prompt"),
        "accepted": ("task", "kept", "first_tokens", "prompt"),
        "few_accepted": ("task", "prompt"),
        "seconds": ("task", "first_tokens", "round"),
        "query": ("task", "prompt"),
    }
    QUOTED: ClassVar = (
        "layer",
        "kl_first",
        "kl_second",
        "accepted_none",
        *with_ends("accepted_one"),
        "begins_one",
        "few_shot",
        "n_queries",
    )

    @property
    def kept(self) -> list[str]:
        """What replaces the demonstrations once they are dropped."""
        return [str(name) for name in self.data["kept"].values]

    @property
    def first_tokens(self) -> list[int]:
        """The numbers of answer tokens that were generated with demonstrations."""
        return [int(k) for k in self.data["first_tokens"].values]

    # --- numbers ---------------------------------------------------------------------------------

    def divergence(
        self, task: str, position: int, kept: str = NOTHING, measure: str = "kl"
    ) -> Estimate:
        """Mean distance to the few-shot prompt at an answer token, over the answers that have it.

        Args:
            task: one of `tasks`.
            position: of the token in the answer, from 0.
            kept: one of `kept`.
            measure: `"kl"` (nats) or `"total_variation"`.
        """
        choose(measure, MEASURES, "measure")
        values = self._kept(task, kept)[measure].sel(position=position).values.astype(float)
        there = np.isfinite(values)
        if not there.any():
            return Estimate(np.nan, np.nan, np.nan, 0)
        return mean(values[there], clusters=self.queries(task)[there])

    def positions(self, task: str) -> list[int]:
        """The answer tokens that at least one answer has."""
        values = self._kept(task, NOTHING)["kl"].transpose("position", "prompt").values
        return [int(i) for i in np.flatnonzero(np.isfinite(values).any(axis=1))]

    def falls(self, task: str, kept: str = NOTHING) -> Estimate:
        """KL at the first answer token minus KL at the second (nats), paired by prompt."""
        values = self._kept(task, kept)["kl"].transpose("position", "prompt").values.astype(float)
        if len(values) < 2:
            return Estimate(np.nan, np.nan, np.nan, 0)
        there = np.isfinite(values[:2]).all(axis=0)
        return paired_difference(
            values[0, there], values[1, there], clusters=self.queries(task)[there]
        )

    def accuracy(
        self, task: str, first_tokens: int, kept: str = NOTHING, score: str = "accepted"
    ) -> Estimate:
        """Share of right texts if only the first tokens are generated with demonstrations.

        Args:
            task: one of `tasks`.
            first_tokens: the number of these tokens, one of `first_tokens`.
            kept: one of `kept`.
            score: `"accepted"` (the whole text is an accepted answer) or `"begins"` (with one).
        """
        return share(self._right(task, first_tokens, kept, score), self.queries(task))

    def few_shot(self, task: str, score: str = "accepted") -> Estimate:
        """Share of right texts with demonstrations throughout."""
        return share(self._few(task, score), self.queries(task))

    def lost(self, task: str, first_tokens: int, kept: str = NOTHING) -> Estimate:
        """Accuracy of whole answers with demonstrations throughout minus that of `accuracy`."""
        ours = self._right(task, first_tokens, kept, "accepted").astype(float)
        few = self._few(task, "accepted").astype(float)
        return paired_difference(few, ours, clusters=self.queries(task))

    def ends(self, task: str, first_tokens: int, kept: str = NOTHING) -> Estimate:
        """The share of texts that end there, among those that begin with an accepted answer."""
        begins = self._right(task, first_tokens, kept, "begins")
        if not begins.any():
            return Estimate(np.nan, np.nan, np.nan, 0)
        accepted = self._right(task, first_tokens, kept, "accepted")
        return share(accepted[begins], self.queries(task)[begins])

    def speed(self, task: str, first_tokens: int | None = None) -> Estimate:
        """Tokens per second: the median of the rounds; `low` and `high` are their extremes.

        Args:
            task: one of `tasks`.
            first_tokens: one of `first_tokens`; None for demonstrations throughout.
        """
        of = self.of(task)
        if first_tokens is None:
            rates = of["few_timed"].values / of["few_seconds"].values
        else:
            here = of.sel(first_tokens=self._known(first_tokens))
            rates = here["timed"].values / here["seconds"].values
        return Estimate(float(np.median(rates)), float(rates.min()), float(rates.max()), len(rates))

    # --- what results have -----------------------------------------------------------------------

    def full_summary(self) -> pd.DataFrame:
        """One row per task and what is kept: every number."""
        rows = [self._row(task, kept) for task in self.tasks for kept in self.kept]
        return pd.DataFrame(rows).set_index(["task", "kept"])

    def _row(self, task: str, kept: str) -> dict[str, Any]:
        row: dict[str, Any] = {"task": task, "kept": kept}
        row["layer"] = float(self._kept(task, kept)["layer"])
        for name, position in (("kl_first", 0), ("kl_second", 1)):
            if position in self.positions(task):
                row |= self.divergence(task, position, kept).columns(name)
        row |= self.falls(task, kept).columns("kl_falls")
        for k in self.first_tokens:
            word = {0: "none", 1: "one"}.get(k, str(k))
            for score in SCORES:
                row |= self.accuracy(task, k, kept, score).columns(f"{score}_{word}")
            row |= self.lost(task, k, kept).columns(f"lost_{word}")
            row |= self.ends(task, k, kept).columns(f"ends_{word}")
            row[f"tokens_per_second_{word}"] = self.speed(task, k).value
        row |= self.few_shot(task).columns("few_shot")
        row |= self.few_shot(task, "begins").columns("few_shot_begins")
        row["few_shot_tokens_per_second"] = self.speed(task).value
        return row | {"n_queries": int(self.of(task)["n_queries"])}

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, kept, first_tokens, prompt)."""
        names = ["text", "accepted", "begins", "query", "answer", "few_text", "few_accepted"]
        return self.data[names].to_dataframe().reset_index()

    def finding(self) -> str:
        """Whether the first answer token needs the demonstrations most, by a paired difference.

        For one task, it also gives the share of whole answers that are right with the smallest
        number of first tokens above 0 (nothing in place).
        """
        if len(self.tasks) > 1:
            falls = sum(self.falls(task).low > 0 for task in self.tasks)
            return (
                f"In {falls} of {len(self.tasks)} tasks the first answer token is shown to need "
                "the demonstrations more than the second"
            )
        (task,) = self.tasks
        if 1 not in self.positions(task):
            return ""
        first, second = (self.divergence(task, i).value for i in (0, 1))
        if self.falls(task).low > 0:
            said = f"The first answer token needs the demonstrations most (KL {first:.1f} nats, "
            said += f"then {second:.1f})"
        else:
            said = (
                "The first answer token is not shown to need the demonstrations more than the next"
            )
        kept = [k for k in self.first_tokens if k > 0]
        if not kept:
            return said
        k = kept[0]
        right, few = self.accuracy(task, k).value, self.few_shot(task).value
        tokens = f"{k} token{'s' * (k > 1)}"
        return f"{said}; dropped after {tokens}, {right:.0%} of answers are right, else {few:.0%}"

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = [
            *super().caveats(),
            "divergence is measured after the tokens of the right answer, whatever the model says",
            "tokens per second are of this machine and of prompts of this length, nothing in "
            "place; what shorter prompts save grows with the demonstrations",
        ]
        for task in self.tasks:
            about = self.provenance["tasks"][task]
            notes += [f"{task}, {name}: {line}" for name, line in about["notes"].items()]
        return notes + self.repeated_queries()

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            for kept in self.kept:
                row = {
                    f"KL, token {i + 1}": f"{self.divergence(task, i, kept).value:.2f}"
                    for i in self.positions(task)
                }
                for k in self.first_tokens:
                    row[f"whole, k = {k}"] = str(self.accuracy(task, k, kept))
                row["whole, few-shot"] = str(self.few_shot(task))
                rows[f"{task}, {KEPT[kept]}"] = row
            speeds = [f"{self.speed(task, k).value:.0f}" for k in self.first_tokens]
            rows[f"{task}, tokens per second"] = {
                **{f"whole, k = {k}": v for k, v in zip(self.first_tokens, speeds, strict=True)},
                "whole, few-shot": f"{self.speed(task).value:.0f}",
            }
        return pd.DataFrame.from_dict(rows, orient="index").fillna("")

    def _draw(self) -> go.Figure:
        """Divergence by answer token, whole answers by first tokens, and tokens per second."""
        from icl_mech.progressive.plot import progressive_figure

        return progressive_figure(self)

    # --- implementation --------------------------------------------------------------------------

    def _kept(self, task: str, kept: str) -> Any:
        return self.of(task).sel(kept=choose(kept, self.kept, "kept"))

    def _known(self, first_tokens: int) -> int:
        if first_tokens not in self.first_tokens:
            known = ", ".join(map(str, self.first_tokens))
            raise InputError(f"first_tokens {first_tokens} was not run; expected one of {known}")
        return first_tokens

    def _right(self, task: str, first_tokens: int, kept: str, score: str) -> np.ndarray:
        choose(score, SCORES, "score")
        here = self._kept(task, kept).sel(first_tokens=self._known(first_tokens))
        values: np.ndarray = here[score].values.astype(bool)
        return values

    def _few(self, task: str, score: str) -> np.ndarray:
        values: np.ndarray = self.of(task)[f"few_{choose(score, SCORES, 'score')}"].values
        return values.astype(bool)
