"""The result of a layer scan."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import choose
from icl_mech.layers import blocks, span
from icl_mech.results import TaskResult, with_ends
from icl_mech.scores import SCORES
from icl_mech.stats import Estimate, paired_difference, repeated, share, shares
from icl_mech.token_texts import with_texts
from icl_mech.vectors import Choice, choose_layer, layer_name

#: The vectors that are injected: theta and its controls.
VECTORS = ("theta", "shuffled", "other_task", "random")
#: The prompts without a vector: the zero-shot and the few-shot prompt.
REFERENCES = ("baseline", "regular")


class LayerScan(TaskResult):
    """Right and wrong answers with vectors injected at every layer, per prompt.

    `data` holds, over (`task`, `prompt`, `vector`, `layer`): `first_token` and `two_way_prefix`
    (right or wrong), `logprob` (nats) and `rank` of the answer, `top` (token id); over `prompt`
    the `query`, the `answer` and its `n_tokens`. The scores with the prefix `reference_` are those
    of the baseline and the regular prompt, with `dev_` those of theta on the dev prompts. `vector`
    is theta, shuffled, other_task or random; `measured` says at which layers each was injected.
    """

    ARRAYS: ClassVar = {
        "first_token": ("task", "prompt", "vector", "layer"),
        "dev_first_token": ("task", "dev_prompt", "layer"),
        "reference_first_token": ("task", "prompt", "reference"),
        "query": ("task", "prompt"),
        "measured": ("vector", "layer"),
    }
    QUOTED: ClassVar = (
        *with_ends("baseline", "hypothesis", "regular"),
        "best_layer",
        "n_prompts",
        "n_queries",
    )

    def curve(self, task: str, vector: str = "theta", score: str = "first_token") -> list[Estimate]:
        """Test accuracy at each of `layers(task, vector)`.

        Intervals here and below are Wilson's, over prompts or, if these share queries, over
        queries (`stats.shares`).
        """
        layers = self.layers(task, vector)
        right = self.data[_score(score)].sel(task=task, vector=vector, layer=layers)
        return shares(right.transpose("layer", "prompt").values, self.queries(task))

    def layers(self, task: str, vector: str = "theta") -> list[int]:
        """After which blocks a vector was injected: all, unless `control_layers="chosen"`."""
        choose(vector, VECTORS, "vector")
        of_task = self.of(task)
        layers = [int(layer) for layer in of_task["layer"].values]
        measured = of_task["measured"].sel(vector=vector).values
        return [layer for layer, there in zip(layers, measured, strict=True) if there]

    def reference(self, task: str, name: str, score: str = "first_token") -> Estimate:
        """Test accuracy of the `"baseline"` or the `"regular"` prompt."""
        choose(name, REFERENCES, "reference")
        return share(self._reference(task, name, score), self.queries(task))

    def prior(self, task: str) -> Estimate:
        """Accuracy of always giving the most frequent answer (the label prior)."""
        return share(self.of(task)["prior_right"].values, self.queries(task))

    def best_layer(self, task: str, score: str = "first_token") -> int | None:
        """The layer with the best dev accuracy; None if theta works at no layer.

        Theta works at no layer if the dev accuracy does not rise above noise (`choose_layer`).
        """
        choice = choice_on_dev(self.of(task), score)
        return choice.at if choice.rises else None

    def read_at(self, task: str, score: str = "first_token") -> int:
        """The layer at which the hypothesis and its controls are read.

        It is the best layer. If there is none, it is the layer with the most probable answers among
        those with the highest dev accuracy.
        """
        return choice_on_dev(self.of(task), score).at

    def hypothesis(self, task: str, vector: str = "theta", score: str = "first_token") -> Estimate:
        """Test accuracy at the layer chosen on dev prompts (`read_at`)."""
        return share(self._at_best(task, vector, score), self.queries(task))

    def hypothesis_minus_regular(self, task: str, score: str = "first_token") -> Estimate:
        """Hypothesis minus regular accuracy, paired by prompt, with a bootstrap interval."""
        return self._difference(
            task, self._at_best(task, "theta", score), self._reference(task, "regular", score)
        )

    def working_layers(self, task: str, score: str = "first_token") -> list[int]:
        """After which blocks theta works.

        It works after a block if two things hold: it answers more test prompts right than the
        zero-shot prompt, beyond the 95 % interval of the paired difference; and this gain is at
        least half of the gain at `best_layer`. Empty if there is no best layer, or theta is not
        better there.
        """
        best = self.best_layer(task, score)
        if best is None:
            return []
        baseline = self._reference(task, "baseline", score)
        gains = {
            layer: self._difference(task, self._at(task, layer, score), baseline)
            for layer in self.layers(task)
        }
        if not gains[best].low > 0:
            return []
        enough = gains[best].value / 2
        return [layer for layer, e in gains.items() if e.low > 0 and e.value >= enough]

    def _stops(self, task: str, after: int, score: str) -> bool:
        """Whether theta is worse after every block later than `after` than at the best layer."""
        best = self._at_best(task, "theta", score)
        later = [layer for layer in self.layers(task) if layer > after]
        lost = (self._difference(task, best, self._at(task, at, score)) for at in later)
        return bool(later) and all(e.low > 0 for e in lost)

    def finding(self, score: str = "first_token") -> str:
        """After which blocks θ works (`working_layers`); of several tasks, in how many.

        "Not from block l on" is added if θ is worse after all later blocks than at its best layer,
        beyond the 95 % intervals of the paired differences.
        """
        if len(self.tasks) == 1:
            (task,) = self.tasks
            layers = self.working_layers(task, score)
            if not layers:
                return "θ is not shown to work after any block"
            end = layers[-1]
            stops = f" and not from block {end + 1} on" * self._stops(task, end, score)
            return f"θ works after {blocks(layers)}{stops}"
        works = [task for task in self.tasks if self.working_layers(task, score)]
        if not works:
            return f"θ is not shown to work in any of {len(self.tasks)} tasks"
        best = [self.read_at(task, score) for task in works]
        verb = "works" if len(works) == len(self.tasks) else "is shown to work"
        return f"θ {verb} in {len(works)} of {len(self.tasks)} tasks, best after {span(best)}"

    def _difference(self, task: str, first: np.ndarray, second: np.ndarray) -> Estimate:
        return paired_difference(first, second, clusters=self.queries(task))

    def _at_best(self, task: str, vector: str, score: str) -> np.ndarray:
        """Right or wrong, per test prompt, at the layer chosen on dev prompts."""
        return self._at(task, self.read_at(task, score), score, vector)

    def _at(self, task: str, layer: int, score: str, vector: str = "theta") -> np.ndarray:
        """Right or wrong, per test prompt, with a vector after a block."""
        at = {"vector": choose(vector, VECTORS, "vector"), "layer": layer}
        values: np.ndarray = self.of(task)[_score(score)].sel(at).values
        return values

    def _reference(self, task: str, name: str, score: str) -> np.ndarray:
        return self.of(task)[f"reference_{_score(score)}"].sel(reference=name).values

    def summary(self, score: str = "first_token") -> pd.DataFrame:
        """One row per task: accuracies with 95 % intervals, the layer, and how many prompts."""
        return self._quoted(self.full_summary(score))

    def full_summary(self, score: str = "first_token") -> pd.DataFrame:
        """The summary with the controls, the log probability and rank at the layer, and counts."""
        return pd.DataFrame([self._row(task, score) for task in self.tasks]).set_index("task")

    def _row(self, task: str, score: str) -> dict[str, Any]:
        best = self.best_layer(task, score)
        at_best = self.data.sel(task=task, vector="theta", layer=self.read_at(task, score))
        row: dict[str, Any] = {"task": task}
        estimates = {
            "baseline": self.reference(task, "baseline", score),
            "hypothesis": self.hypothesis(task, score=score),
            "regular": self.reference(task, "regular", score),
            "hypothesis_minus_regular": self.hypothesis_minus_regular(task, score),
            "label_prior": self.prior(task),
            "shuffled": self.hypothesis(task, "shuffled", score),
            "other_task": self.hypothesis(task, "other_task", score),
            "random": self.hypothesis(task, "random", score),
        }
        for name, estimate in estimates.items():
            row |= estimate.columns(name)
        of_task = self.data.sel(task=task)
        return row | {
            "best_layer": np.nan if best is None else best,
            "mean_logprob": float(at_best["logprob"].mean()),
            "median_rank": float(at_best["rank"].median()),
            "n_prompts": self.data.sizes["prompt"],
            "n_queries": int(of_task["n_queries"]),
            "n_dev": self.data.sizes["dev_prompt"],
            "prior_answer": str(of_task["prior_answer"].item()),
            "first_token_collisions": int(of_task["collisions"]),
        }

    def caveats(self, score: str = "first_token") -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats()
        n = self.data.sizes["prompt"]
        if self.provenance["n_shots"] == 1:
            notes.append("with one shot there are no labels to shuffle: that control is θ itself")
        if "sink_right" in self.data:
            notes += self._sink_note()
        held = self.provenance.get("vector")  # files of earlier versions do not say
        if held is not None:
            notes.append(
                f"θ is the vector {held['name']!r} that was held ({held['mode']}, scale "
                f"{held['scale']:g}), the same in every prompt; the controls are written as it is"
            )
            if not held["provenance"].get("shown"):
                notes.append(
                    "which inputs the vector was shown is not recorded: they may be among the "
                    "queries"
                )
        for task in self.tasks:
            of_task = self.data.sel(task=task)
            regular, ours = (
                self.reference(task, "regular", score),
                self.hypothesis(task, score=score),
            )
            choice = choice_on_dev(of_task, score)
            notes += [f"{task}: {line}" for line in choice.caveat(choice.at)]
            shuffled, prior = self.hypothesis(task, "shuffled", score), self.prior(task)
            gain = self._difference(
                task, *(self._at_best(task, v, score) for v in ("theta", "shuffled"))
            )
            notes += repeated([task], [int(of_task["n_queries"])], n)
            if "n_tokens" in of_task:  # files of earlier versions do not say
                several = int((of_task["n_tokens"] > 1).sum())
                if several:
                    notes.append(
                        f"{task}: in {several} of {n} prompts the answer takes several tokens; "
                        "first tokens are scored"
                    )
            if int(of_task["collisions"]):
                notes.append(
                    f"{task}: in {int(of_task['collisions'])} of {n} prompts another answer begins "
                    "with the same token as the right one"
                )
            if regular.low < max(0.1, prior.high):
                why = (
                    "the model hardly does this task in context"
                    if regular.value < max(0.1, prior.value)
                    else "too few prompts, or too weak an answer, to say that the model does this "
                    "task better than the label prior"
                )
                notes.append(f"{task}: {why} ({regular})")
            if gain.low <= 0 and ours.low > prior.high:
                notes.append(
                    f"{task}: θ from shuffled labels is not told apart from θ "
                    f"({shuffled.value:.2f} against {ours.value:.2f}): the vector may carry the "
                    "kind of answer more than the mapping"
                )
        return notes

    def _sink_note(self) -> list[str]:
        """Whether prompts are answered better under the other token that may begin them."""
        counts = [int(self.data[name].sum()) for name in ("sink_right", "rival_sink_right")]
        n = int(self.data["sink_right"].size)
        better = counts[1] > counts[0]
        return [
            f"prompts begin with {self.provenance['sink_token']!r}, which is in doubt: few-shot "
            f"accuracy on {n} prompts is {counts[0] / n:.2f} under it and {counts[1] / n:.2f} "
            "under the tokenizer's BOS" + ("; try that one (sink=)" if better else "")
        ]

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, vector, layer), test prompts; references have no layer.

        `top` is the id of the most probable token, `top_text` its text as in source code.
        """
        shared = self.data[["query", "answer"]]
        columns = ["top", *SCORES, "logprob", "rank"]
        injected = xr.merge([self.data[columns], shared]).to_dataframe().reset_index()
        there = {(t, v): self.layers(t, v) for t in self.tasks for v in VECTORS}
        rows = zip(injected["task"], injected["vector"], injected["layer"], strict=True)
        injected = injected[[layer in there[task, vector] for task, vector, layer in rows]]
        references = self.data[[f"reference_{c}" for c in columns]]
        references = references.rename({f"reference_{c}": c for c in columns})
        plain = xr.merge([references, shared]).to_dataframe().reset_index()
        plain = plain.rename(columns={"reference": "vector"})
        frame = pd.concat([injected, plain.assign(layer=pd.NA)], ignore_index=True)
        frame["layer"] = frame["layer"].astype("Int64")
        first = ["task", "vector", "layer", "prompt", "query", "answer"]
        return with_texts(frame[[*first, *columns]], self.provenance)

    def _draw(self, score: str = "first_token") -> go.Figure:
        """Accuracy against layer, and a heat map of tasks x layers if there are several tasks."""
        from icl_mech.patch.scan_plot import layer_scan_figure

        return layer_scan_figure(self, score)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            rows[task] = {
                "baseline": str(self.reference(task, "baseline")),
                "hypothesis": str(self.hypothesis(task)),
                "regular": str(self.reference(task, "regular")),
                "layer": layer_name(self.best_layer(task)),
                "label prior": f"{self.prior(task).value:.2f}",
                "shuffled": f"{self.hypothesis(task, 'shuffled').value:.2f}",
                "other task": f"{self.hypothesis(task, 'other_task').value:.2f}",
                "random": f"{self.hypothesis(task, 'random').value:.2f}",
                "n": str(self.data.sizes["prompt"]),
            }
        return pd.DataFrame.from_dict(rows, orient="index")


def choice_on_dev(of_task: xr.Dataset, score: str = "first_token") -> Choice:
    """The layer that is best on the dev prompts of a task, by a score."""
    right, logprob = (
        of_task[name].transpose("dev_prompt", "layer").values
        for name in (f"dev_{_score(score)}", "dev_logprob")
    )
    return choose_layer(right, logprob, of_task["dev_query"].values)


def _score(score: str) -> str:
    return choose(score, SCORES, "score")
