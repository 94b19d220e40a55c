"""The result of reading task vectors through the unembedding."""

from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import InputError, choose
from icl_mech.lens.counting import KINDS
from icl_mech.results import TaskResult, few_queries, with_ends
from icl_mech.stats import Estimate, mean

#: Tokens that a table shows.
SHOWN = 10


class VectorLens(TaskResult):
    """The top tokens of a task's vectors, and how many of them are of each kind.

    `data` holds, over (`task`, `layer`, `k`): ids `top`, mean log probabilities `top_logprob`
    (nats), texts `top_text` (written as in source code) and kinds `top_kind` of the tokens on
    top of the averaged vectors, and `average_count` over (`task`, `layer`, `among`, `kind`);
    for every vector by itself, and for a random vector of its norm (`vector`: own, random), the
    ids `prompt_top` and, over (`task`, `prompt`, `vector`, `layer`, `among`, `kind`), `count`: how
    many of its top `among` tokens name the task (naming), begin an answer (answers) or an input
    (inputs), or name another task (other_naming, mean over the other tasks). NaN if no words that
    name the task are known.
    """

    ARRAYS: ClassVar = {
        "count": ("task", "prompt", "vector", "layer", "among", "kind"),
        "top_text": ("task", "layer", "k"),
        "average_count": ("task", "layer", "among", "kind"),
    }
    QUOTED: ClassVar = (
        "among",
        *with_ends("naming"),
        "other_naming",
        "random_naming",
        "answers",
        "inputs",
        "top",
        "n_prompts",
    )

    @property
    def layers(self) -> list[int]:
        """The layers after which the vectors were read; -1 for function vectors."""
        return [int(layer) for layer in self.data["layer"].values]

    @property
    def among(self) -> list[int]:
        """The numbers of top tokens among which tokens were counted."""
        return [int(n) for n in self.data["among"].values]

    def top(self, task: str, layer: int, k: int = SHOWN) -> list[str]:
        """The `k` tokens on top of a task's averaged vectors."""
        return [str(t) for t in self._of(task, layer)["top_text"].values[:k]]

    def count(
        self,
        task: str,
        layer: int,
        kind: str = "naming",
        among: int | None = None,
        vector: str = "own",
    ) -> Estimate:
        """How many of a vector's top tokens are of a kind: mean over vectors, bootstrap interval.

        There is no interval if all vectors have the same number.

        Args:
            task: one of the tasks.
            layer: one of the layers.
            kind: `"naming"`, `"answers"`, `"inputs"` or `"other_naming"`.
            among: how many top tokens; by default the fewest that were counted.
            vector: `"own"`, or `"random"` for the control.
        """
        return _known_mean(self._counts(task, layer, kind, among, vector))

    def difference(
        self, task: str, layer: int, control: str = "other_naming", among: int | None = None
    ) -> Estimate:
        """How many more top tokens name the task than `control`, paired by vector.

        `control`: `"other_naming"`, or `"random"` (words that name the task, in the lists of
        random vectors).
        """
        choose(control, ("other_naming", "random"), "control")
        own = self._counts(task, layer, "naming", among, "own")
        kind, vector = ("naming", "random") if control == "random" else (control, "own")
        return _known_mean(own - self._counts(task, layer, kind, among, vector))

    def across_tasks(
        self, layer: int, control: str | None = None, among: int | None = None
    ) -> Estimate:
        """Mean over tasks of the naming words among the top tokens, or of their `difference`.

        The interval is over tasks (bootstrap), one number each.
        """
        if control is None:
            values = [self.count(t, layer, "naming", among).value for t in self.tasks]
        else:
            values = [self.difference(t, layer, control, among).value for t in self.tasks]
        return _known_mean(np.array(values))

    def summary(self, among: int | None = None) -> pd.DataFrame:
        """One row per task and layer: tokens that name the task, controls, and the top tokens."""
        return self._quoted(self.full_summary(among))

    def full_summary(self, among: int | None = None) -> pd.DataFrame:
        """One row per task and layer: counts with 95 % intervals, controls, and the top tokens."""
        n = self._among(among)
        rows = []
        for task in self.tasks:
            for layer in self.layers:
                row: dict = {"task": task, "layer": layer, "among": n}
                estimates = {kind: self.count(task, layer, kind, n) for kind in KINDS}
                for kind in KINDS[:3]:
                    estimates[f"random_{kind}"] = self.count(task, layer, kind, n, "random")
                estimates["naming_minus_other"] = self.difference(task, layer, "other_naming", n)
                estimates["naming_minus_random"] = self.difference(task, layer, "random", n)
                for name, e in estimates.items():
                    row |= e.columns(name)
                average = self._of(task, layer)["average_count"].sel(among=n)
                row |= {f"average_{k}": float(average.sel(kind=k)) for k in KINDS}
                row["top"] = " | ".join(self.top(task, layer))
                rows.append(row | {"n_prompts": self.data.sizes["prompt"]})
        return pd.DataFrame(rows).set_index(["task", "layer"])

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats()
        if self.provenance["only_words"]:
            notes.append(f"filtered: {self.provenance['filters']}")
        nameless = [t for t in self.tasks if not self.provenance["naming"][t]]
        if nameless:
            notes.append(
                f"{', '.join(nameless)}: no words that name the task are known; pass naming={{...}}"
            )
        n = self.data.sizes["prompt"]
        for task in self.tasks:
            # Files of earlier versions do not say how many queries differ.
            if "n_queries" in self.data and int(self.of(task)["n_queries"]) < n:
                notes.append(
                    f"{task}: {int(self.of(task)['n_queries'])} different queries for {n} vectors "
                    "(a small task): their demonstrations overlap too, so intervals over vectors "
                    "are too narrow"
                )
            if task in nameless:
                continue
            named = [x for x in self.layers if self.difference(task, x).low > 0]
            if not named:
                notes.append(
                    f"{task}: at no layer are words that name the task on top more often than "
                    "words that name other tasks, beyond the 95 % interval"
                )
        return notes

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, vector, layer, among, kind)."""
        return self.data[["count"]].to_dataframe().reset_index()

    def few(self) -> str:
        n = self.data.sizes["prompt"]
        # Files of earlier versions do not say how many queries differ.
        asked = self.data["n_queries"].values if "n_queries" in self.data else [n] * len(self.tasks)
        return few_queries({t: (min(int(k), n), n) for t, k in zip(self.tasks, asked, strict=True)})

    def finding(self) -> str:
        """Whether the top tokens of vectors name their task; of several tasks, in how many.

        They do after a block if more of them name the task than name other tasks, and more than in
        the lists of random vectors, beyond the 95 % intervals of both paired differences.
        """
        known = [task for task in self.tasks if self.provenance["naming"][task]]
        if not known:
            return ""
        named = {task: self._naming_layers(task) for task in known}
        n = self._among(None)
        if len(known) > 1:
            says = [task for task, layers in named.items() if layers]
            return f"The top tokens are shown to name the task in {len(says)} of {len(known)} tasks"
        (task,), (layers,) = known, named.values()
        if not layers:
            return "The top tokens are not shown to name the task"
        best = max(layers, key=lambda layer: self.count(task, layer).value)
        where = f" after block {best}" if best >= 0 else ""
        return f"{self.count(task, best).value:.1f} of the top {n} tokens name the task{where}"

    def _naming_layers(self, task: str) -> list[int]:
        """The layers at which naming words exceed both controls beyond the intervals."""
        return [
            layer
            for layer in self.layers
            if all(self.difference(task, layer, c).low > 0 for c in ("other_naming", "random"))
        ]

    def _draw_task(self, task: str, layer: int | None = None) -> go.Figure:
        return self._draw(task, layer)

    def _draw(self, task: str | None = None, layer: int | None = None) -> go.Figure:
        """Top tokens, coloured by kind: of one task at every layer, or of all tasks at one.

        Args:
            task: the task to show; by default the only one, or all.
            layer: the layer to show; by default all layers of one task, or the middle layer for
                all tasks.
        """
        from icl_mech.lens.vectors_plot import vector_figure

        if task is None and len(self.tasks) > 1:
            middle = self.layers[len(self.layers) // 2]
            return vector_figure(self, None, self._layer(middle if layer is None else layer))
        name = choose(task or self.tasks[0], self.tasks, "task")
        return vector_figure(self, name, None if layer is None else self._layer(layer))

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        n = self._among(None)
        rows = {}
        for task in self.tasks:
            for layer in self.layers:
                rows[f"{task}, layer {layer}" if layer >= 0 else task] = {
                    f"tokens of {n} that name the task": str(self.count(task, layer)),
                    "another task": f"{self.count(task, layer, 'other_naming').value:.2f}",
                    "random": f"{self.count(task, layer, vector='random').value:.2f}",
                    "answers": f"{self.count(task, layer, 'answers').value:.2f}",
                    "inputs": f"{self.count(task, layer, 'inputs').value:.2f}",
                    "top tokens": " | ".join(self.top(task, layer, 6)),
                }
        return pd.DataFrame.from_dict(rows, orient="index")

    def _counts(
        self, task: str, layer: int, kind: str, among: int | None, vector: str
    ) -> np.ndarray:
        """Per vector."""
        choose(kind, KINDS, "kind")
        choose(vector, ("own", "random"), "vector")
        at = {"kind": kind, "among": self._among(among), "vector": vector}
        return self._of(task, layer)["count"].sel(at).values

    def _among(self, among: int | None) -> int:
        if among is None:
            return self.among[0]
        if among not in self.among:
            known = ", ".join(map(str, self.among))
            raise InputError(f"among the top {among} was not counted; expected one of {known}")
        return among

    def _layer(self, layer: int) -> int:
        if layer not in self.layers:
            known = ", ".join(map(str, self.layers))
            raise InputError(f"layer {layer} was not read; expected one of {known}")
        return layer

    def _of(self, task: str, layer: int) -> xr.Dataset:
        return self.of(task).sel(layer=self._layer(layer))


def _known_mean(values: np.ndarray) -> Estimate:
    """Mean of the values that are not NaN; NaN if there are none.

    There is no interval if all values are equal: resampling would give one of width 0, as if other
    vectors were certain to give the same value.
    """
    known = values[~np.isnan(values)]
    if len(known) and known.min() < known.max():
        return mean(known)
    return Estimate(float(known[0]) if len(known) else np.nan, np.nan, np.nan, len(known))
