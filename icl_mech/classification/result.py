"""Scores of a classification task: open and restricted to the labels, class by class."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.classification.words import RANDOM, REFERENCES, SCORINGS, WORDS
from icl_mech.errors import choose
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, paired_difference, share


class LabelScores(TaskResult):
    """The label that the model gives every prompt, by two scores.

    `data` holds, over (`task`, `condition`, `prompt`, `label`): `logprob` (nats) of every label as
    a whole (NaN beyond a task's own labels); over (`task`, `condition`, `prompt`): `open`, the
    label whose first token is the most probable of all tokens (-1: none); over (`task`, `prompt`):
    `truth`, the right label; `layer` over (`task`, `condition`). Labels are numbered as
    `labels(task)` lists them. Conditions: few-shot, zero-shot, and zero-shot with the vector of
    each method, or a random one.
    """

    ARRAYS: ClassVar = {
        "logprob": ("task", "condition", "prompt", "label"),
        "open": ("task", "condition", "prompt"),
        "truth": ("task", "prompt"),
        "query": ("task", "prompt"),
    }
    QUOTED: ClassVar = (
        *with_ends("restricted", "open"),
        "chance",
        "least_class",
        "layer",
        "n_queries",
    )

    @property
    def conditions(self) -> list[str]:
        """The names of the conditions."""
        return [str(name) for name in self.data["condition"].values]

    def labels(self, task: str) -> list[str]:
        """A task's labels, in alphabetical order."""
        choose(task, self.tasks, "task")
        return list(self.provenance["tasks"][task]["labels"])

    def chance(self, task: str) -> float:
        """The expected restricted accuracy of a random guess."""
        return 1 / len(self.labels(task))

    def accuracy(self, task: str, condition: str, scoring: str = "restricted") -> Estimate:
        """Share of test prompts that are labelled right.

        Classes are balanced, so this is also the mean over classes if the number of prompts is a
        multiple of the number of labels.

        Args:
            task: one of `tasks`.
            condition: one of `conditions`.
            scoring: `"restricted"` (to the label set) or `"open"` (among all tokens).
        """
        return share(self._right(task, condition, scoring), self.queries(task))

    def above(self, task: str, condition: str, base: str = "zero_shot") -> Estimate:
        """Restricted accuracy of one condition minus that of another, paired by prompt."""
        ours, theirs = (self._right(task, c, "restricted").astype(float) for c in (condition, base))
        return paired_difference(ours, theirs, clusters=self.queries(task))

    def per_class(self, task: str, condition: str, scoring: str = "restricted") -> pd.DataFrame:
        """Accuracy of every class (recall) with its interval, and how often its label is said.

        Returns:
            A row per label: `accuracy` with its ends, `said` (share of all prompts), `n` prompts.
        """
        right, said = self._right(task, condition, scoring), self.said(task, condition, scoring)
        truth, rows = self.of(task)["truth"].values, {}
        for i, label in enumerate(self.labels(task)):
            of = truth == i
            # With few prompts a class may have none.
            found = (
                share(right[of], self.queries(task)[of])
                if of.any()
                else Estimate(np.nan, np.nan, np.nan, 0)
            )
            rows[label] = {
                **found.columns("accuracy"),
                "said": float((said == i).mean()),
                "n": int(of.sum()),
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def confusion(self, task: str, condition: str, scoring: str = "restricted") -> pd.DataFrame:
        """How many prompts of each class (rows) are given each label (columns).

        With the open score, a column `other` counts prompts whose top token begins no label.
        """
        labels = self.labels(task)
        said, truth = self.said(task, condition, scoring), self.of(task)["truth"].values
        columns = {label: i for i, label in enumerate(labels)}
        if scoring == "open":
            columns["other"] = -1
        counts = {
            name: [int(((truth == row) & (said == i)).sum()) for row in range(len(labels))]
            for name, i in columns.items()
        }
        return pd.DataFrame(counts, index=labels)

    def said(self, task: str, condition: str, scoring: str = "restricted") -> np.ndarray:
        """The number of the label given to every prompt; -1 if an open answer is no label."""
        here = self._here(task, condition)
        if choose(scoring, SCORINGS, "scoring") == "open":
            values: np.ndarray = here["open"].values
            return values
        found: np.ndarray = np.nanargmax(here["logprob"].transpose("prompt", "label"), axis=1)
        return found

    # --- what results have -----------------------------------------------------------------------

    def full_summary(self) -> pd.DataFrame:
        """One row per task and condition."""
        rows = [self._row(task, condition) for task in self.tasks for condition in self.conditions]
        return pd.DataFrame(rows).set_index(["task", "condition"])

    def _row(self, task: str, condition: str) -> dict[str, Any]:
        row: dict[str, Any] = {"task": task, "condition": condition}
        for scoring in SCORINGS:
            row |= self.accuracy(task, condition, scoring).columns(scoring)
        classes = self.per_class(task, condition)
        row["chance"] = self.chance(task)
        row["least_class"] = float(classes["accuracy"].min())
        row["most_said"] = float(classes["said"].max())
        if condition != "zero_shot":
            row |= self.above(task, condition).columns("above_zero_shot")
        row["layer"] = float(self._here(task, condition)["layer"])
        return row | {"n_queries": int(self.of(task)["n_queries"])}

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, condition, prompt): the right label, and the one of each score."""
        frames = []
        for task in self.tasks:
            names = np.array([*self.labels(task), ""], dtype=object)
            for condition in self.conditions:
                frames.append(
                    pd.DataFrame(
                        {
                            "task": task,
                            "condition": condition,
                            "query": self.queries(task),
                            "label": names[self.of(task)["truth"].values],
                            **{s: names[self.said(task, condition, s)] for s in SCORINGS},
                        }
                    )
                )
        return pd.concat(frames, ignore_index=True)

    def finding(self) -> str:
        """Whether few-shot prompts are labelled right more often than by chance.

        They are if the interval of restricted accuracy lies above chance. For one task, the finding
        also gives the accuracy with the first vector.
        """
        able = [t for t in self.tasks if self.accuracy(t, "few_shot").low > self.chance(t)]
        if len(self.tasks) > 1:
            return (
                f"Few-shot prompts are shown to be labelled beyond chance in {len(able)} of "
                f"{len(self.tasks)} tasks (among the labels)"
            )
        (task,) = self.tasks
        few = self.accuracy(task, "few_shot").value
        numbers = f"{few:.0%} right among the labels, chance {self.chance(task):.0%}"
        if not able:
            return f"Few-shot prompts are not shown to be labelled beyond chance ({numbers})"
        vectors = [c for c in self.conditions if c not in (*REFERENCES, RANDOM)]
        if not vectors:
            return f"Few-shot prompts are labelled beyond chance ({numbers})"
        first = self.accuracy(task, vectors[0]).value
        return f"Few-shot prompts are labelled beyond chance ({numbers}; {WORDS[vectors[0]]} " + (
            f"{first:.0%})"
        )

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = [
            *super().caveats(),
            "restricted: the most probable of the labels as wholes, whatever else is more "
            "probable; open: the most probable of all tokens begins the label",
        ]
        for task in self.tasks:
            labels = self.labels(task)
            for condition in self.conditions:
                most = float(self.per_class(task, condition)["said"].max())
                if condition in REFERENCES and most > (1 + 1 / len(labels)) / 2:
                    notes.append(
                        f"{task}, {WORDS[condition]}: one label is said in {most:.0%} of the "
                        "prompts: look at the classes"
                    )
            n_shots = self.provenance["n_shots"]
            if n_shots % len(labels):
                notes.append(
                    f"{task}: {n_shots} demonstrations of {len(labels)} classes: some are shown "
                    "once more than others, which ones is drawn"
                )
            about = self.provenance["tasks"][task]
            notes += [f"{task}, {name}: {line}" for name, line in about["notes"].items()]
        return notes + self.repeated_queries()

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            for condition in self.conditions:
                classes = self.per_class(task, condition)
                rows[f"{task}, {WORDS[condition]}"] = {
                    f"restricted (chance {self.chance(task):.2f})"
                    if len(self.tasks) == 1
                    else "restricted": str(self.accuracy(task, condition)),
                    "open": str(self.accuracy(task, condition, "open")),
                    "by class, restricted": ", ".join(
                        f"{label} {value:.2f}" for label, value in classes["accuracy"].items()
                    ),
                }
        return pd.DataFrame.from_dict(rows, orient="index")

    def _draw(self) -> go.Figure:
        """Accuracy by condition and score, and by class."""
        from icl_mech.classification.plot import labels_figure

        return labels_figure(self)

    # --- implementation --------------------------------------------------------------------------

    def _here(self, task: str, condition: str) -> xr.Dataset:
        return self.of(task).sel(condition=choose(condition, self.conditions, "condition"))

    def _right(self, task: str, condition: str, scoring: str) -> np.ndarray:
        right: np.ndarray = self.said(task, condition, scoring) == self.of(task)["truth"].values
        return right
