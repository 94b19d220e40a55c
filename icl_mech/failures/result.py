"""The result of `task_vector_failures`."""

from collections import Counter
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from icl_mech.errors import choose
from icl_mech.failures.notes import notes
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, mean, paired_difference, ratio_of_means, share

#: The condition with which every repair is compared.
THETA = "theta"
#: Suffixes of a repair's controls: the same states of another prompt of the task, and of the prompt
#: with shuffled labels.
CONTROLS = ("_other_prompt", "_shuffled")
#: Outcomes (`observed`) in the words that count them.
_COUNTED = (
    ("works", "not told from the prompt"),
    ("in part", "in part"),
    ("label prior", "not shown to be done"),
    ("not in context", "not done in context either"),
)
#: The name of an error that fits no other name, and the value for a right answer.
OTHER, RIGHT = "other", ""


class TaskVectorFailures(TaskResult):
    """Accuracy and errors of prompt, vector, controls and repairs, per prompt.

    `data` holds over (`task`, `prompt`, `condition`): `right`, `error` (a name of `KINDS`; empty if
    right), `top` (token id), `said` (its text) and `logprob` of the answer (nats); over
    (`task`, `prompt`): `prior_right` (whether the task's most frequent answer is right) and
    `guess_right` (the chance of being right by guessing among the prompt's own most frequent
    answers); over (`task`, `injected`, `dev_prompt`, `layer`): `dev_right` and `dev_logprob`, NaN
    at layers where a repair was not tried; over (`task`, `injected`): the chosen layers,
    `best_layer`; over `task`: `named_by_chance` (see `by_chance`). `condition` is few_shot,
    zero_shot, theta, shuffled, other_task, random, placeholder, and every repair with its controls.
    """

    ARRAYS: ClassVar = {
        "right": ("task", "prompt", "condition"),
        "error": ("task", "prompt", "condition"),
        "prior_right": ("task", "prompt"),
        "best_layer": ("task", "injected"),
    }
    QUOTED: ClassVar = (
        "predicted",
        "observed",
        "few_shot",
        "zero_shot",
        "label_prior",
        *with_ends(THETA, "explained"),
        "most_frequent_error",
    )

    @property
    def conditions(self) -> list[str]:
        """Names of the conditions that were measured."""
        return [str(name) for name in self.data["condition"].values]

    @property
    def repairs(self) -> list[str]:
        """Names of the repairs that were measured."""
        return [str(name) for name in self.data["injected"].values if name != THETA]

    def layer(self, task: str, method: str = THETA) -> int:
        """The layer that was chosen on dev prompts for theta or a repair."""
        choose(method, [THETA, *self.repairs], "method")
        return int(self.of(task)["best_layer"].sel(injected=method))

    def accuracy(self, task: str, condition: str = THETA) -> Estimate:
        """Test accuracy.

        Intervals here and below are over prompts, or over queries if prompts share them.
        """
        return share(self._right(task, condition), self.queries(task))

    def prior(self, task: str) -> Estimate:
        """The label prior: the accuracy of answers that ignore the query.

        The better one of two: always give the most frequent answer of the dev prompts, or guess
        among the most frequent answers of the prompt itself. The guess does not count if it is
        right in every prompt (all demonstrations show the one answer): then giving that answer is
        the task.
        """
        return share(self._prior(task), self.queries(task))

    def _prior(self, task: str) -> Float[np.ndarray, "prompt"]:
        here = self.of(task)
        always, guess = (here[f"{name}_right"].values.astype(float) for name in ("prior", "guess"))
        counts = guess.mean() > always.mean() and not (guess == 1).all()
        return guess if counts else always

    def floor(self, task: str) -> Float[np.ndarray, "prompt"]:
        """Scores without a vector, per prompt: the better of zero-shot prompt and label prior."""
        levels = [self._right(task, "zero_shot").astype(float), self._prior(task)]
        return max(levels, key=np.mean)

    def explained(self, task: str, condition: str = THETA) -> Estimate:
        """The share of the in-context accuracy that a vector or repair explains.

        (its accuracy - floor) / (few-shot accuracy - floor), of means, prompts resampled (see
        `floor`): 0 if no vector is needed, 1 for as much as the whole prompt. Nothing is clipped.
        NaN if the few-shot prompt is not clearly above the floor.
        """
        floor = self.floor(task)
        ours, whole = (self._right(task, name) - floor for name in (condition, "few_shot"))
        return _ratio(ours, whole, self.queries(task))

    def recovered(self, task: str, repair: str) -> Estimate:
        """The share of the accuracy lost by theta that a repair brings back.

        (repair - theta) / (few-shot - theta), of means, prompts resampled. NaN if theta is not
        clearly worse than the few-shot prompt.
        """
        theta = self._right(task, THETA).astype(float)
        ours, whole = (self._right(task, name) - theta for name in (repair, "few_shot"))
        return _ratio(ours, whole, self.queries(task))

    def above_prior(self, task: str, condition: str = THETA) -> Estimate:
        """Accuracy minus the floor, paired by prompt, with a bootstrap interval."""
        right = self._right(task, condition).astype(float)
        return paired_difference(right, self.floor(task), clusters=self.queries(task))

    def observed(self, task: str) -> str:
        """The outcome, in the words of the predictions.

        "not in context": the few-shot prompt is not clearly above the floor. "label prior": theta
        is not clearly above the floor. "works": theta is not clearly worse than the few-shot
        prompt. "in part": none of these.
        """
        if not self.above_prior(task, "few_shot").low > 0:
            return "not in context"
        if not self.above_prior(task).low > 0:
            return "label prior"
        return "in part" if self.difference(task, "few_shot", THETA).low > 0 else "works"

    def difference(self, task: str, first: str, second: str) -> Estimate:
        """Accuracy of one condition minus another's, paired by prompt."""
        ours, theirs = (self._right(task, name) for name in (first, second))
        return paired_difference(ours, theirs, clusters=self.queries(task))

    def errors(self, task: str, condition: str = THETA) -> dict[str, int]:
        """The number of wrong answers of each kind, the most frequent kind first."""
        choose(condition, self.conditions, "condition")
        counts = Counter(self.of(task)["error"].sel(condition=condition).values.tolist())
        return {kind: n for kind, n in counts.most_common() if kind != RIGHT}

    def named(self, task: str, condition: str = THETA) -> float:
        """The share of the wrong answers that have a name; NaN if none is wrong."""
        errors = self.errors(task, condition)
        total = sum(errors.values())
        return 1 - errors.get(OTHER, 0) / total if total else float("nan")

    def by_chance(self, task: str) -> float:
        """The share of arbitrary tokens that would have a name as an error; compare `named`.

        The tokens are evenly spaced in the vocabulary and spread over the prompts; right ones are
        left out.
        """
        return float(self.of(task)["named_by_chance"])

    def _right(self, task: str, condition: str) -> np.ndarray:
        choose(condition, self.conditions, "condition")
        return self.of(task)["right"].sel(condition=condition).values

    def full_summary(self) -> pd.DataFrame:
        """One row per task: accuracies, shares explained and recovered, with 95 % intervals."""
        return pd.DataFrame([self._row(task) for task in self.tasks]).set_index("task")

    def _row(self, task: str) -> dict[str, Any]:
        here = self.of(task)
        row: dict[str, Any] = {
            "task": task,
            "category": str(here["category"].item()),
            "predicted": str(here["predicted"].item()),
            "observed": self.observed(task),
        }
        for condition in self.conditions:
            row |= self.accuracy(task, condition).columns(condition)
        row |= self.prior(task).columns("label_prior")
        row |= self.explained(task).columns("explained")
        for repair in self.repairs:
            row |= self.explained(task, repair).columns(f"{repair}_explained")
            row |= self.recovered(task, repair).columns(f"{repair}_recovered")
            row[f"{repair}_layer"] = self.layer(task, repair)
        return row | {
            "layer": self.layer(task),
            "most_frequent_error": next(iter(self.errors(task)), ""),
            "named_errors": self.named(task),
            "named_by_chance": self.by_chance(task),
            "n_prompts": self.data.sizes["prompt"],
            "n_queries": int(here["n_queries"]),
            "n_dev": self.data.sizes["dev_prompt"],
            "n_shown": int(here["n_shown"]),
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, condition): the answer, and whether right or which error."""
        columns = ["query", "answer", "said", "right", "error", "logprob", "top"]
        frame = self.data[columns].to_dataframe().reset_index()
        return frame[["task", "condition", "prompt", *columns]]

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        return pd.DataFrame.from_dict({t: self._text(t) for t in self.tasks}, orient="index")

    def _text(self, task: str) -> dict[str, str]:
        errors = self.errors(task)
        total = sum(errors.values())
        first = [f"{kind} {n / total:.0%}" for kind, n in list(errors.items())[:2]]
        row = {
            "predicted": str(self.of(task)["predicted"].item()),
            "observed": self.observed(task),
            "few-shot": f"{self.accuracy(task, 'few_shot').value:.2f}",
            "zero-shot": f"{self.accuracy(task, 'zero_shot').value:.2f}",
            "label prior": f"{self.prior(task).value:.2f}",
            "vector": str(self.accuracy(task)),
            "shuffled": f"{self.accuracy(task, 'shuffled').value:.2f}",
            "layer": str(self.layer(task)),
            "explained": _text_of(self.explained(task)),
            "its errors": ", ".join(first),
        }
        for repair in self.repairs:
            row[f"{repair} @ layer"] = (
                f"{self.accuracy(task, repair).value:.2f} @ {self.layer(task, repair)}"
            )
        return row

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        return super().caveats() + notes(self)

    def headline(self) -> str:
        """What was measured, on which model."""
        return f"What one task vector cannot do, {self.provenance['model']}"

    def finding(self) -> str:
        """How much of the task one vector does (`observed`); for several tasks, the counts."""
        counts = Counter(self.observed(task) for task in self.tasks)
        if len(self.tasks) > 1:
            said = [f"{counts[outcome]} {words}" for outcome, words in _COUNTED if counts[outcome]]
            return f"What one vector does, of {len(self.tasks)} tasks: {', '.join(said)}"
        (task,) = self.tasks
        ours, whole = self.accuracy(task).value, self.accuracy(task, "few_shot").value
        right = f"({ours:.2f} right, few-shot {whole:.2f})"
        return {
            "works": f"One vector is not told from the prompt {right}",
            "in part": f"One vector does a part of the task {right}",
            "label prior": f"One vector is not shown to beat frequent answers {right}",
            "not in context": "The prompt itself is not shown to work: nothing for a vector to do",
        }[self.observed(task)]

    def _draw(self) -> go.Figure:
        """The share of in-context accuracy that the vector explains, and its errors."""
        from icl_mech.failures.plot import failure_figure

        return failure_figure(self)


def _ratio(numerator: np.ndarray, denominator: np.ndarray, queries: np.ndarray) -> Estimate:
    """Ratio of means over prompts; NaN if the mean denominator is not clearly above 0."""
    if not mean(denominator, clusters=queries).low > 0:
        return Estimate(np.nan, np.nan, np.nan, len(denominator))
    return ratio_of_means(numerator, denominator, clusters=queries).at()


def _text_of(estimate: Estimate) -> str:
    return "undefined" if np.isnan(estimate.value) else str(estimate)
