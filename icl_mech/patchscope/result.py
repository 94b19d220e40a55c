"""The result of `patchscope`: the texts that a model generates about task vectors."""

from typing import ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import InputError, choose
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, paired_difference, proportion, proportions

#: The written vectors: the task's own, and random ones of the same norms.
VECTORS = ("own", "random")
#: What is looked for in a text: a word that names the task, an answer of the task, and, as a
#: control, a word that names another task (as a share of the other tasks).
COUNTED = ("names", "answers", "other_names")


class Patchscope(TaskResult):
    """The text generated for every vector, and whether it names the task or an answer.

    `data` holds, over (`task`, `invitation`, `vector`, `prompt`, `layer`): `text`, and whether it
    contains a word that names the task (`names`) and an answer of it (`answers`); `other_names` is
    the share of the other tasks that it contains a naming word of. `vector` is own or random. A
    "prompt" is the set of demonstrations that the vector was read from.

    The best layer is chosen on the vectors with even numbers; its quoted values come from the
    vectors with odd numbers.
    """

    ARRAYS: ClassVar = {
        "text": ("task", "invitation", "vector", "prompt", "layer"),
        "names": ("task", "invitation", "vector", "prompt", "layer"),
        "other_names": ("task", "invitation", "vector", "prompt", "layer"),
    }
    QUOTED: ClassVar = (
        "layer",
        *with_ends("names"),
        "other_names",
        "random_names",
        "answers",
        "random_answers",
        "example",
    )

    @property
    def invitations(self) -> list[str]:
        """The names of the invitations."""
        return [str(name) for name in self.data["invitation"].values]

    @property
    def layers(self) -> list[int]:
        """After which blocks vectors were read and written."""
        return [int(layer) for layer in self.data["layer"].values]

    def said(self, task: str, invitation: str, layer: int, vector: str = "own") -> list[str]:
        """The texts, one per vector. They may hold any characters: escape them in HTML."""
        if layer not in self.layers:
            known = ", ".join(map(str, self.layers))
            raise InputError(f"layer {layer} was not read; expected one of {known}")
        here = self._here(task, invitation, vector).sel(layer=layer)
        return [str(text) for text in here["text"].values]

    def curve(
        self, task: str, invitation: str, what: str = "names", vector: str = "own"
    ) -> list[Estimate]:
        """Share of texts with one of `COUNTED`, at every layer, with Wilson intervals.

        `"other_names"` has no interval, because it is a mean over the other tasks.
        """
        values = self._here(task, invitation, vector)[choose(what, COUNTED, "count")].values
        if what == "other_names":
            return [Estimate(float(m), np.nan, np.nan, len(values)) for m in values.mean(axis=0)]
        return proportions(values.T.astype(bool))

    def best_layer(self, task: str, invitation: str) -> int:
        """The layer at which the texts of even vectors name the task most beyond other tasks."""
        return self.layers[int(self._gains(task, invitation).argmax())]

    def best_invitation(self, task: str) -> str:
        """The invitation whose texts, at its best layer, name the task most beyond other tasks."""
        return max(self.invitations, key=lambda name: self._gains(task, name).max())

    def _gains(self, task: str, invitation: str) -> np.ndarray:
        """Mean of `names` minus `other_names` over even vectors, by layer."""
        here = self._here(task, invitation, "own").isel(prompt=slice(0, None, 2))
        gains: np.ndarray = (here["names"] - here["other_names"]).mean("prompt").values
        return gains

    def gain(self, task: str, invitation: str, control: str = "other_names") -> Estimate:
        """The share of texts that name the task minus a control, at the best layer, on odd vectors.

        `control` is `"other_names"` (another task, same texts) or `"random"` (the same task,
        random vectors). The interval is a paired bootstrap over vectors.
        """
        choose(control, ("other_names", "random"), "control")
        own = self._odd(task, invitation, "own")
        against = own["other_names"]
        if control == "random":
            against = self._odd(task, invitation, "random")["names"]
        return paired_difference(own["names"].values.astype(float), against.values.astype(float))

    def full_summary(self) -> pd.DataFrame:
        """One row per task and invitation, at the best layer."""
        rows = []
        for task in self.tasks:
            for invitation in self.invitations:
                own = self._odd(task, invitation, "own")
                random = self._odd(task, invitation, "random")
                row: dict = {"task": task, "invitation": invitation}
                row["layer"] = self.best_layer(task, invitation)
                row |= proportion(own["names"].values.astype(bool)).columns("names")
                row["other_names"] = float(own["other_names"].mean())
                row["random_names"] = float(random["names"].mean())
                row |= proportion(own["answers"].values.astype(bool)).columns("answers")
                row["random_answers"] = float(random["answers"].mean())
                row |= self.gain(task, invitation).columns("names_minus_other")
                row |= self.gain(task, invitation, "random").columns("names_minus_random")
                rows.append(row | {"example": str(own["text"].values[0])})
        return pd.DataFrame(rows).set_index(["task", "invitation"])

    def summary(self) -> pd.DataFrame:
        """One row per task and invitation, see `full_summary`."""
        return self._quoted(self.full_summary())

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for (task, invitation), row in self.full_summary().iterrows():
            odd = self._odd(task, invitation, "own")
            rows[f"{task}, {invitation}"] = {
                "layer": row["layer"],
                "names the task": str(proportion(odd["names"].values.astype(bool))),
                "names another": f"{row['other_names']:.2f}",
                "names, random": f"{row['random_names']:.2f}",
                "has an answer": str(proportion(odd["answers"].values.astype(bool))),
                "answer, random": f"{row['random_answers']:.2f}",
                "for example": repr(row["example"]),
            }
        return pd.DataFrame.from_dict(rows, orient="index")

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats()
        nameless = [t for t in self.tasks if not self.provenance["naming"][t]]
        if nameless:
            notes.append(
                f"{', '.join(nameless)}: no words that name the task are known; pass naming={{...}}"
            )
        return notes

    def finding(self) -> str:
        """In how many tasks the texts are shown to name the task, beyond both controls.

        Invitation and layer are chosen on even vectors. A task counts if, on odd vectors, the 95 %
        intervals of both paired differences lie above 0.
        """
        known = [task for task in self.tasks if self.provenance["naming"][task]]
        if not known:
            return ""
        named = [task for task in known if self._is_named(task)]
        if len(known) == 1:
            return f"The model {'names' if named else 'is not shown to name'} the task"
        return f"The model is shown to name {len(named) or 'none'} of {len(known)} tasks"

    def _is_named(self, task: str) -> bool:
        best = self.best_invitation(task)
        return all(self.gain(task, best, control).low > 0 for control in ("other_names", "random"))

    def _draw(self) -> go.Figure:
        """Shares over layers, a row of panels per task, a panel per invitation."""
        from icl_mech.patchscope.plot import patchscope_figure

        return patchscope_figure(self)

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, invitation, vector, prompt, layer)."""
        return self.data[["text", *COUNTED]].to_dataframe().reset_index()

    def _here(self, task: str, invitation: str, vector: str) -> xr.Dataset:
        choose(invitation, self.invitations, "invitation")
        return self.of(task).sel(invitation=invitation, vector=choose(vector, VECTORS, "vector"))

    def _odd(self, task: str, invitation: str, vector: str) -> xr.Dataset:
        """The odd vectors at the best layer; a single vector is used for both."""
        here = self._here(task, invitation, vector).sel(layer=self.best_layer(task, invitation))
        return here.isel(prompt=slice(1, None, 2)) if here.sizes["prompt"] > 1 else here
