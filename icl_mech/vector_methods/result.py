"""The result of a comparison of vectors of every method on the same prompts."""

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from icl_mech.errors import choose
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import (
    CONFIDENCE,
    Estimate,
    holm,
    mean,
    paired_difference,
    ratio_of_means,
    share,
    shares,
    sign_flip_p,
)
from icl_mech.vector_methods.plan import NAMED

#: The prompts into which vectors are written.
SETTINGS = ("zero_shot", "shuffled")
#: The prompts of the same queries that are answered without a vector.
REFERENCES = ("zero_shot", "shuffled", "few_shot")
#: The vectors written into zero-shot prompts as controls.
CONTROLS = ("random", "other_task", "shuffled_labels")
#: Distances of the next-token distribution from that of the few-shot prompt.
DISTANCES = ("kl", "total_variation")
#: The method that others are compared with in findings.
USUAL = "theta"
#: A caveat names up to so many tasks, and else says how many there are.
_FEW_TASKS = 4

Score = Literal["first_token", "accepted"]
SCORES: tuple[Score, ...] = get_args(Score)
Setting = Literal["zero_shot", "shuffled"]


class VectorComparison(TaskResult):
    """Scores, distances, controls and costs of vectors of every method, per prompt.

    `data` holds, over (`task`, `method`, `setting`, `prompt`): `first_token` (1 right, 0 wrong, NaN
    where a method was left out), `accepted` (whether the whole generated text is an accepted
    answer), `logprob` (nats) of the answer's first token, and `text`; over (`task`, `method`,
    `prompt`): `kl` (nats) and `total_variation` of the next-token distribution, from that of the
    few-shot prompt; the same without a vector over (`task`, `reference`, `prompt`) as
    `reference_first_token` and so on; over (`task`, `method`, `layer`, `prompt`): `by_layer`, first
    tokens of zero-shot prompts with the vector at every layer that it could be written at; over
    (`task`, `control_vector`, `method`, `prompt`): `control`; over (`task`, `method`):
    `chosen_layer`, `through` (written in every block up to it), `replaces`, `rises`,
    `dev_accuracy`, `scale`, `norm` of the edits, `stream_norm` there, and the cost: `forward`,
    `backward` (passes of one prompt), `seconds`; `cosine` between vectors and `effect_cosine`
    between the changes that they make to the residual stream after the last block.
    """

    ARRAYS: ClassVar = {
        "first_token": ("task", "method", "setting", "prompt"),
        "accepted": ("task", "method", "setting", "prompt"),
        "kl": ("task", "method", "prompt"),
        "by_layer": ("task", "method", "layer", "prompt"),
        "control": ("task", "control_vector", "method", "prompt"),
        "query": ("task", "prompt"),
    }
    QUOTED: ClassVar = (
        *with_ends("first_token", "recovered"),
        "accepted",
        "shuffled",
        "kl",
        "layer",
        "seconds",
    )

    @property
    def methods(self) -> list[str]:
        """The methods that were compared, in order: those that any task allows."""
        there = np.isfinite(self.data["chosen_layer"].values).any(axis=0)
        return [str(name) for name in self.data["method"].values[there]]

    def of_task(self, task: str) -> list[str]:
        """The methods that a task allows."""
        layers = self.of(task)["chosen_layer"]
        return [m for m in self.methods if np.isfinite(float(layers.sel({"method": m})))]

    # --- one task --------------------------------------------------------------------------------

    def accuracy(
        self,
        task: str,
        method: str,
        score: Score = "first_token",
        setting: Setting = "zero_shot",
    ) -> Estimate:
        """Share of test prompts that are right with the vector in place.

        Intervals here and below are over prompts, or over queries if prompts share them.
        """
        return share(self._right(task, method, score, setting), self.queries(task))

    def reference(self, task: str, reference: str, score: Score = "first_token") -> Estimate:
        """Accuracy without a vector: zero-shot, few-shot, or few-shot with shuffled labels."""
        return share(self._reference(task, reference, score), self.queries(task))

    def control(self, task: str, method: str, control: str) -> Estimate:
        """First-token accuracy of zero-shot prompts with a control in place of the vector."""
        choose(control, CONTROLS, "control")
        values = self._of(task, method)["control"].sel(control_vector=control).values
        return share(values, self.queries(task))

    def recovered(self, task: str, method: str, score: Score = "first_token") -> Estimate:
        """Zero-shot accuracy with the vector, divided by few-shot accuracy."""
        ours = self._right(task, method, score, "zero_shot")
        few = self._reference(task, "few_shot", score)
        return ratio_of_means(ours, few, clusters=self.queries(task)).at()

    def distance(self, task: str, method: str, measure: str = "kl") -> Estimate:
        """Mean d_NTP with the vector: KL (nats) or total variation, from the few-shot prompt."""
        choose(measure, DISTANCES, "distance")
        return mean(self._of(task, method)[measure].values, clusters=self.queries(task))

    def reference_distance(self, task: str, reference: str, measure: str = "kl") -> Estimate:
        """Mean d_NTP without a vector, e.g. of the zero-shot prompt, for comparison."""
        choose(measure, DISTANCES, "distance")
        return mean(self._reference(task, reference, measure), clusters=self.queries(task))

    def layer(self, task: str, method: str) -> int:
        """The block in which the vector is written; the last one if there are several."""
        return int(self._of(task, method)["chosen_layer"])

    def curve(self, task: str, method: str) -> dict[int, Estimate]:
        """First-token accuracy of zero-shot prompts at every layer where the vector was tried."""
        right = self._of(task, method)["by_layer"].transpose("layer", "prompt").values
        there = np.flatnonzero(np.isfinite(right[:, 0]))
        found = shares(right[there], self.queries(task))
        return dict(zip(there.tolist(), found, strict=True))

    def works_at(self, task: str, method: str) -> list[int]:
        """The run of neighbouring layers around the chosen one at which the vector works.

        It works at a layer if it answers at least half as many test prompts right as at the chosen
        layer. The list is empty if it answers none right at the chosen layer. Only layers that were
        tried count: a learned vector is trained at a few.
        """
        curve, chosen = self.curve(task, method), self.layer(task, method)
        tried = sorted(curve)
        bar = curve[chosen].value / 2
        if bar == 0:
            return []
        works = [curve[n].value >= bar for n in tried]
        first = last = tried.index(chosen)
        while first > 0 and works[first - 1]:
            first -= 1
        while last + 1 < len(tried) and works[last + 1]:
            last += 1
        return tried[first : last + 1]

    def cosines(self, task: str, what: Literal["vector", "effect"] = "effect") -> pd.DataFrame:
        """Cosines between methods.

        Args:
            task: of the vectors.
            what: `"vector"`: between the vectors at the layer of the first (NaN if the other has
                none there, or is written in another way); `"effect"`: between the changes of the
                residual stream after the last block, mean over zero-shot prompts; the change by
                demonstrations is included as `few_shot`.
        """
        choose(what, ("vector", "effect"), "kind of cosine")
        of_task = self.of(task)
        values = of_task["cosine" if what == "vector" else "effect_cosine"]
        names = [str(n) for n in values[values.dims[0]].values]
        frame = pd.DataFrame(values.values, names, names)
        there = [*self.of_task(task), "few_shot"]
        kept = [name for name in names if name in there]
        return frame.loc[kept, kept]

    # --- all tasks -------------------------------------------------------------------------------

    def pooled(
        self, method: str, score: Score = "first_token", setting: Setting = "zero_shot"
    ) -> Estimate:
        """Accuracy over the prompts of all tasks together; intervals are over queries."""
        rows = [(self._right(t, method, score, setting), t) for t in self._with(method)]
        return share(np.concatenate([right for right, _ in rows]), self._clusters(rows))

    def pooled_recovered(self, method: str, score: Score = "first_token") -> Estimate:
        """`recovered` over the prompts of all tasks together."""
        rows = [(self._right(t, method, score, "zero_shot"), t) for t in self._with(method)]
        few = np.concatenate([self._reference(t, "few_shot", score) for _, t in rows])
        ours = np.concatenate([right for right, _ in rows])
        return ratio_of_means(ours, few, clusters=self._clusters(rows)).at()

    def differences(
        self,
        score: Score = "first_token",
        setting: Setting = "zero_shot",
        *,
        task: str | None = None,
    ) -> pd.DataFrame:
        """For every pair of methods, the difference in accuracy on the same prompts.

        Args:
            score, setting: which score counts, in which prompts.
            task: one task; by default the prompts of all tasks together.

        Returns:
            A row per pair: `difference` (first minus second) with its 95 % interval (of this pair
            alone), `p` of a sign-flip test over queries, `p_holm`, corrected by Holm's method for
            the number of pairs, and `differ`, whether `p_holm` is below .05.
        """
        rows = []
        for first, second in combinations(self.methods, 2):
            common = [t for t in self._with(first) if t in self._with(second)]
            common = common if task is None else [t for t in common if t == task]
            if not common:
                continue
            pairs = [[self._right(t, m, score, setting) for m in (first, second)] for t in common]
            ours, theirs = (np.concatenate(arm) for arm in zip(*pairs, strict=True))
            clusters = self._clusters([(pair[0], t) for pair, t in zip(pairs, common, strict=True)])
            found = paired_difference(ours, theirs, clusters=clusters)
            p = sign_flip_p(ours - theirs, clusters)
            rows.append({"first": first, "second": second, **found.columns("difference"), "p": p})
        names = ["first", "second", *with_ends("difference"), "p"]
        frame = pd.DataFrame(rows, columns=names)
        frame["p_holm"] = holm(frame["p"].to_numpy(dtype=float))
        frame["differ"] = frame["p_holm"] < 1 - CONFIDENCE
        return frame

    def better_than(self, method: str = USUAL, score: Score = "first_token") -> list[str]:
        """The methods that answer more zero-shot prompts right than this one, by `differences`."""
        frame = self.differences(score)
        frame = frame[frame["differ"]]
        ahead = frame[(frame["second"] == method) & (frame["difference"] > 0)]["first"]
        behind = frame[(frame["first"] == method) & (frame["difference"] < 0)]["second"]
        found = {*ahead, *behind}
        return [name for name in self.methods if name in found]

    # --- what results have -----------------------------------------------------------------------

    def full_summary(self) -> pd.DataFrame:
        """One row per task and method: every number, with 95 % intervals."""
        rows = [self._row(task, method) for task in self.tasks for method in self.of_task(task)]
        return pd.DataFrame(rows).set_index(["task", "method"])

    def _row(self, task: str, method: str) -> dict[str, Any]:
        of = self._of(task, method)
        row: dict[str, Any] = {"task": task, "method": method}
        for score in SCORES:
            row |= self.accuracy(task, method, score).columns(score)
            suffix = "" if score == "first_token" else "_accepted"
            row |= self.accuracy(task, method, score, "shuffled").columns(f"shuffled{suffix}")
            row |= self.recovered(task, method, score).columns(f"recovered{suffix}")
        for measure in DISTANCES:
            row |= self.distance(task, method, measure).columns(measure)
        for control in CONTROLS:
            row |= self.control(task, method, control).columns(control)
        for reference in REFERENCES:
            row[f"{reference}_prompt"] = self.reference(task, reference).value
            row[f"{reference}_kl"] = self.reference_distance(task, reference).value
        works = self.works_at(task, method)
        return row | {
            "layer": self.layer(task, method),
            "through": bool(of["through"]),
            "n_layers_at_work": len(works),
            **{
                name: float(of[name])
                for name in ("scale", "norm", "stream_norm", "forward", "backward", "seconds")
            },
            "n_prompts": self.data.sizes["prompt"],
            "n_queries": int(self.of(task)["n_queries"]),
        }

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, method, setting, prompt)."""
        names = ["first_token", "accepted", "logprob", "text", "query", "answer"]
        frame = self.data[names].to_dataframe().reset_index()
        return frame[frame["first_token"].notna()].reset_index(drop=True)

    def finding(self) -> str:
        """Whether a method recovers more of few-shot accuracy than theta.

        It compares the first tokens of zero-shot prompts over all tasks. It names the best of the
        methods that are shown to be better than theta (with Holm's correction for all pairs of
        methods), or says that none is. Empty if theta was not compared, or few-shot accuracy is 0.
        """
        if USUAL not in self.methods:
            return ""
        found = {method: self.pooled_recovered(method) for method in self.methods}
        usual = found[USUAL]
        if usual.value != usual.value:  # NaN: no few-shot prompt is answered right
            return ""
        better = self.better_than()
        said = f"θ brings back {usual.value:.0%} of few-shot accuracy"
        if not better:
            return f"{said}; no other method is shown to bring back more"
        best = max(better, key=lambda method: found[method].value)
        more = f"{NAMED.get(best, best)} {found[best].value:.0%}"
        others = f" ({len(better)} methods more than θ)" if len(better) > 1 else ""
        return f"{said}, {more}{others}"

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        n_pairs = len(self.methods) * (len(self.methods) - 1) // 2
        notes = [
            *super().caveats(),
            f"differences between methods: p corrected by Holm's method for {n_pairs} pairs; "
            "intervals are of each pair alone. Pooled numbers hold for these tasks",
        ]
        for task in self.tasks:
            about = self.provenance["tasks"][task]
            notes += [f"{task}: {name} left out ({why})" for name, why in about["left_out"].items()]
            for name, lines in about["notes"].items():
                notes += [f"{task}, {name}: {line}" for line in lines]
        flat = self._where(lambda task, m: not float(self._of(task, m)["rises"]))
        if flat:
            notes.append(
                "accuracy on dev prompts rises nowhere beyond noise, so the layer says nothing: "
                f"{flat}"
            )
        prior = self._where(self._labels_do_little)
        if prior:
            notes.append(
                "with answers exchanged among the training pairs more than half of the accuracy is "
                f"left, so the vector carries the kind of answer more than the mapping: {prior}"
            )
        return notes + self.repeated_queries()

    def _where(self, holds: Callable[[str, str], bool]) -> str:
        """The methods for which something holds, each with its tasks (or their number)."""
        found = []
        for method in self.methods:
            tasks = [t for t in self.tasks if method in self.of_task(t) and holds(t, method)]
            many = f"{len(tasks)} of {len(self.tasks)} tasks"
            if tasks:
                found.append(f"{method} ({many if len(tasks) > _FEW_TASKS else ', '.join(tasks)})")
        return ", ".join(found)

    def _labels_do_little(self, task: str, method: str) -> bool:
        control = self.control(task, method, "shuffled_labels").value
        ours = self.accuracy(task, method).value
        return bool(ours > 0 and control > ours / 2)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people; of several tasks, all prompts together."""
        rows = {}
        for method in self.methods:
            rows[method] = {
                "first token": str(self.pooled(method)),
                "of few-shot": str(self.pooled_recovered(method)),
                "whole answer": f"{self.pooled(method, 'accepted').value:.2f}",
                "shuffled labels": f"{self.pooled(method, setting='shuffled').value:.2f}",
                "KL to few-shot": f"{self._mean(method, 'kl'):.2f}",
                "random, other task, exchanged": ", ".join(
                    self._control_text(method, control) for control in CONTROLS
                ),
                "layer": self._layer_text(method),
                "passes": f"{self._mean(method, 'forward'):.0f} + "
                f"{self._mean(method, 'backward'):.0f}",
                "s": f"{self._mean(method, 'seconds'):.0f}",
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def _mean(self, method: str, name: str) -> float:
        return float(self.data[name].sel({"method": method}).mean())

    def _control_text(self, method: str, control: str) -> str:
        values = self.data["control"].sel({"method": method, "control_vector": control}).values
        values = values[np.isfinite(values)]
        return f"{values.mean():.2f}" if len(values) else "–"

    def _layer_text(self, method: str) -> str:
        layers = {self.layer(task, method) for task in self._with(method)}
        first = self._of(self._with(method)[0], method)
        span = f"{min(layers)}" if len(layers) == 1 else f"{min(layers)} to {max(layers)}"
        return f"up to {span}" if float(first["through"]) else span

    def headline(self) -> str:
        """What was measured, on which model."""
        few, zero, n = [], [], len(self.tasks)
        for task in self.tasks:
            few.append(self.reference(task, "few_shot").value)
            zero.append(self.reference(task, "zero_shot").value)
        kl = np.mean([self.reference_distance(t, "zero_shot").value for t in self.tasks])
        return (
            f"{super().headline()}: {n} task{'s' * (n > 1)}; without a vector few-shot "
            f"{np.mean(few):.2f}, zero-shot {np.mean(zero):.2f} at a KL of {kl:.2f} nats"
        )

    def _draw(self) -> go.Figure:
        """Maps of methods by tasks, accuracy by layer, and accuracy against cost."""
        from icl_mech.vector_methods.plot import comparison_figure

        return comparison_figure(self)

    # --- implementation --------------------------------------------------------------------------

    def _of(self, task: str, method: str) -> Any:
        choose(method, self.methods, "method")
        return self.of(task).sel({"method": method})

    def _right(self, task: str, method: str, score: str, setting: str) -> np.ndarray:
        choose(score, SCORES, "score")
        choose(setting, SETTINGS, "setting")
        values: np.ndarray = self._of(task, method)[score].sel(setting=setting).values
        return values.astype(float)

    def _reference(self, task: str, reference: str, name: str) -> np.ndarray:
        choose(reference, REFERENCES, "reference")
        values: np.ndarray = self.of(task)[f"reference_{name}"].sel(reference=reference).values
        return values.astype(float)

    def _with(self, method: str) -> list[str]:
        """The tasks that allow a method."""
        return [task for task in self.tasks if method in self.of_task(task)]

    def _clusters(self, rows: Sequence[tuple[np.ndarray, str]]) -> np.ndarray:
        """The query of every prompt of several tasks; equal queries of two tasks are kept apart."""
        return np.concatenate(
            [[f"{task}\0{query}" for query in self.queries(task)] for _, task in rows]
        )
