"""The result of a head attribution."""

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from icl_mech.errors import InputError, choose
from icl_mech.heads.plan import METHODS, Head
from icl_mech.results import TaskResult
from icl_mech.stats import Estimate, mean, means, rank_correlation, repeated

#: The most heads that a finding names.
_NAMED = 5


class HeadAttribution(TaskResult):
    """The effect of every attention head on the answer, per prompt.

    `data` holds, over (`task`, `prompt`, `layer`, `head`): `aie` and `attribution` (change in the
    probability of the answer) and `direct` (logits), `attention` by `role`, and `induction` per
    head; per (`task`, `prompt`) the probability with shuffled and with right labels, and the
    `logit_difference` that `direct`, `direct_mlp` and `direct_rest` add up to.
    """

    ARRAYS: ClassVar = {
        "attention": ("task", "prompt", "layer", "head", "role"),
        "clean_probability": ("task", "prompt"),
        "shuffled_probability": ("task", "prompt"),
    }

    @property
    def methods(self) -> list[str]:
        """Those of `METHODS` that were run."""
        return [method for method in METHODS if method in self.data]

    def estimates(self, task: str, method: str = "aie") -> list[list[Estimate]]:
        """Mean effect of every head, `[layer][head]`, with bootstrap intervals.

        Intervals here and below are over prompts or, if these share queries, over queries.
        """
        found = means(self._effect(task, method), clusters=self.queries(task))
        layers, heads = found.value.shape
        return [[found.at(layer, head) for head in range(heads)] for layer in range(layers)]

    def top(
        self, task: str, k: int = 10, method: str = "aie", *, absolute: bool = False
    ) -> list[tuple[int, int, Estimate]]:
        """The `k` heads with the largest mean effect: (layer, head, effect).

        Heads that work against the answer come last; with `absolute`, heads are ordered by the
        size of their effect.
        """
        effect = self._effect(task, method)
        means = effect.mean(axis=0)
        chosen = largest(abs(means) if absolute else means, min(k, means.size))
        queries = self.queries(task)
        return [(x, h, mean(effect[:, x, h], clusters=queries)) for x, h in chosen]

    def universal(self, k: int = 10, tasks: Sequence[str] | None = None) -> list[Head]:
        """The `k` heads with the largest AIE averaged over tasks (all of them by default)."""
        names = self.tasks if tasks is None else [choose(t, self.tasks, "task") for t in tasks]
        if not names:
            raise InputError("no tasks to average over; expected at least one")
        return largest(np.mean([self._effect(t, "aie").mean(axis=0) for t in names], axis=0), k)

    def agreement(self, task: str, method: str = "attribution") -> Estimate:
        """Spearman's correlation over heads of a method's mean effects with the exact AIE."""
        return rank_correlation(
            self._effect(task, "aie").reshape(self.data.sizes["prompt"], -1),
            self._effect(task, method).reshape(self.data.sizes["prompt"], -1),
            clusters=self.queries(task),
        )

    def misses(self, task: str, k: int = 5, method: str = "attribution") -> pd.DataFrame:
        """The heads for which attribution patching is furthest from the exact AIE."""
        exact, estimate = (self._effect(task, m).mean(axis=0) for m in ("aie", method))
        rows = [
            {"layer": x, "head": h, "aie": exact[x, h], method: estimate[x, h]}
            for x, h in largest(abs(estimate - exact), k)
        ]
        return pd.DataFrame(rows).set_index(["layer", "head"])

    def summary(self, k: int = 10) -> pd.DataFrame:
        """The top `k` heads of every task, see `full_summary`."""
        return self._quoted(self.full_summary(k))

    def full_summary(self, k: int = 10) -> pd.DataFrame:
        """The top `k` heads of every task by AIE, with their other scores."""
        method = self.methods[0]
        rows = []
        for task in self.tasks:
            of_task = self.data.sel(task=task)
            for rank, (layer, head, effect) in enumerate(self.top(task, k, method), 1):
                here = of_task.sel(layer=layer, head=head)
                row = {"task": task, "rank": rank, "layer": layer, "head": head}
                row |= effect.columns(method)
                row |= {m: float(here[m].mean()) for m in self.methods if m != method}
                looked = here["attention"].mean("prompt")
                row["looks_at"] = str(looked["role"].values[int(looked.values.argmax())])
                row["attention"] = float(looked.max())
                row["induction"] = float(here["induction"])
                rows.append(row | {"n_prompts": effect.n})
        return pd.DataFrame(rows).set_index(["task", "rank"])

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        n_prompts = self.data.sizes["prompt"]
        notes = super().caveats() + repeated(
            self.tasks, self.data["n_queries"].values.tolist(), n_prompts
        )
        for task in self.tasks if n_prompts > 1 else []:
            of_task = self.data.sel(task=task)
            gain = of_task["clean_probability"] - of_task["shuffled_probability"]
            gap = mean(gain.values, clusters=self.queries(task))
            if gap.low <= 0:
                notes.append(
                    f"{task}: right labels hardly make the answer more probable than shuffled "
                    f"ones ({gap}): there is little effect to attribute"
                )
            if {"aie", "attribution"} <= set(self.methods):
                agrees = self.agreement(task)
                if agrees.low < 0.5:
                    notes.append(
                        f"{task}: attribution patching ranks heads differently from the exact AIE "
                        f"(Spearman {agrees})"
                    )
        return notes

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, layer, head)."""
        names = [*self.methods, "query", "answer"]
        return self.data[names].to_dataframe().reset_index()

    def carriers(self, task: str, method: str = "aie") -> list[Head]:
        """The fewest heads that carry half of the effect of all heads that help, largest first.

        Heads are ranked, and those that help are chosen, on one half of the prompts; their effect
        is counted on the other half. Both ways are averaged. (On the same prompts, the noise of
        many heads would look like help.) The list is empty if the 95 % interval of the helpful
        heads' effect does not lie above 0.
        """
        effect = self._effect(task, method)
        effect = effect.reshape(len(effect), -1).astype(float)
        if len(effect) < 2:
            return []
        added = np.empty_like(effect)
        for counted, decided in ((0, 1), (1, 0)):
            means = effect[decided::2].mean(axis=0)
            order = np.argsort(-means, kind="stable")
            added[counted::2] = (effect[counted::2] * (means > 0))[:, order].cumsum(axis=1)
        if not mean(added[:, -1], clusters=self.queries(task)).low > 0:
            return []
        curve = added.mean(axis=0)
        k = int((curve >= curve[-1] / 2).argmax()) + 1
        return largest(self._effect(task, method).mean(axis=0), k)

    def finding(self) -> str:
        """The heads that carry half of the effect (`carriers`), by the first method.

        For several tasks: the head that has the largest effect in most of them. A task counts only
        if its first head exceeds the second beyond the 95 % interval of their paired difference.
        """
        method = self.methods[0]
        if len(self.tasks) > 1:
            firsts = Counter(h for t in self.tasks if (h := self._first(t, method)) is not None)
            if not firsts:
                return "In no task is one head shown to have the largest effect"
            ((layer, head), n), *_ = firsts.most_common()
            return f"Head {layer}.{head} has the largest effect in {n} of {len(self.tasks)} tasks"
        heads = self.carriers(self.tasks[0], method)
        if not heads:
            return "No heads are shown to carry an effect"
        n = self.data.sizes["layer"] * self.data.sizes["head"]
        names = ", ".join(f"{layer}.{head}" for layer, head in heads[:_NAMED])
        carry = f"{len(heads)} of {n} heads carr{'ies' if len(heads) == 1 else 'y'} half of"
        begin = "" if len(heads) <= _NAMED else "the largest "
        return f"{carry} the helpful heads' effect: {begin}{names}"

    def _first(self, task: str, method: str) -> Head | None:
        """The head with the largest effect, if it exceeds the next one beyond the interval."""
        effect = self._effect(task, method).astype(float)
        if effect[0].size < 2:
            return None
        (x, h), (next_x, next_h) = largest(effect.mean(axis=0), 2)
        lead = effect[:, x, h] - effect[:, next_x, next_h]
        return (x, h) if mean(lead, clusters=self.queries(task)).low > 0 else None

    def _draw(self) -> go.Figure:
        """Maps of layers x heads, a panel per task and method."""
        from icl_mech.heads.attribution_plot import head_figure

        return head_figure(self)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            of_task = self.data.sel(task=task)
            method = self.methods[0]
            heads = ", ".join(f"{x}.{h} ({e.value:+.3f})" for x, h, e in self.top(task, 5, method))
            rows[task] = {
                "p(answer), right labels": f"{float(of_task['clean_probability'].mean()):.2f}",
                "shuffled labels": f"{float(of_task['shuffled_probability'].mean()):.2f}",
                f"top heads ({method})": heads,
            }
            if {"aie", "attribution"} <= set(self.methods):
                rows[task]["attribution patching, rank correlation"] = str(self.agreement(task))
        return pd.DataFrame.from_dict(rows, orient="index")

    def _effect(self, task: str, method: str) -> np.ndarray:
        """`[prompt, layer, head]`."""
        choose(method, self.methods, "method")
        return self.of(task)[method].transpose("prompt", "layer", "head").values


def largest(scores: np.ndarray, k: int) -> list[Head]:
    """The `k` heads with the largest scores in a map `[layer, head]`, largest first."""
    if not 0 < k <= scores.size:
        raise InputError(f"k is {k}; expected 1 to {scores.size}, the number of heads")
    order = np.argsort(-scores, axis=None, kind="stable")[:k]
    return [(int(i // scores.shape[1]), int(i % scores.shape[1])) for i in order]
