"""The result of switching heads off."""

from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import InputError
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import MIN_CLUSTERS, Estimate, crossed, share


class HeadAblation(TaskResult):
    """Few-shot accuracy with the top k heads, or k random heads, switched off, per prompt.

    `data` holds `top_right` and `top_logprob` over (`task`, `prompt`, `k`), `random_right` and
    `random_logprob` over (`task`, `prompt`, `k`, `draw`), `intact_right` and `intact_logprob`
    over (`task`, `prompt`), and the names of the `ranked` heads.
    """

    ARRAYS: ClassVar = {
        "top_right": ("task", "prompt", "k"),
        "random_right": ("task", "prompt", "k", "draw"),
        "intact_right": ("task", "prompt"),
        "ranked": ("task",),
    }
    QUOTED: ClassVar = ("intact", *with_ends("top", "random", "cost"))

    @property
    def counts(self) -> list[int]:
        """The numbers of heads that were switched off together."""
        return [int(k) for k in self.data["k"].values]

    def ranked(self, task: str) -> list[str]:
        """The heads, most important first, as "layer.head"."""
        return [str(name) for name in self.of(task)["ranked"].values]

    def intact(self, task: str) -> Estimate:
        """Accuracy with all heads.

        Intervals here and below are over prompts or, if these share queries, over queries.
        """
        return share(self.of(task)["intact_right"].values, self.queries(task))

    def top(self, task: str, k: int) -> Estimate:
        """Accuracy with the top k heads switched off."""
        return share(self._at(task, k)["top_right"].values, self.queries(task))

    def random(self, task: str, k: int) -> Estimate:
        """Mean accuracy with k random heads off; the interval is over prompts and draws."""
        right = self._at(task, k)["random_right"].transpose("prompt", "draw").values
        return crossed(right, clusters=self.queries(task))

    def cost(self, task: str, k: int) -> Estimate:
        """Accuracy with k random heads off minus that with the top k off, paired by prompt.

        The interval is over prompts and draws.
        """
        here = self._at(task, k)
        random = here["random_right"].transpose("prompt", "draw").values
        return crossed(random, clusters=self.queries(task), minus=here["top_right"].values)

    def full_summary(self) -> pd.DataFrame:
        """One row per task and k, with 95 % intervals."""
        rows = []
        for task in self.tasks:
            for k in self.counts:
                row: dict = {"task": task, "k": k}
                estimates = {
                    "intact": self.intact(task),
                    "top": self.top(task, k),
                    "random": self.random(task, k),
                    "cost": self.cost(task, k),
                }
                for name, e in estimates.items():
                    row |= e.columns(name)
                rows.append(row | {"heads": " ".join(self.ranked(task)[:k])})
        return pd.DataFrame(rows).set_index(["task", "k"])

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats() + self.repeated_queries()
        for task in self.tasks:
            known = [k for k in self.counts if self.cost(task, k).low > 0]
            unknown = all(np.isnan(self.cost(task, k).low) for k in self.counts)
            if unknown:
                notes.append(
                    f"{task}: too few prompts or draws of random heads for an interval of what the "
                    "top heads cost more"
                )
            elif not known:
                notes.append(
                    f"{task}: for no k do the top heads cost more than random ones beyond the "
                    "95 % interval: the ranking is not shown to matter"
                )
        return notes

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, k, draw); draw -1 is the top k heads, k 0 all heads on."""
        index = ["task", "prompt"]
        shared = self.data[["query", "answer"]].to_dataframe().reset_index()
        drawn = self.data[["random_right", "random_logprob"]].to_dataframe().reset_index()
        top = self.data[["top_right", "top_logprob"]].to_dataframe().reset_index()
        intact = self.data[["intact_right", "intact_logprob"]].to_dataframe().reset_index()
        parts = [
            part.rename(columns={f"{kind}_right": "right", f"{kind}_logprob": "logprob"})
            for kind, part in (
                ("random", drawn),
                ("top", top.assign(draw=-1)),
                ("intact", intact.assign(k=0, draw=-1)),
            )
        ]
        frame = pd.concat(parts, ignore_index=True).merge(shared, on=index)
        return frame[["task", "k", "draw", "prompt", "query", "answer", "right", "logprob"]]

    def few(self) -> str:
        n = self.data.sizes["draw"]
        draws = f"{n} draws of random heads; fewer than {MIN_CLUSTERS} give no interval"
        return "; ".join(filter(None, [super().few(), draws * (n < MIN_CLUSTERS)]))

    def finding(self) -> str:
        """Whether the top heads matter more than random ones; of several tasks, in how many.

        They do if the 95 % interval of `cost` lies above 0 for some k. The finding names the
        smallest such k.
        """
        fewest = {t: self._fewest(t) for t in self.tasks}
        matter = [task for task, k in fewest.items() if k is not None]
        if len(self.tasks) > 1:
            return (
                f"In {len(matter)} of {len(self.tasks)} tasks the top heads are shown to cost more "
                "accuracy than random ones"
            )
        (task,), (k,) = self.tasks, fewest.values()
        if k is None:
            return "The top heads are not shown to cost more accuracy than random ones"
        which = f"head {self.ranked(task)[0]}" if k == 1 else f"the top {k} heads"
        falls = f"from {self.intact(task).value:.2f} to {self.top(task, k).value:.2f}"
        random = self.random(task, k).value
        return f"Accuracy falls {falls} without {which} (random: {random:.2f})"

    def _fewest(self, task: str) -> int | None:
        """The fewest top heads that cost more than as many random ones."""
        return next((k for k in sorted(self.counts) if self.cost(task, k).low > 0), None)

    def _draw(self) -> go.Figure:
        """Accuracy against the number of heads switched off."""
        from icl_mech.heads.ablation_plot import ablation_figure

        return ablation_figure(self)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            for k in self.counts:
                rows[f"{task}, k = {k}"] = {
                    "all heads on": str(self.intact(task)),
                    "top k off": str(self.top(task, k)),
                    "k random off": str(self.random(task, k)),
                    "difference": str(self.cost(task, k)),
                }
        return pd.DataFrame.from_dict(rows, orient="index")

    def _at(self, task: str, k: int) -> xr.Dataset:
        if k not in self.counts:
            nearest = min(self.counts, key=lambda c: abs(c - k))
            raise InputError(
                f"k = {k} was not run; expected one of {', '.join(map(str, self.counts))} "
                f"(nearest: {nearest})"
            )
        return self.of(task).sel(k=k)
