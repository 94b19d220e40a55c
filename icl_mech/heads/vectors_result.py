"""The result of injecting function vectors, theta and controls."""

from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import choose
from icl_mech.results import TaskResult
from icl_mech.stats import Estimate, paired_difference, share, shares
from icl_mech.vectors import Choice, choose_layer, layer_name

#: The injected vectors. Theta replaces the residual stream; all others are added to it.
VECTORS = ("function", "function_unscaled", "theta", "layer_mean", "random_heads", "random")
#: The vectors that are multiplied by the scale chosen on dev; the others are injected as they are.
SCALED = ("function", "random_heads", "random")
#: The prompts into which vectors are injected.
PROMPTS = ("zero_shot", "shuffled")


class FunctionVectors(TaskResult):
    """Accuracy of injected vectors at every layer, per prompt.

    `data` holds, over (`task`, `prompt`, `setting`, `vector`, `layer`), `right` and `logprob`
    (nats) of the answer's first token; `dev_right` the same on dev prompts, which ask
    `dev_query`; `plain_right` without a vector, `few_shot_right` with the right demonstrations;
    and the `heads` and the `scale` of the vector, chosen on dev. The vector `function_unscaled` is
    `function` at scale 1; it is missing if 1 was the only scale.
    """

    ARRAYS: ClassVar = {
        "right": ("task", "prompt", "setting", "vector", "layer"),
        "dev_right": ("task", "dev_prompt", "setting", "vector", "layer"),
        "plain_right": ("task", "prompt", "setting"),
        "few_shot_right": ("task", "prompt"),
    }

    @property
    def vectors(self) -> list[str]:
        """Those of `VECTORS` that were injected."""
        return [vector for vector in VECTORS if vector in self.data["vector"].values]

    def scale(self, task: str, vector: str = "function") -> float:
        """The factor by which a vector is multiplied before it is injected."""
        choose(vector, self.vectors, "vector")
        return float(self.of(task)["scale"]) if vector in SCALED else 1.0

    def curve(
        self, task: str, vector: str = "function", setting: str = "zero_shot"
    ) -> list[Estimate]:
        """Test accuracy after injecting at each layer.

        Intervals here and below are over prompts or, if these share queries, over queries.
        """
        right = self._of(task, "right", vector, setting)
        return shares(right.transpose("layer", "prompt").values, self.queries(task))

    def best_layer(
        self, task: str, vector: str = "function", setting: str = "zero_shot"
    ) -> int | None:
        """The layer with the best dev accuracy; None if the accuracy does not rise above noise."""
        choice = self.choice(task, vector, setting)
        return choice.at if choice.rises else None

    def choice(self, task: str, vector: str = "function", setting: str = "zero_shot") -> Choice:
        """The layer whose numbers are reported, and whether dev accuracy rises above noise."""
        right = self._of(task, "dev_right", vector, setting)
        of_task = self.of(task)
        # Files of earlier versions do not say what dev prompts ask.
        queries = of_task["dev_query"].values if "dev_query" in of_task else None
        return choose_layer(right.transpose("dev_prompt", "layer").values, queries=queries)

    def accuracy(self, task: str, vector: str = "function", setting: str = "zero_shot") -> Estimate:
        """Test accuracy at the layer chosen on dev."""
        return share(self._at_best(task, vector, setting), self.queries(task))

    def plain(self, task: str, setting: str = "zero_shot") -> Estimate:
        """Test accuracy without a vector."""
        choose(setting, PROMPTS, "setting")
        right = self.of(task)["plain_right"].sel(setting=setting).values
        return share(right, self.queries(task))

    def few_shot(self, task: str) -> Estimate:
        """Test accuracy with the right demonstrations."""
        return share(self.of(task)["few_shot_right"].values, self.queries(task))

    def difference(
        self, task: str, first: str, second: str, setting: str = "zero_shot"
    ) -> Estimate:
        """Accuracy of one vector minus another's, each at its own layer, paired by prompt."""
        return paired_difference(
            self._at_best(task, first, setting),
            self._at_best(task, second, setting),
            clusters=self.queries(task),
        )

    def full_summary(self) -> pd.DataFrame:
        """One row per task, setting and vector, with 95 % intervals."""
        rows = []
        for task in self.tasks:
            few, of_task = self.few_shot(task), self.of(task)
            for setting in PROMPTS:
                plain = self.plain(task, setting)
                for vector in self.vectors:
                    e = self.accuracy(task, vector, setting)
                    layer = self.best_layer(task, vector, setting)
                    rows.append(
                        {
                            "task": task,
                            "setting": setting,
                            "vector": vector,
                            **e.columns("accuracy"),
                            "layer": np.nan if layer is None else layer,
                            "no_vector": plain.value,
                            "few_shot": few.value,
                            "n_prompts": e.n,
                            "heads": str(of_task["heads"].item()),
                            "scale": self.scale(task, vector),
                        }
                    )
        return pd.DataFrame(rows).set_index(["task", "setting", "vector"])

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats() + self.repeated_queries()
        for task in self.tasks:
            gap = self.difference(task, "function", "random_heads")
            if not gap.low > 0:
                notes.append(
                    f"{task}: zero-shot, the vector of the chosen heads is not better than that of "
                    f"random heads beyond the 95 % interval ({gap})"
                )
            choice = self.choice(task)
            lines = choice.caveat(choice.at, "zero-shot, the function vector")
            notes += [f"{task}: {line}" for line in lines]
            if "function_unscaled" in self.vectors:
                gain = self.difference(task, "function", "function_unscaled")
                if gain.low > 0:
                    notes.append(
                        f"{task}: zero-shot, the function vector needs to be multiplied by "
                        f"{self.scale(task):g} for its accuracy; at scale 1, as in the paper, its "
                        f"accuracy is {self.accuracy(task, 'function_unscaled')}"
                    )
            better = self.difference(task, "theta", "function")
            if better.low > 0:
                notes.append(
                    f"{task}: zero-shot, θ is more accurate than the function vector ({better})"
                )
        return notes

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, prompt, setting, vector, layer)."""
        return self.data[["right", "logprob", "query", "answer"]].to_dataframe().reset_index()

    def finding(self) -> str:
        """Whether the function vector works in zero-shot prompts; of several tasks, in how many.

        It works if it brings more right answers than the vector of random heads, and more than no
        vector, beyond the 95 % intervals of the paired differences. Each vector is injected at the
        layer chosen on dev prompts.
        """
        works = [task for task in self.tasks if self._works(task)]
        if len(self.tasks) > 1:
            return (
                f"Zero-shot, the function vector is shown to beat random heads in {len(works)} of "
                f"{len(self.tasks)} tasks"
            )
        (task,) = self.tasks
        if not works:
            return "Zero-shot, the function vector is not shown to work"
        said = (
            f"Zero-shot, the function vector brings {self.accuracy(task).value:.0%} of the answers "
            f"after block {self.best_layer(task)}"
        )
        if self.difference(task, "theta", "function").low > 0:
            return f"{said}; θ more: {self.accuracy(task, 'theta').value:.0%}"
        return said

    def _works(self, task: str) -> bool:
        """Whether the function vector beats random heads and no vector, zero-shot."""
        if self.best_layer(task) is None:
            return False
        plain = self.of(task)["plain_right"].sel(setting="zero_shot").values
        ours = self._at_best(task, "function", "zero_shot")
        gain = paired_difference(ours, plain, clusters=self.queries(task))
        return gain.low > 0 and self.difference(task, "function", "random_heads").low > 0

    def _draw(self) -> go.Figure:
        """Accuracy against layer, a row per task, a column per kind of prompt."""
        from icl_mech.heads.vectors_plot import function_vector_figure

        return function_vector_figure(self)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            for setting in PROMPTS:
                row = {"no vector": f"{self.plain(task, setting).value:.2f}"}
                for vector in self.vectors:
                    layer = layer_name(self.best_layer(task, vector, setting))
                    scale = f", x {self.scale(task, vector):g}" if vector != "theta" else ""
                    row[vector] = f"{self.accuracy(task, vector, setting)} @ {layer}{scale}"
                rows[f"{task}, {setting}"] = row | {
                    "few-shot": f"{self.few_shot(task).value:.2f}",
                    "heads": str(self.of(task)["heads"].item()),
                }
        return pd.DataFrame.from_dict(rows, orient="index")

    def _of(self, task: str, name: str, vector: str, setting: str) -> xr.DataArray:
        choose(vector, self.vectors, "vector")
        choose(setting, PROMPTS, "setting")
        return self.of(task)[name].sel(vector=vector, setting=setting)

    def _at_best(self, task: str, vector: str, setting: str) -> np.ndarray:
        at = self.choice(task, vector, setting).at
        return self._of(task, "right", vector, setting).isel(layer=at).values
