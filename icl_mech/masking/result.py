"""The result of hiding demonstrations in some blocks."""

from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import choose
from icl_mech.layers import span
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, means, paired_difference, share, shares
from icl_mech.stats.curves import Located, Rule, consumed, formed, locate, nowhere

#: The values of every masked prompt.
VALUES = ("right", "logprob", "kl", "total_variation")
DIRECTIONS = ("until", "after")


class ContextMasking(TaskResult):
    """Few-shot prompts in which later tokens attend to the demonstrations in some blocks only.

    `data` holds, over (`task`, `direction`, `mask`, `prompt`, `layer`): `right` (whether the most
    probable first token is a right one), `logprob` of the best right answer, and the distance of
    the next-token distribution from that of the unmasked prompt: `kl`(few-shot || masked) and
    `total_variation` (d_NTP, arXiv 2605.20730). In direction `"until"` the masked tokens are seen
    in blocks 0 to `layer`; in direction `"after"` they are seen only in the blocks after `layer`.
    So `"until"` at the last layer hides nothing, and `"after"` at the last layer hides them in
    every block.

    The demonstrations *have been read* by the layer at which accuracy "until" has come half-way to
    its plateau, and are read *from* the layer at which accuracy "after" has fallen half-way
    (`Rule`). Layers are named only if hiding them everywhere costs accuracy, and the change is
    beyond noise.
    """

    ARRAYS: ClassVar = {
        "right": ("task", "direction", "mask", "prompt", "layer"),
        "kl": ("task", "direction", "mask", "prompt", "layer"),
        "few_shot_right": ("task", "prompt"),
        "query": ("task", "prompt"),
    }
    QUOTED: ClassVar = (*with_ends("read_by"), "read_from", "hidden", "few_shot", "kl_hidden")

    @property
    def masks(self) -> list[str]:
        """The names of the masks."""
        return [str(name) for name in self.data["mask"].values]

    @property
    def layers(self) -> list[int]:
        """Block numbers."""
        return [int(layer) for layer in self.data["layer"].values]

    @property
    def rule(self) -> Rule:
        """The rule by which a curve counts as risen."""
        return Rule(**self.provenance["rule"])

    def curve(
        self, task: str, mask: str, direction: str = "until", what: str = "right"
    ) -> list[Estimate]:
        """One of `VALUES` at every layer, with 95 % intervals over queries."""
        values = self._values(task, mask, direction, choose(what, VALUES, "value"))
        if what == "right":
            return shares(values.T.astype(bool), self.queries(task))
        return means(values, clusters=self.queries(task)).rows()

    def accuracy(self, task: str, of: str) -> Estimate:
        """Share of right answers, `of` the prompts `"few_shot"` or `"zero_shot"`."""
        name = f"{choose(of, ('few_shot', 'zero_shot'), 'prompts')}_right"
        return share(self.of(task)[name].values.astype(bool), self.queries(task))

    def lost(self, task: str, mask: str) -> Estimate:
        """The accuracy lost if the mask hides in all blocks, paired by prompt."""
        hidden = self._values(task, mask, "after", "right")[:, -1]
        whole = self.of(task)["few_shot_right"].values.astype(float)
        return paired_difference(whole, hidden, clusters=self.queries(task))

    def read_by(self, task: str, mask: str = "demonstrations") -> Located:
        """The layer by which the tokens of a mask have been read."""
        return self._located[choose(task, self.tasks, "task"), self._mask(mask), "until"]

    def read_from(self, task: str, mask: str = "demonstrations") -> Located:
        """The layer from which they are read: hidden up to it, accuracy has fallen half-way."""
        return self._located[choose(task, self.tasks, "task"), self._mask(mask), "after"]

    @cached_property
    def _located(self) -> dict[tuple[str, str, str], Located]:
        """Every layer that is asked for, bootstrapped once."""
        return {
            (task, mask, direction): self._locate(task, mask, direction)
            for task in self.tasks
            for mask in self.masks
            for direction in DIRECTIONS
        }

    def _locate(self, task: str, mask: str, direction: str) -> Located:
        values = self._values(task, mask, direction, "right")
        queries = np.unique(self.queries(task), return_inverse=True)[1]
        if not self.lost(task, mask).low > 0:
            n = len(np.unique(queries))
            return nowhere(len(queries), n, "hiding them everywhere is not shown to matter")
        where = formed if direction == "until" else consumed
        return locate(values, self.rule, where, self.tasks.index(task), queries)

    def full_summary(self) -> pd.DataFrame:
        """One row per task and mask.

        `hidden` is accuracy if the mask hides in every block, `lost` is `few_shot` minus that;
        `read_by` and `read_from` are layers, `*_found` the share of resamples in which there is
        one; `kl_hidden` is in nats.
        """
        rows = []
        for task in self.tasks:
            for mask in self.masks:
                row: dict[str, Any] = {"task": task, "mask": mask}
                for name, located in (
                    ("read_by", self.read_by(task, mask)),
                    ("read_from", self.read_from(task, mask)),
                ):
                    row |= located.estimate.columns(name)
                    row[f"{name}_found"] = located.found
                row |= self.curve(task, mask, "after")[-1].columns("hidden")
                row |= self.lost(task, mask).columns("lost")
                row |= self.accuracy(task, "few_shot").columns("few_shot")
                row |= self.accuracy(task, "zero_shot").columns("zero_shot")
                row |= self.curve(task, mask, "after", "kl")[-1].columns("kl_hidden")
                apart = self.curve(task, mask, "after", "total_variation")[-1]
                rows.append(row | apart.columns("total_variation_hidden"))
        return pd.DataFrame(rows).set_index(["task", "mask"])

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            for mask in self.masks:
                by, start = self.read_by(task, mask), self.read_from(task, mask)
                rows[f"{task}, {mask}"] = {
                    "read by layer": str(by),
                    "read from layer": str(start),
                    "few-shot": str(self.accuracy(task, "few_shot")),
                    "hidden in all blocks": str(self.curve(task, mask, "after")[-1]),
                    "zero-shot": f"{self.accuracy(task, 'zero_shot').value:.2f}",
                }
        return pd.DataFrame.from_dict(rows, orient="index")

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats() + self.repeated_queries()
        for task in self.tasks:
            for mask in self.masks:
                missing = {
                    name: located.why
                    for name, located in (
                        ("by which", self.read_by(task, mask)),
                        ("from which on", self.read_from(task, mask)),
                    )
                    if located.why
                }
                if len(set(missing.values())) == 1 and len(missing) == 2:
                    notes.append(f"{task}: no layers for {mask}: {next(iter(missing.values()))}")
                    continue
                notes += [
                    f"{task}: no layer {name} {mask} are read: {why}"
                    for name, why in missing.items()
                ]
        return notes

    def finding(self) -> str:
        """By which layers the demonstrations have been read, over the tasks that name one."""
        mask = self.masks[0]
        found = {
            task: int(self.read_by(task, mask).estimate.value)
            for task in self.tasks
            if not self.read_by(task, mask).why
        }
        if not found:
            return "No layer by which the demonstrations have been read stands out of noise"
        few = f" (in {len(found)} of {len(self.tasks)} tasks)" * (len(found) < len(self.tasks))
        what = "demonstrations" if mask in ("demonstrations", "last_token") else mask
        return f"The {what} have been read by the end of {span(list(found.values()))}{few}"

    def _draw(self) -> go.Figure:
        """Accuracy and KL by layer, a row of panels per task, a line per mask."""
        from icl_mech.masking.plot import masking_figure

        return masking_figure(self)

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, direction, mask, prompt, layer)."""
        return self.data[list(VALUES)].to_dataframe().reset_index()

    def _mask(self, mask: str) -> str:
        return choose(mask, self.masks, "mask")

    def _values(self, task: str, mask: str, direction: str, what: str) -> np.ndarray:
        """`[prompt, layer]`."""
        choose(direction, DIRECTIONS, "direction")
        here: xr.DataArray = self.of(task)[what].sel(mask=self._mask(mask), direction=direction)
        return here.transpose("prompt", "layer").values.astype(float)
