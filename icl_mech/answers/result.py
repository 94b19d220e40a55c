"""The result of scoring whole answers."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from icl_mech.answers.plan import BY
from icl_mech.answers.text_scores import SCORES, USUAL
from icl_mech.errors import choose
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, mean, paired_difference, ratio_of_means, share
from icl_mech.vectors import Choice

#: The zero-shot prompt, the zero-shot prompt with theta, and the few-shot prompt.
CONDITIONS = ("baseline", "hypothesis", "regular")
#: A caveat says so if more than this share of texts is cut, or of answers takes several tokens.
NOTED = 0.05


class AnswerScores(TaskResult):
    """Every score of every answer, per prompt and condition (`CONDITIONS`).

    `data` holds, over (`task`, `condition`, `prompt`): right or wrong by each of `SCORES`;
    `logprob` (nats) of the most probable accepted answer as a whole, `rival_logprob` of the most
    probable other answer, and `first_logprob` of the first token; `text`, the generated text, and
    `cut`, whether the limit of tokens ended it; over (`task`, `prompt`): `query`, `answer` and its
    `n_tokens`; over (`task`, `by`, `prompt`, `block`): `by_layer`, right or wrong with theta after
    every block that works, NaN after others; over `task`: `layer`, `rises` (whether dev prompts
    show that theta works, by the score that chose the layer), `dev_accuracy` (NaN if the layer was
    given), `max_new_tokens`, `n_rivals`, `n_queries`.
    """

    ARRAYS: ClassVar = {
        "accepted": ("task", "condition", "prompt"),
        "first_token": ("task", "condition", "prompt"),
        "logprob": ("task", "condition", "prompt"),
        "query": ("task", "prompt"),
        "layer": ("task",),
    }
    QUOTED: ClassVar = (*with_ends(*CONDITIONS), "layer", "n_prompts", "n_queries")

    def accuracy(self, task: str, condition: str, score: str) -> Estimate:
        """Share of prompts that are right.

        Intervals here and below are over prompts, or over queries if prompts share them.
        """
        return share(self._right(task, condition, score), self.queries(task))

    def logprob(self, task: str, condition: str) -> Estimate:
        """Mean log probability (nats) of the whole answer, with a bootstrap interval."""
        choose(condition, CONDITIONS, "condition")
        values = self.of(task)["logprob"].sel(condition=condition).values
        return mean(values, clusters=self.queries(task))

    def ratio(self, task: str, score: str) -> Estimate:
        """Hypothesis accuracy divided by regular accuracy; prompts (or queries) are resampled."""
        ours, theirs = (self._right(task, m, score) for m in ("hypothesis", "regular"))
        clusters = self.queries(task)
        return ratio_of_means(ours.astype(float), theirs.astype(float), clusters=clusters).at()

    def difference(self, task: str, condition: str, score: str, than: str = USUAL) -> Estimate:
        """Accuracy by one score minus accuracy by another, on the same prompts."""
        return paired_difference(
            self._right(task, condition, score),
            self._right(task, condition, than),
            clusters=self.queries(task),
        )

    def _right(self, task: str, condition: str, score: str) -> np.ndarray:
        choose(condition, CONDITIONS, "condition")
        values: np.ndarray = (
            self.of(task)[choose(score, SCORES, "score")].sel(condition=condition).values
        )
        return values

    def full_summary(self) -> pd.DataFrame:
        """One row per task and score: accuracies, their ratio, and what the score changes.

        `hypothesis_minus_first_token` and the like are paired by prompt. All with 95 % intervals.
        """
        rows = [self._row(task, score) for task in self.tasks for score in SCORES]
        return pd.DataFrame(rows).set_index(["task", "score"])

    def _row(self, task: str, score: str) -> dict[str, Any]:
        of_task = self.of(task)
        row: dict[str, Any] = {"task": task, "score": score}
        for condition in CONDITIONS:
            row |= self.accuracy(task, condition, score).columns(condition)
        row |= self.ratio(task, score).columns("ratio")
        for condition in CONDITIONS:
            row |= self.difference(task, condition, score).columns(f"{condition}_minus_{USUAL}")
        return row | {
            "layer": int(of_task["layer"]),
            "n_prompts": self.data.sizes["prompt"],
            "n_queries": int(of_task["n_queries"]),
        }

    def by_layer(self, task: str | None = None) -> pd.DataFrame:
        """One row per task and layer that works: accuracy on test prompts by each of `BY`.

        A layer works if theta brings at least half as many right first tokens of dev prompts there
        as after the best one. `chosen` marks the layer of the other tables.
        """
        rows = []
        for name in self.tasks if task is None else [task]:
            of_task, queries = self.of(name), self.queries(name)
            values = of_task["by_layer"].transpose("by", "block", "prompt").values
            for layer in np.flatnonzero(np.isfinite(values[0, :, 0])):
                row: dict[str, Any] = {"task": name, "layer": int(layer)}
                for by, right in zip(BY, values[:, layer], strict=True):
                    row |= share(right.astype(bool), queries).columns(by)
                rows.append(row | {"chosen": bool(layer == int(of_task["layer"]))})
        return pd.DataFrame(rows).set_index(["task", "layer"])

    def _layers_note(self, task: str) -> list[str]:
        """The scores at every layer that works, if there are several."""
        frame = self.by_layer(task).loc[task]
        if len(frame) < 2:
            return []
        parts = [
            f"{layer}: {row['accepted']:.2f} [{row['accepted_low']:.2f}, "
            f"{row['accepted_high']:.2f}], {row['begins']:.2f}, {row['first_token']:.2f}"
            for layer, row in frame.iterrows()
        ]
        return [
            f"{task}: by layer, texts that are accepted, begin with the answer, have a right first "
            f"token: {'; '.join(parts)}"
        ]

    def logprobs(self) -> pd.DataFrame:
        """One row per task and condition: mean log probabilities (nats), share of cut texts."""
        rows = []
        for task in self.tasks:
            queries = self.queries(task)
            for condition in CONDITIONS:
                of = self.of(task).sel(condition=condition)
                rows.append(
                    {
                        "task": task,
                        "condition": condition,
                        **self.logprob(task, condition).columns("logprob"),
                        **mean(of["first_logprob"].values, clusters=queries).columns(
                            "first_logprob"
                        ),
                        **share(of["cut"].values, queries).columns("cut"),
                    }
                )
        return pd.DataFrame(rows).set_index(["task", "condition"])

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        n = self.data.sizes["prompt"]
        notes = [
            *super().caveats(),
            f"most_probable: against {int(self.data['n_rivals'].min())} of each task's other "
            "answers, not all; short answers have an advantage, as no end of an answer is scored",
        ]
        for task in self.tasks:
            of_task = self.of(task)
            if "by_layer" in of_task:  # older files lack it
                choice = Choice(
                    int(of_task["layer"]), bool(of_task["rises"]), float(of_task["dev_accuracy"])
                )
                by = self.provenance["by"]
                notes += [f"{task}: {line}" for line in choice.caveat(choice.at, f"θ ({by})")]
                notes += self._layers_note(task)
            several = int((of_task["n_tokens"] > 1).sum())
            if several > NOTED * n:
                notes.append(
                    f"{task}: {several} of {n} answers take more than one token: their first "
                    "token may be right and the answer wrong"
                )
            for condition in CONDITIONS:
                cut = int(of_task["cut"].sel(condition=condition).sum())
                if cut > NOTED * n:
                    notes.append(
                        f"{task}, {condition}: {cut} of {n} texts had not ended after "
                        f"{int(of_task['max_new_tokens'])} tokens and were cut: accepted and "
                        "strict count them as wrong, begins does not"
                    )
            unended = self.difference(task, "hypothesis", "begins", than="accepted")
            if unended.low > 0:
                notes.append(
                    f"{task}: with θ, {unended} of the texts begin with the answer and go on: θ "
                    "brings the answer there and not its end, which few-shot prompts show"
                )
        return notes + self.repeated_queries()

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, condition, prompt)."""
        each = self.data.drop_vars(["by_layer", "by"], errors="ignore")
        frame = each.to_dataframe().reset_index()
        first = ["task", "condition", "prompt", "query", "answer", "n_tokens", "text", "cut"]
        values = [*SCORES, "logprob", "rival_logprob", "first_logprob"]
        return frame[[*first, *values, "layer"]]

    def finding(self) -> str:
        """Whether θ brings whole answers, or first tokens only.

        Whole answers fall behind if, with θ, the share of accepted texts is below that of right
        first tokens, beyond the 95 % interval of their paired difference; for several tasks, these
        are counted. If θ brings no more right first tokens than the zero-shot prompt beyond the
        interval, the finding says so instead.
        """
        works = [t for t in self.tasks if self._gain(t).low > 0]
        less = [t for t in works if self.difference(t, "hypothesis", "accepted").high < 0]
        if not works:
            return "θ is not shown to bring right answers, by first tokens"
        if len(self.tasks) > 1:
            said = f"θ brings first tokens in {len(works)} of {len(self.tasks)} tasks"
            return f"{said}, fewer whole answers in {len(less)}"
        first, whole = (
            self.accuracy(works[0], "hypothesis", score).value for score in (USUAL, "accepted")
        )
        if less:
            return f"θ brings {first:.0%} of first tokens, but {whole:.0%} of whole answers"
        return (
            f"With θ, whole answers ({whole:.0%} right) are not told apart from first tokens "
            f"({first:.0%})"
        )

    def _gain(self, task: str) -> Estimate:
        """Right first tokens with theta minus those without, paired by prompt."""
        ours, theirs = (self._right(task, c, USUAL) for c in ("hypothesis", "baseline"))
        return paired_difference(ours, theirs, clusters=self.queries(task))

    def _draw(self) -> go.Figure:
        """Accuracy by every score, and log probabilities, one row of panels per task."""
        from icl_mech.answers.plot import answer_figure

        return answer_figure(self)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            for score in SCORES:
                rows[task, score] = {
                    **{m: str(self.accuracy(task, m, score)) for m in CONDITIONS},
                    "hypothesis / regular": str(self.ratio(task, score)),
                    f"hypothesis minus {USUAL}": str(self.difference(task, "hypothesis", score)),
                    f"regular minus {USUAL}": str(self.difference(task, "regular", score)),
                }
        return pd.DataFrame.from_dict(rows, orient="index")

    def headline(self) -> str:
        """What was measured, on which model, at which layers."""
        layers = ", ".join(f"{task} {int(self.of(task)['layer'])}" for task in self.tasks)
        return f"{super().headline()} (θ after block: {layers})"
