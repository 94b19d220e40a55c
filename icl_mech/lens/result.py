"""The result of a logit lens."""

from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import InputError, choose
from icl_mech.lens.targets import TARGETS
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, mean, median, repeated, shares

#: Values of a curve: the mean probability, the share of prompts with the target on top, or the
#: mean of log10(rank + 1), which is 0 if the target is always on top.
VALUES = ("probability", "rank1", "log_rank")


class LogitLens(TaskResult):
    """The residual stream of every layer read as if it were the last, per prompt.

    `data` holds, over (`task`, `prompt`, `role`, `layer`): `logprob` (nats) and `rank` of every
    `target` (answer, query, prior, other; NaN and -1 if a prompt has no such target), the ids
    `top`, log probabilities `top_logprob` and texts `top_text` of the `k` most probable tokens.
    Layer -1 is the embedding, layer `l` the residual stream after block `l`. Texts are written
    as in source code (a line break is a backslash and an n).
    """

    ARRAYS: ClassVar = {
        "logprob": ("task", "prompt", "role", "layer", "target"),
        "rank": ("task", "prompt", "role", "layer", "target"),
        "top_text": ("task", "prompt", "role", "layer", "k"),
    }
    QUOTED: ClassVar = (
        *with_ends("first_layer", "right_at_last_layer"),
        *(f"{target}_peak" for target in TARGETS),
        "answer_peak_layer",
        "n_prompts",
    )

    @property
    def roles(self) -> list[str]:
        """The roles of the tokens that were read."""
        return [str(role) for role in self.data["role"].values]

    @property
    def layers(self) -> list[int]:
        """-1 for the embedding, then every block."""
        return [int(layer) for layer in self.data["layer"].values]

    def curve(
        self,
        task: str,
        target: str = "answer",
        role: str | None = None,
        value: str = "probability",
    ) -> list[Estimate]:
        """A target at every layer, with 95 % intervals over the prompts that have it.

        If prompts share queries, intervals are over queries.

        Args:
            task: one of the tasks.
            target: `"answer"`, `"query"`, `"prior"` or `"other"`.
            role: the token; by default the final arrow, or the first role.
            value: `"probability"` (mean, bootstrap interval), `"rank1"` (share of prompts where
                the target is on top, `stats.shares`) or `"log_rank"` (mean of log10(rank + 1),
                bootstrap interval).

        Raises:
            InputError: if there is no such task, target, role or value.
        """
        choose(value, VALUES, "value")
        here = self._at(task, target, role)
        ranks = here["rank"].transpose("layer", "prompt").values
        logprobs = here["logprob"].transpose("layer", "prompt").values.astype(float)
        known = ranks[0] >= 0
        if not known.any():
            return [Estimate(np.nan, np.nan, np.nan, 0)] * len(ranks)
        ranks, logprobs = ranks[:, known], logprobs[:, known]
        queries = self.of(task)["query"].values[known]
        if value == "log_rank":
            return [mean(np.log10(row + 1.0), clusters=queries) for row in ranks]
        return shares(ranks == 0 if value == "rank1" else np.exp(logprobs), queries)

    def first_layers(
        self, task: str, target: str = "answer", role: str | None = None
    ) -> np.ndarray:
        """The first layer where the target is on top, for every prompt that has the target.

        Infinity if it is never on top. It may not be on top in later layers.
        """
        ranks = self._at(task, target, role)["rank"].transpose("prompt", "layer").values
        ranks = ranks[ranks[:, 0] >= 0]
        first = np.array(self.layers, dtype=float)[(ranks == 0).argmax(axis=1)]
        return np.where((ranks == 0).any(axis=1), first, np.inf)

    def first_layer(self, task: str, target: str = "answer", role: str | None = None) -> Estimate:
        """Median over prompts of the first layer where the target is on top.

        The interval is distribution-free. The median is infinite if the target never comes to the
        top in half of the prompts.
        """
        return median(self.first_layers(task, target, role))

    def top_table(self, task: str, role: str | None = None, n: int = 3) -> pd.DataFrame:
        """The tokens that are most often on top at every layer.

        Returns:
            A row per layer and place: the token, the share of prompts where it is on top, and
            its mean probability there.
        """
        here = self._where(task, role)[["top_text", "top_logprob"]].isel(k=0)
        rows = []
        for layer in self.layers:
            at = here.sel(layer=layer)
            frame = pd.DataFrame(
                {
                    "token": at["top_text"].values.astype(str),
                    "probability": np.exp(at["top_logprob"].values),
                }
            )
            grouped = frame.groupby("token")["probability"].agg(["size", "mean"])
            grouped = grouped.sort_values(["size", "mean"], ascending=False).head(n)
            for place, (token, (size, probability)) in enumerate(grouped.iterrows(), 1):
                rows.append(
                    {
                        "layer": layer,
                        "place": place,
                        "token": token,
                        "share": size / len(frame),
                        "probability": probability,
                    }
                )
        return pd.DataFrame(rows).set_index(["layer", "place"])

    def full_summary(self) -> pd.DataFrame:
        """One row per task and role, with 95 % intervals.

        The columns are the layer where the answer is first on top (NaN if it never is in half of
        the prompts), how often it is on top after the last layer, and, for each target, its largest
        mean probability and the layer of that. The layer is chosen on the same prompts, so this
        probability is biased upwards.
        """
        rows = []
        for task in self.tasks:
            for role in self.roles:
                first = _finite(self.first_layer(task, "answer", role))
                right = self.curve(task, "answer", role, "rank1")[-1]
                row: dict = {"task": task, "role": role}
                estimates = {"first_layer": first, "right_at_last_layer": right}
                for target in TARGETS:
                    curve = self.curve(task, target, role)
                    peak = int(np.argmax([np.nan_to_num(e.value) for e in curve]))
                    estimates[f"{target}_peak"] = curve[peak]
                    known = curve[peak].n > 0
                    row[f"{target}_peak_layer"] = self.layers[peak] if known else None
                    row[f"{target}_n"] = curve[peak].n
                for name, e in estimates.items():
                    row |= e.columns(name)
                rows.append(row | {"n_prompts": self.data.sizes["prompt"]})
        frame = pd.DataFrame(rows).set_index(["task", "role"])
        layers = [f"{target}_peak_layer" for target in TARGETS]
        return frame.astype(dict.fromkeys(layers, "Int64"))

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats()
        if self.provenance["translator"] is None:
            notes.append(
                "early layers may represent a token in another direction than the last layer: a "
                "token that the lens does not show may still be encoded (a tuned lens would see "
                "more)"
            )
        n = self.data.sizes["prompt"]
        for task in self.tasks:
            of_task = self.data.sel(task=task)
            for note in repeated([task], [int(of_task["n_queries"])], n):
                notes.append(f"{note}; but that of the median first layer is over prompts")
            several = int((of_task["n_answer_tokens"] > 1).sum())
            if several:
                notes.append(
                    f"{task}: in {several} of {n} prompts the answer takes several tokens; the "
                    "lens looks for the first"
                )
            for target in TARGETS[1:]:
                without = int((self._at(task, target, None)["rank"].isel(layer=0) < 0).sum())
                if without and not (target == "other" and self._other(task) is None):
                    notes.append(
                        f"{task}: {without} of {n} prompts have no {target!r} (it begins as a "
                        f"right answer does{', or is not known' * (target == 'other')})"
                    )
            right = self.curve(task, "answer", self._role(None), "rank1")[-1]
            if self._role(None) == "final_arrow" and right.high < 0.5:
                notes.append(f"{task}: the model hardly does this task in context ({right})")
        return notes

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, role, layer, target); `top` is the most probable token."""
        top = self.data[["top_text", "top_logprob"]].isel(k=0, drop=True)
        top = top.rename({"top_text": "top"})
        parts = [self.data[["logprob", "rank"]], top, self.data[["query", "answer"]]]
        frame = xr.merge(parts).to_dataframe().reset_index()
        first = ["task", "prompt", "query", "answer", "role", "layer", "target"]
        return frame[[*first, "logprob", "rank", "top", "top_logprob"]]

    def finding(self, role: str | None = None) -> str:
        """After which block the answer becomes the top token; of several tasks, in how many.

        It gives the median over prompts (`first_layer`) if the 95 % interval is finite. If even
        the lower end is infinite, it says that the answer never comes to the top in most prompts.
        Otherwise it says how often the answer is on top after the last block. Empty for several
        tasks if no task has a finite interval.
        """
        first = {task: self.first_layer(task, "answer", role) for task in self.tasks}
        known = [e for e in first.values() if np.isfinite(e.high)]
        if len(first) > 1:
            if not known:
                return ""
            when = _after(min(e.value for e in known), max(e.value for e in known))
            return (
                f"In {len(known)} of {len(first)} tasks the answer becomes the top token, "
                f"{when} (medians of prompts)"
            )
        (e,) = first.values()
        if np.isinf(e.low):
            return "In most prompts the answer becomes the top token after no block"
        if not known:
            end = self.curve(self.tasks[0], "answer", role, "rank1")[-1]
            share = f"{end.value:.0%} [{end.low:.0%}, {end.high:.0%}]"
            return f"The answer ends on top in {share} of the prompts"
        interval = "" if e.low == e.high else f" [{e.low:g}, {e.high:g}]"
        return f"The answer becomes the top token {_after(e.value, e.value)}{interval}"

    def _draw(self, role: str | None = None) -> go.Figure:
        """Probability and rank of every target against layer, a row per task."""
        from icl_mech.lens.plot import lens_figure

        return lens_figure(self, self._role(role))

    def plot_prompt(self, i: int = 0, task: str | None = None) -> go.Figure:
        """One prompt: the top token at every role and layer, or, with one role, the top k tokens.

        Raises:
            InputError: if there is no such prompt.
        """
        from icl_mech.lens.plot import prompt_figure

        n = self.data.sizes["prompt"]
        if not 0 <= i < n:
            raise InputError(f"prompt {i}; expected 0 to {n - 1}")
        return prompt_figure(self, choose(task or self.tasks[0], self.tasks, "task"), i)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            for role in self.roles:
                name = task if len(self.roles) == 1 else f"{task}, {role}"
                first = self.first_layer(task, "answer", role)
                rows[name] = {
                    "answer first on top after layer": _layers(first),
                    "on top after the last": str(self.curve(task, "answer", role, "rank1")[-1]),
                }
                for target in TARGETS[1:]:
                    rows[name][f"p({target}), largest"] = self._peak(task, target, role)
                rows[name]["n"] = str(self.data.sizes["prompt"])
        return pd.DataFrame.from_dict(rows, orient="index")

    def _peak(self, task: str, target: str, role: str) -> str:
        curve = self.curve(task, target, role)
        if not curve[0].n:
            return "none"
        best = int(np.argmax([e.value for e in curve]))
        return f"{curve[best]} after {self.layers[best]}"

    def _other(self, task: str) -> str | None:
        return self.provenance["tasks"][task]["other_task"]

    def _role(self, role: str | None) -> str:
        if role is None:
            return "final_arrow" if "final_arrow" in self.roles else self.roles[0]
        return choose(role, self.roles, "role")

    def _where(self, task: str, role: str | None) -> xr.Dataset:
        return self.of(task).sel(role=self._role(role))

    def _at(self, task: str, target: str, role: str | None) -> xr.Dataset:
        choose(target, TARGETS, "target")
        return self._where(task, role)[["logprob", "rank"]].sel(target=target)


def _finite(estimate: Estimate) -> Estimate:
    """The estimate with NaN in place of infinity, which JSON cannot hold."""
    value, low, high = (
        v if np.isfinite(v) else np.nan for v in (estimate.value, estimate.low, estimate.high)
    )
    return Estimate(value, low, high, estimate.n, estimate.n_clusters)


def _after(first: float, last: float) -> str:
    """A block, or a range of two, in words; -1 is the embedding.

    >>> _after(9.0, 9.0), _after(9.0, 12.5), _after(-1.0, -1.0)
    ('after block 9', 'after blocks 9 to 12.5', 'in the embedding')
    """
    if first == last:
        return "in the embedding" if last == -1 else f"after block {last:g}"
    return f"after blocks {first:g} to {last:g}"


def _layers(first: Estimate) -> str:
    """A median layer as text.

    >>> _layers(Estimate(16.0, 15.0, float("inf"), 25)), _layers(Estimate(2.0, np.nan, np.nan, 3))
    ('16 [15, never]', '2 (no interval)')
    """
    value, low, high = (
        "never" if np.isinf(v) else f"{v:g}" for v in (first.value, first.low, first.high)
    )
    return f"{value} (no interval)" if np.isnan(first.low) else f"{value} [{low}, {high}]"
