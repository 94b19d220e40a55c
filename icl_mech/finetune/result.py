"""Result of a finetuning: loss and accuracy on held-out prompts."""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from icl_mech.errors import choose
from icl_mech.layers import span
from icl_mech.results import TaskResult
from icl_mech.stats import Estimate, mean, paired_difference, share

#: Updates over which the training loss is averaged in tables.
RECENT = 50
#: A caveat is given if more than this share of the answers has several tokens.
NOTED = 0.05


class Finetuning(TaskResult):
    """Loss and accuracy of held-out prompts at every checkpoint, and the loss of every update.

    `data` holds, over (`step`, `task`, `prompt`): `loss`, the cross-entropy (nats) of the first
    accepted answer, the mean over its tokens; and `right`, whether every token of an accepted
    answer is the most probable one after the tokens before it. Over `update`: `train_loss`, the
    loss of the batch before the update. Over (`task`, `prompt`): `query`, `answer` and
    `answer_tokens`. Over `task`: `n_queries`. `step` is the number of updates done; 0 is the model
    before training.

    Intervals are 95 %, over prompts or, if prompts share queries, over queries. They hold for other
    prompts of the same run. How much runs differ takes runs with other seeds.
    """

    ARRAYS: ClassVar = {
        "loss": ("step", "task", "prompt"),
        "right": ("step", "task", "prompt"),
        "train_loss": ("update",),
        "query": ("task", "prompt"),
        "n_queries": ("task",),
    }

    @property
    def steps(self) -> list[int]:
        """Updates done at every checkpoint."""
        return [int(step) for step in self.data["step"].values]

    def accuracy(self, task: str | None = None, step: int | None = None) -> Estimate:
        """Share of held-out prompts that are answered right (exact match).

        Args:
            task: one of `tasks`; all tasks' prompts by default.
            step: of a checkpoint; the last by default.

        Raises:
            InputError: where there is no such task or checkpoint.
        """
        return share(self._values("right", task, step), self._queries(task))

    def loss(self, task: str | None = None, step: int | None = None) -> Estimate:
        """Mean loss (nats per answer token) of held-out prompts; arguments as of `accuracy`."""
        e = mean(self._values("loss", task, step).astype(float), clusters=self._queries(task))
        # No loss is below 0, but the end of a studentised interval may be.
        return replace(e, low=max(e.low, 0.0))

    def gain(self, task: str | None = None, step: int | None = None) -> Estimate:
        """Accuracy minus accuracy before training, paired by prompt; arguments as of `accuracy`."""
        after, before = (self._values("right", task, s) for s in (step, self.steps[0]))
        return paired_difference(after, before, clusters=self._queries(task))

    def _values(self, name: str, task: str | None, step: int | None) -> np.ndarray:
        at = self.steps[-1] if step is None else step
        choose(str(at), [str(s) for s in self.steps], "checkpoint")
        of = self.data[name].sel(step=at).transpose("task", "prompt")
        if task is not None:
            of = of.sel(task=choose(task, self.tasks, "task"))
        values: np.ndarray = of.values.ravel()
        return values

    def _queries(self, task: str | None = None) -> np.ndarray:
        """The query of every value of `_values`."""
        if task is not None:
            return self.queries(task)
        asked: np.ndarray = self.data["query"].transpose("task", "prompt").values.ravel()
        return asked

    def full_summary(self) -> pd.DataFrame:
        """One row per task and checkpoint."""
        rows = [
            {
                "task": task,
                "step": step,
                **self.accuracy(task, step).columns("accuracy"),
                **self.loss(task, step).columns("loss"),
                **self.gain(task, step).columns("gain"),
            }
            for task in self.tasks
            for step in self.steps
        ]
        return pd.DataFrame(rows).set_index(["task", "step"])

    def table(self) -> pd.DataFrame:
        """The summary as text, for people; the last row is over all tasks."""
        first, rows = self.steps[0], {}
        for task in [*self.tasks, None]:
            rows[task or "all tasks"] = {
                "accuracy before": str(self.accuracy(task, first)),
                "after": str(self.accuracy(task)),
                "gain": str(self.gain(task)),
                "loss before": str(self.loss(task, first)),
                "after ": str(self.loss(task)),
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def to_frame(self) -> pd.DataFrame:
        """One row per (step, task, prompt): query, answer, loss, right."""
        columns = ["query", "answer", "answer_tokens", "loss", "right"]
        frame = self.data[columns].to_dataframe().reset_index()
        order = ["step", "task", "prompt", *columns]
        return frame[order].sort_values(["step", "task", "prompt"], ignore_index=True)

    def headline(self) -> str:
        """What was trained, on which model."""
        p = self.provenance
        blocks = p["trained_blocks"]
        return (
            f"{super().headline()}: {p['n_trainable_weights']:,} weights of blocks {blocks[0]} to "
            f"{blocks[-1]} of {p['n_blocks']}, {len(self.data['update'])} updates of "
            f"{p['batch_size']} prompts, {p['n_shots']}-shot"
        )

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        found = [*super().caveats(), *self.repeated_queries()]
        several = float(np.mean(self.data["answer_tokens"].values > 1))
        if several > NOTED:
            found.append(
                f"{several:.0%} of the answers have several tokens; accuracy asks for all of them"
            )
        losses = [self.loss(step=step).value for step in self.steps]
        best = int(np.argmin(losses))
        if best < len(losses) - 1:
            found.append(
                f"held-out loss was least after {self.steps[best]} updates "
                f"({losses[best]:.2f}), and rose to {losses[-1]:.2f} at the end: training went on "
                "for longer than it helped"
            )
        recent = float(self.data["train_loss"].values[-RECENT:].mean())
        low = self.loss().low
        if recent < low:
            found.append(
                f"loss {recent:.2f} on prompts of training (the last updates) is below that on "
                f"held-out ones ({self.loss()}): inputs of training were learnt by heart in part"
            )
        found.append("one run: how much another seed would differ takes other seeds")
        return found

    def finding(self) -> str:
        """How training changed accuracy on held-out prompts of all tasks.

        It rose or fell if the 95 % interval of the paired difference excludes 0 (`gain`).
        """
        blocks, gain = self.provenance["trained_blocks"], self.gain()
        what = f"Tuning {span(blocks)}"
        before, after = (self.accuracy(step=step).value for step in (self.steps[0], None))
        if gain.low > 0 or gain.high < 0:
            verb = "raises" if gain.low > 0 else "lowers"
            return f"{what} {verb} accuracy on held-out prompts from {before:.2f} to {after:.2f}"
        return f"{what} is not shown to change accuracy on held-out prompts ({after:.2f})"

    def _draw(self) -> go.Figure:
        """Accuracy and loss of held-out prompts over updates, by task and over all."""
        from icl_mech.finetune.plot import finetuning_figure

        return finetuning_figure(self)
