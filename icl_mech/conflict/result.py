"""The result of `conflicting_tasks`: which task was answered, the prompt's or the injected one."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.conflict.notes import notes
from icl_mech.errors import InputError, choose
from icl_mech.reference import Conflict, hendel2023
from icl_mech.results import TaskResult, few_queries, with_ends
from icl_mech.stats import Estimate, paired_difference, share
from icl_mech.token_texts import with_texts

#: What is injected into the few-shot prompt of task A: nothing, theta of B, theta of A, a random
#: vector of the norm of B's; last, theta of B in the zero-shot prompt.
CONDITIONS = ("regular", "injected", "own", "random", "zero_shot")
#: The task that an answer follows.
FOLLOWS = ("prompt", "injected", "neither")
_COLUMNS = ("top", "follows_prompt", "follows_injected", "prompt_logprob", "injected_logprob")


class ConflictingTasks(TaskResult):
    """Answers to prompts of one task with the vector of another, per pair and prompt.

    `data` holds, over (`pair`, `condition`, `prompt`): `follows_prompt` and `follows_injected`
    (the top token begins an answer of that task), `prompt_logprob` and `injected_logprob` (nats,
    of the most probable first token of an answer of that task) and `top` (token id);
    `chosen_layer`, `prompt_task` and `injected_task` over `pair`; `rises` (whether the dev
    accuracy rises above noise at any layer) over `pair`; `dev_right` and `dev_logprob` over
    (`pair`, `dev_prompt`, `layer`). A pair is named `"<prompt's task>:<injected task>"`;
    `condition` is one of `CONDITIONS`.
    """

    ARRAYS: ClassVar = {
        "follows_prompt": ("pair", "condition", "prompt"),
        "follows_injected": ("pair", "condition", "prompt"),
        "chosen_layer": ("pair",),
        "query": ("pair", "prompt"),
    }
    QUOTED: ClassVar = (
        "layer",
        "regular_follows_prompt",
        *with_ends("injected_follows_prompt", "injected_follows_injected", "injected_minus_prompt"),
        "undefined",
    )

    @property
    def pairs(self) -> list[str]:
        """Names of the pairs that were measured."""
        return [str(name) for name in self.data["pair"].values]

    @property
    def tasks(self) -> list[str]:
        """Names of all tasks, in order."""
        return [str(name) for name in self.provenance["tasks"]]

    @property
    def undefined(self) -> dict[str, str]:
        """The pairs that have no conflict, each with the reason."""
        return {pair: why["reason"] for pair, why in self.provenance["undefined"].items()}

    def tasks_of(self, pair: str) -> tuple[str, str]:
        """The prompt's task and the injected task of a pair."""
        row = self.data.sel(pair=self._pair(pair))
        return str(row["prompt_task"].item()), str(row["injected_task"].item())

    def layer(self, pair: str) -> int:
        """The block after which the vector was injected: the best on dev prompts."""
        return int(self.data["chosen_layer"].sel(pair=self._pair(pair)))

    def dev_accuracy(self, pair: str) -> Estimate:
        """Zero-shot accuracy of the injected task's vectors on dev prompts, at the chosen layer.

        It is a little too high, because the layer was chosen on the same prompts.
        """
        right = self.data["dev_right"].sel(pair=self._pair(pair), layer=self.layer(pair)).values
        return self._estimate(right, self.data["dev_query"].sel(pair=pair).values)

    def share(self, pair: str, follows: str = "injected", condition: str = "injected") -> Estimate:
        """Share of answers that follow a task (or neither), with a 95 % interval over queries.

        Args:
            pair: one of `pairs`.
            follows: `"prompt"`, `"injected"` or `"neither"`.
            condition: one of `CONDITIONS`.
        """
        choose(follows, FOLLOWS, "follows")
        found = self._follows(pair, condition)
        values = ~(found["prompt"] | found["injected"]) if follows == "neither" else found[follows]
        return self._estimate(values, self._queries(pair))

    def difference(self, pair: str, condition: str = "injected") -> Estimate:
        """The share that follows the injected task minus the share that follows the prompt's."""
        found = self._follows(pair, condition)
        seed = self.provenance["seed"]
        return paired_difference(found["injected"], found["prompt"], seed, self._queries(pair))

    def flipped(self, least: float = 0.5) -> dict[str, bool]:
        """Whether more answers follow the injected task than the prompt's, by pair.

        Args:
            least: pairs are left out if a smaller share of their few-shot prompts is answered
                right without a vector.
        """
        able = (p for p in self.pairs if self.share(p, "prompt", "regular").value >= least)
        return {pair: self.difference(pair).value > 0 for pair in able}

    def published(self, pair: str) -> Conflict | None:
        """The paper's shares for this pair (LLaMA-13B), or None."""
        names = self.tasks_of(pair)
        found = (c for c in hendel2023().conflicts if (c.task, c.other_task) == names)
        return next(found, None)

    def matrix(self, condition: str = "injected") -> pd.DataFrame:
        """`difference` by the prompt's task (rows) and the injected task (columns), or NaN."""
        table = pd.DataFrame(np.nan, index=self.tasks, columns=self.tasks)
        for pair in self.pairs:
            table.loc[self.tasks_of(pair)] = self.difference(pair, condition).value
        return table.rename_axis(index="prompt_task", columns="injected_task")

    def full_summary(self) -> pd.DataFrame:
        """One row per pair: shares with 95 % intervals, layer, controls, published shares."""
        rows = [self._row(pair) for pair in self.pairs]
        for why in self.provenance["undefined"].values():
            rows.append({**why, "undefined": why["reason"]})
        table = pd.DataFrame(rows).drop(columns="reason", errors="ignore")
        return table.set_index(["prompt_task", "injected_task"])

    def _row(self, pair: str) -> dict[str, Any]:
        a, b = self.tasks_of(pair)
        row: dict[str, Any] = {"prompt_task": a, "injected_task": b, "layer": self.layer(pair)}
        estimates = {
            f"{condition}_follows_{follows}": self.share(pair, follows, condition)
            for condition in CONDITIONS
            for follows in FOLLOWS
        }
        estimates["injected_minus_prompt"] = self.difference(pair)
        estimates["dev_accuracy"] = self.dev_accuracy(pair)
        for name, e in estimates.items():
            row |= e.columns(name)
        known = self.published(pair)
        for which in ("regular", "injected"):
            values = (np.nan, np.nan) if known is None else getattr(known, which)
            for follows, value in zip(FOLLOWS, values, strict=False):
                row[f"published_{which}_follows_{follows}"] = value
        counts = self.provenance["pairs"][pair]
        sizes = {"n_prompts": self.data.sizes["prompt"], "n_dev": self.data.sizes["dev_prompt"]}
        return row | sizes | {"n_queries": counts["n_queries"], "undefined": ""}

    def to_frame(self) -> pd.DataFrame:
        """One row per (pair, condition, prompt); `top_text` is the text of `top`."""
        about = ["prompt_task", "injected_task", "chosen_layer", "query"]
        answers = ["prompt_answer", "injected_answer"]
        columns = [*about, *answers, *_COLUMNS]
        frame = self.data[columns].to_dataframe().reset_index()
        frame["follows"] = np.select(
            [frame["follows_prompt"], frame["follows_injected"]], FOLLOWS[:2], FOLLOWS[2]
        )
        frame = frame[["pair", "condition", "prompt", *about, *answers, "follows", *_COLUMNS]]
        return with_texts(frame, self.provenance)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for pair in self.pairs:
            known = self.published(pair)
            rows[" <- ".join(self.tasks_of(pair))] = {
                "layer": str(self.layer(pair)),
                "few-shot: own": f"{self.share(pair, 'prompt', 'regular').value:.2f}",
                "θ: prompt's": str(self.share(pair, "prompt")),
                "θ: injected": str(self.share(pair, "injected")),
                "neither": f"{self.share(pair, 'neither').value:.2f}",
                "injected - prompt's": str(self.difference(pair)),
                "own θ": f"{self.share(pair, 'prompt', 'own').value:.2f}",
                "random": f"{self.share(pair, 'prompt', 'random').value:.2f}",
                "published": "" if known is None else "{:.2f} / {:.2f}".format(*known.injected),
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        return super().caveats() + notes(self)

    def few(self) -> str:
        n = self.data.sizes["prompt"]
        asked = {" ← ".join(self.tasks_of(p)): len(set(self._queries(p))) for p in self.pairs}
        return few_queries({name: (k, n) for name, k in asked.items()})

    def finding(self, task: str | None = None) -> str:
        """Which task wins, the vector's or the prompt's; of several pairs, in how many.

        A task wins if more answers follow it and the 95 % interval of the difference excludes 0.

        Args:
            task: count only pairs with this task, as the prompt's or the injected one.
        """
        pairs = self.pairs_with(task)
        gaps = [self.difference(pair) for pair in pairs]
        vector, prompt = sum(e.low > 0 for e in gaps), sum(e.high < 0 for e in gaps)
        if not pairs:
            return ""
        if len(pairs) > 1:
            rest = len(pairs) - vector - prompt
            untold = f", and {rest} are not told apart" * bool(rest)
            return (
                f"The vector's task wins in {vector} of {len(pairs)} pairs, the prompt's in "
                f"{prompt}{untold}"
            )
        follow = {f: self.share(pairs[0], f).value for f in FOLLOWS[:2]}
        after = f"of the answers, after block {self.layer(pairs[0])}"
        if vector:
            said = f"{follow['injected']:.0%} to {follow['prompt']:.0%} {after}"
            return f"The vector's task wins, {said}"
        wins = "The prompt's task wins" if prompt else "Neither task is shown to win"
        return f"{wins}, {follow['prompt']:.0%} to {follow['injected']:.0%} {after}"

    def pairs_with(self, task: str | None = None) -> list[str]:
        """The measured pairs with a task, as the prompt's or the injected one; all by default."""
        return [p for p in self.pairs if task is None or task in self.tasks_of(p)]

    def _draw_task(self, task: str, kind: str | None = None) -> go.Figure:
        """The pairs with one task, as bars."""
        from icl_mech.conflict.plot import conflict_bars_figure

        if kind not in (None, "bars"):
            raise InputError(f"kind is {kind!r} of one task; expected 'bars' (or no task)")
        if not self.pairs_with(task):
            raise InputError(f"no pair with {task} was measured: see .undefined")
        return conflict_bars_figure(self, task)

    def _draw(self, kind: str | None = None) -> go.Figure:
        """Shares as bars with intervals (`"bars"`), or a map of task by task (`"matrix"`).

        By default a map if the caller gave several tasks, bars if the caller gave pairs.
        """
        from icl_mech.conflict.plot import conflict_bars_figure, conflict_matrix_figure

        if kind is None:
            kind = "matrix" if self.provenance["matrix"] else "bars"
        choose(kind, ("bars", "matrix"), "kind of figure")
        return conflict_matrix_figure(self) if kind == "matrix" else conflict_bars_figure(self)

    def _pair(self, pair: str) -> str:
        if pair in self.undefined:
            raise InputError(f"the pair {pair} was not measured: {self.undefined[pair]}")
        return choose(pair, self.pairs, "pair")

    def _queries(self, pair: str) -> np.ndarray:
        return self.data["query"].sel(pair=pair).values

    def _follows(self, pair: str, condition: str) -> dict[str, np.ndarray]:
        choose(condition, CONDITIONS, "condition")
        row: xr.Dataset = self.data.sel(pair=self._pair(pair), condition=condition)
        return {name: row[f"follows_{name}"].values for name in FOLLOWS[:2]}

    def _estimate(self, values: np.ndarray, queries: np.ndarray) -> Estimate:
        return share(values, queries, self.provenance["seed"])
