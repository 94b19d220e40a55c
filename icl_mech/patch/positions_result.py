"""The result of activation patching over token positions."""

import re
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import choose
from icl_mech.layers import blocks
from icl_mech.results import TaskResult, few_queries
from icl_mech.stats import Clusters, Estimate, mean, ratio_of_means, repeated

#: The values of every patched run.
VALUES = ("logit_difference", "logprob", "rank")
#: The values that effects are computed from. The rank is left out: a few large ranks would decide
#: its mean.
METRICS = ("logit_difference", "logprob")
#: With fewer prompts than this, a caveat says so.
FEW_PROMPTS = 10


class PositionScan(TaskResult):
    """Answers with one activation patched, for every token role and layer, per prompt.

    `data` holds `logit_difference` (logits), `logprob` (nats) and `rank` of the answer over
    (`task`, `site`, `direction`, `prompt`, `role`, `layer`). If single heads were patched (site
    `"z"`), it holds the same with the prefix `head_` over (`task`, `direction`, `prompt`,
    `head_role`, `layer`, `head`). The values of the unpatched prompts have the prefixes `clean_`
    and `corrupted_`, over (`task`, `prompt`).
    """

    ARRAYS: ClassVar = {
        "clean_logit_difference": ("task", "prompt"),
        "corrupted_logit_difference": ("task", "prompt"),
        "clean_rank": ("task", "prompt"),
    }

    @property
    def sites(self) -> list[str]:
        """The sites that were patched, in order, `"z"` last."""
        sites = [str(s) for s in self.data["site"].values] if "site" in self.data.dims else []
        return [*sites, "z"] if "head_logit_difference" in self.data else sites

    @property
    def directions(self) -> list[str]:
        """The directions that were patched: denoise, noise, or both."""
        return [str(d) for d in self.data["direction"].values]

    def effect(
        self, task: str, site: str, direction: str, metric: str = "logit_difference"
    ) -> xr.Dataset:
        """Normalised effect of every patch, with bootstrap intervals.

        Intervals are over prompts or, if these share queries, over queries.

        Denoising: (patched - corrupted) / (clean - corrupted), the share that is *restored*.
        Noising: (clean - patched) / (clean - corrupted), the share that is *lost*. Both are 0 if
        the patch changes nothing and 1 if it does as much as replacing the whole prompt. They are
        ratios of means over prompts, because clean - corrupted may be near 0 in a single prompt.

        Returns:
            `value`, `low` and `high` over (`role`, `layer`), or (`role`, `layer`, `head`) for
            site `"z"`. They are NaN if clean and corrupted prompts do not differ; `low` and `high`
            are NaN if the interval of their difference covers 0.

        Raises:
            InputError: if the scan has no such task, site or direction.
        """
        choose(task, self.tasks, "task")
        choose(site, self.sites, "site")
        choose(direction, self.directions, "direction")
        choose(metric, METRICS, "metric")
        of_task = self.data.sel(task=task, direction=direction)
        if site == "z":
            patched = of_task[f"head_{metric}"].rename(head_role="role")
        else:
            patched = of_task[metric].sel(site=site)
        dims = ("role", "layer", "head") if site == "z" else ("role", "layer")
        clean, corrupted = of_task[f"clean_{metric}"], of_task[f"corrupted_{metric}"]
        change = patched - corrupted if direction == "denoise" else clean - patched
        estimates = ratio_of_means(
            change.transpose("prompt", *dims).values,
            (clean - corrupted).values,
            clusters=self._queries(task),
        )
        return xr.Dataset(
            {name: (dims, getattr(estimates, name)) for name in ("value", "low", "high")},
            coords={dim: patched[dim] for dim in dims},
            attrs={"n": estimates.n, "n_clusters": estimates.n_clusters},
        )

    def _queries(self, task: str) -> Clusters:
        """The query of each clean prompt; None if unknown (prompts without roles)."""
        queries = self.of(task)["query"].values
        return queries if all(queries) else None

    def _apart(self, task: str) -> Estimate:
        """Mean logit difference of clean prompts minus that of corrupted ones."""
        of_task = self.of(task)
        gap = of_task["clean_logit_difference"] - of_task["corrupted_logit_difference"]
        return mean(gap.values, clusters=self._queries(task))

    def largest(
        self, task: str, site: str, direction: str
    ) -> tuple[str, int, int | None, Estimate] | None:
        """The patch with the largest effect: role, layer, head (at `"z"`), effect.

        As the maximum of many estimates it is biased upwards. None if no effect is defined.
        """
        effect = self.effect(task, site, direction)
        if not bool(effect["value"].notnull().any()):
            return None
        at = effect["value"].argmax(dim=...)
        cell = effect.isel(at)
        value, low, high = (float(cell[name]) for name in ("value", "low", "high"))
        estimate = Estimate(value, low, high, effect.attrs["n"], effect.attrs["n_clusters"])
        head = int(cell["head"]) if site == "z" else None
        return str(cell["role"].item()), int(cell["layer"]), head, estimate

    def _rows(self) -> list[tuple[str, str, str]]:
        return [(t, s, d) for t in self.tasks for s in self.sites for d in self.directions]

    def full_summary(self) -> pd.DataFrame:
        """One row per (task, site, direction): the largest effect, and both logit differences."""
        return pd.DataFrame([self._row(*key) for key in self._rows()]).set_index(
            ["task", "site", "direction"]
        )

    def _row(self, task: str, site: str, direction: str) -> dict[str, Any]:
        row: dict[str, Any] = {"task": task, "site": site, "direction": direction}
        found = self.largest(task, site, direction)
        if found is None:
            row |= {"role": None, "layer": pd.NA, "head": pd.NA}
            row |= {"effect": np.nan, "effect_low": np.nan, "effect_high": np.nan}
        else:
            role, layer, head, effect = found
            row |= {"role": role, "layer": layer, "head": pd.NA if head is None else head}
            row |= effect.columns("effect")
        of_task = self.data.sel(task=task)
        return row | {
            "n_prompts": self.data.sizes["prompt"],
            "clean_logit_difference": float(of_task["clean_logit_difference"].mean()),
            "corrupted_logit_difference": float(of_task["corrupted_logit_difference"].mean()),
        }

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats()
        n = self.data.sizes["prompt"]
        if n < FEW_PROMPTS:
            rough = "intervals over so few are rough" if n > 1 else "there is no interval over one"
            notes.append(f"few prompts per task ({n}): {rough}")
        for task in self.tasks:
            of_task, queries = self.data.sel(task=task), self._queries(task)
            apart = self._apart(task)
            if queries is not None:
                notes += repeated([task], [len(set(queries))], n)
            if apart.low <= 0 or apart.value <= 0:
                notes.append(
                    f"{task}: clean prompts are not told apart from corrupted ones (logit "
                    f"difference {apart} higher): shares of that difference mean nothing"
                )
            right = int((of_task["clean_rank"] == 0).sum())
            if 2 * right < n:
                notes.append(f"{task}: the model answers {right} of {n} clean prompts right")
            same = int((of_task["clean_text"] == of_task["corrupted_text"]).sum())
            if same:
                notes.append(
                    f"{task}: {same} of {n} corrupted prompts are the clean one again (few labels)"
                )
        return notes

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, site, direction, prompt, role, layer), and head at site `"z"`."""
        frames = []
        if "site" in self.data.dims:
            frames.append(self.data[list(VALUES)].to_dataframe().reset_index())
        if "z" in self.sites:
            heads = self.data[[f"head_{name}" for name in VALUES]]
            heads = heads.rename({f"head_{name}": name for name in VALUES} | {"head_role": "role"})
            frames.append(heads.to_dataframe().reset_index().assign(site="z"))
        else:
            frames[0]["head"] = pd.NA
        frame = pd.concat(frames, ignore_index=True)
        frame["head"] = frame["head"].astype("Int64")
        shared = ["query", "answer", "clean_logit_difference", "corrupted_logit_difference"]
        prompts = self.data[shared].to_dataframe().reset_index()
        frame = frame.merge(prompts, on=["task", "prompt"])
        first = ["task", "site", "direction", "prompt", "query", "answer", "role", "layer", "head"]
        return frame[[*first, *VALUES, *shared[2:]]]

    def few(self) -> str:
        n = self.data.sizes["prompt"]
        asked = {task: self._queries(task) for task in self.tasks}
        return few_queries({t: (n if q is None else len(set(q)), n) for t, q in asked.items()})

    def finding(self) -> str:
        """At which tokens and blocks a single patch has most of the effect of the other prompt.

        It covers the first site and direction. It names the (at most two) roles at which the 95 %
        interval of the effect lies above one half in the most blocks. For single heads it names the
        head with the largest effect, if its interval lies above 0. Empty for several tasks, for
        fewer than `FEW_PROMPTS` prompts, or if clean and corrupted prompts do not differ beyond
        their interval.
        """
        if len(self.tasks) > 1 or self.data.sizes["prompt"] < FEW_PROMPTS:
            return ""
        (task,), site, direction = self.tasks, self.sites[0], self.directions[0]
        if not self._apart(task).low > 0:
            return ""
        if site == "z":
            return self._finding_of_heads(task, direction)
        effect = self.effect(task, site, direction)
        n_layers = self.data.sizes["layer"]
        most = {
            str(role): [int(x) for x in effect["layer"].values[row]]
            for role, row in zip(
                effect["role"].values, effect["low"].transpose("role", "layer").values > 0.5,
                strict=True,
            )
            if row.any()
        }  # fmt: skip
        if not most:
            return f"No single token is shown to hold most of the difference ({site})"
        roles = sorted(most, key=lambda role: len(most[role]), reverse=True)[:2]
        roles.sort(key=lambda role: most[role])
        parts = [f"at {role_name(role)} {_when(most[role], n_layers)}" for role in roles]
        return f"Most of the difference is {' and '.join(parts)} ({site})"

    def _finding_of_heads(self, task: str, direction: str) -> str:
        found = self.largest(task, "z", direction)
        if found is None or not found[3].low > 0:
            return ""
        role, layer, head, effect = found
        done = "restores" if direction == "denoise" else "loses"
        return f"Head {layer}.{head} at {role_name(role)} {done} most: {effect.value:.0%}"

    def _draw(self) -> go.Figure:
        """Effects as maps of roles x layers (heads x layers at `"z"`), a panel per direction."""
        from icl_mech.patch.positions_plot import position_figure

        return position_figure(self)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task, site, direction in self._rows():
            of_task = self.data.sel(task=task)
            found = self.largest(task, site, direction)
            if found is None:
                largest = "none: clean and corrupted do not differ"
            else:
                role, layer, head, effect = found
                at = f"layer {layer}" if head is None else f"head {layer}.{head}"
                largest = f"{effect} at {role_name(role)}, {at}"
            rows[task, site, direction] = {
                "largest effect": largest,
                "logit difference, clean": f"{float(of_task['clean_logit_difference'].mean()):.2f}",
                "corrupted": f"{float(of_task['corrupted_logit_difference'].mean()):.2f}",
                "n": str(self.data.sizes["prompt"]),
            }
        return pd.DataFrame.from_dict(rows, orient="index")


def _when(layers: list[int], n_layers: int) -> str:
    """A selection of the blocks 0 to `n_layers` - 1 in words.

    >>> _when([0, 1, 2], 6), _when([4, 5], 6), _when([1, 3], 6)
    ('up to block 2', 'from block 4 on', 'at blocks 1 and 3')
    """
    first, last = layers[0], layers[-1]
    if len(layers) < last - first + 1:
        return f"at {blocks(layers)}"
    if first == 0 and last == n_layers - 1:
        return "at every block"
    if first == 0:
        return f"up to block {last}"
    return f"from block {first} on" if last == n_layers - 1 else f"at {blocks(layers)}"


def role_name(role: str) -> str:
    """A role as people read it; any other text is returned unchanged.

    >>> role_name("demo_0_arrow"), role_name("final_arrow"), role_name("3: cat")
    ('demo 1: →', 'final →', '3: cat')
    """
    demo = re.fullmatch(r"demo_(\d+)_(\w+)", role)
    if demo:
        return f"demo {int(demo[1]) + 1}: {'→' if demo[2] == 'arrow' else demo[2]}"
    return {"final_arrow": "final →", "query_start": "query: start"}.get(role, role)
