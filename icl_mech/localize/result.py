"""Where the task is encoded and where it is decoded: one task map per model."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from icl_mech.errors import InputError, choose
from icl_mech.localize.curves import (
    Located,
    Rule,
    consumed,
    formed,
    gathered,
    locate,
    nowhere,
    settled,
)
from icl_mech.results import Result
from icl_mech.stats import (
    ENDS,
    Estimate,
    mean,
    paired_difference,
    proportion,
    proportions,
)

#: Curves over layers.
READOUTS = ("encoding", "transfer", "lens", "heads")
#: Which of them say where the task is formed, and which where it is decoded.
FORMATION = ("encoding", "transfer", "heads")
DECODING = ("transfer", "lens")


class TaskMap(Result):
    """Four read-outs on one axis of layers, and the layers that they name, per task.

    - *encoding*: task decodability (Han et al. 2024), the share of a prompt's nearest neighbours'
      votes that is right: `encoding` over (`task`, `point`, `layer`);
    - *transfer*: does theta (Hendel et al. 2023), injected after a layer, bring the right answer
      to a zero-shot prompt: `transfer` over (`task`, `prompt`, `layer`);
    - *lens*: the probability of the answer when the residual stream of the few-shot prompt's last
      token is read after a layer: `lens` over (`task`, `prompt`, `layer`);
    - *heads*: the effect (Todd et al. 2023) of a layer's helpful heads: `aie` over (`task`,
      `aie_prompt`, `layer`, `head`), where it was measured. Which heads help is decided on one
      half of the prompts and counted on the other: on the same prompts, noise of many heads would
      look like help.

    The task is *formed* where encoding and transfer have risen half-way from floor to peak, and
    where half of the heads' effect has been added. It is *decoded* where an injected vector has
    stopped working, and where the lens has come half-way to the model's own answer for good.
    "Half-way" is an argument (`Rule`), and all that is needed is kept, so `with_rule` asks again.
    Where demonstrations do not help the model there is no in-context learning to localise, and no
    layer is named.
    """

    @property
    def layers(self) -> list[int]:
        """Block numbers."""
        return [int(layer) for layer in self.data["layer"].values]

    @property
    def readouts(self) -> list[str]:
        """Those of `READOUTS` that were run."""
        names = {"heads": "aie"}
        return [r for r in READOUTS if names.get(r, r) in self.data]

    @property
    def rule(self) -> Rule:
        """When a curve counts as risen."""
        return Rule(**self.provenance["rule"])

    def with_rule(self, fraction: float = 0.5, min_rise: float = 0.1) -> "TaskMap":
        """The same measurements under another definition of risen."""
        rule = Rule(fraction, min_rise)
        return TaskMap(self.data, {**self.provenance, "rule": vars(rule)})

    def curve(self, task: str, readout: str) -> list[Estimate]:
        """A read-out at every layer, with 95 % intervals over prompts."""
        values = self._values(task, readout)
        if readout == "transfer":
            return proportions(values.T.astype(bool))
        if readout == "heads":
            return _shares(values)
        return [mean(column) for column in values.T]

    def formation(self, task: str, readout: str = "transfer") -> Located:
        """The layer where the task is formed, by one of `FORMATION`."""
        choose(readout, [r for r in FORMATION if r in self.readouts], "read-out of formation")
        return self._located["formation", choose(task, self.tasks, "task"), readout]

    def decoding(self, task: str, readout: str = "lens") -> Located:
        """The layer where the task is decoded, by one of `DECODING`."""
        choose(readout, DECODING, "read-out of decoding")
        return self._located["decoding", choose(task, self.tasks, "task"), readout]

    def learns(self, task: str) -> bool:
        """Whether the model does the task in context: more right answers with demonstrations than
        without, beyond the 95 % interval (paired by prompt)."""
        of_task = self.data.sel(task=choose(task, self.tasks, "task"))
        return paired_difference(of_task["regular"].values, of_task["baseline"].values).low > 0

    @cached_property
    def _located(self) -> dict[tuple[str, str, str], Located]:
        """Every layer that is asked for, bootstrapped once."""
        where = {"encoding": formed, "transfer": formed, "heads": gathered}
        found = {}
        for i, task in enumerate(self.tasks):
            learns = self.learns(task)
            for r in (r for r in FORMATION if r in self.readouts):
                values = self._values(task, r)
                found["formation", task, r] = (
                    locate(values, self.rule, where[r], i) if learns else nowhere(values)
                )
            for r, ends in {"transfer": consumed, "lens": settled}.items():
                # The same resamples of the same prompts as for formation, so they can be compared.
                values = self._values(task, r)
                found["decoding", task, r] = (
                    locate(values, self.rule, ends, i) if learns else nowhere(values)
                )
        return found

    def agreement(self, task: str) -> pd.DataFrame:
        """Do read-outs name the same layers? Differences between each two, with intervals.

        `within_one` is the share of resamples in which the two layers are at most one apart.
        """
        rows = []
        for what, readouts in (("formation", FORMATION), ("decoding", DECODING)):
            known = [r for r in readouts if r in self.readouts]
            for a, first in enumerate(known):
                for second in known[a + 1 :]:
                    one, two = (self._located[what, task, r] for r in (first, second))
                    rows.append({"what": what, "first": first, "second": second, **_gap(one, two)})
        return pd.DataFrame(rows).set_index(["what", "first", "second"])

    def depth(self, layer: float) -> float:
        """A layer as a share of the model's depth: 1 is after the last block."""
        return (layer + 1) / len(self.layers)

    def summary(self) -> pd.DataFrame:
        """One row per task: formation and decoding layers by every read-out, with intervals."""
        rows = []
        for task in self.tasks:
            row: dict[str, Any] = {"task": task}
            for (what, of, readout), located in self._located.items():
                if of == task:
                    name, e = f"{what}_{readout}", located.estimate
                    row |= e.columns(name)
                    row[f"{name}_depth"] = self.depth(e.value)
            of_task = self.data.sel(task=task)
            row["peak_transfer"] = float(of_task["transfer"].mean("prompt").max())
            row["few_shot"] = float(of_task["regular"].mean())
            row["label_prior"] = float(of_task["prior"].mean())
            rows.append(row)
        return pd.DataFrame(rows).set_index("task")

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows: dict[str, dict[str, str]] = {task: {} for task in self.tasks}
        for (what, task, readout), located in self._located.items():
            rows[task][f"{what} ({readout})"] = str(located)
        for task, row in rows.items():
            if not self.learns(task):
                row = dict.fromkeys(row, "no in-context learning")
                rows[task] = row
            row["few-shot"] = f"{float(self.data['regular'].sel(task=task).mean()):.2f}"
        return pd.DataFrame.from_dict(rows, orient="index")

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = list(self.provenance.get("notes", []))
        for task in self.tasks:
            regular, prior = (
                proportion(self.data[name].sel(task=task).values) for name in ("regular", "prior")
            )
            if not self.learns(task):
                notes.append(
                    f"{task}: no in-context learning to localise (few-shot accuracy {regular}, not "
                    "above zero-shot)"
                )
            elif regular.low < prior.value:
                notes.append(
                    f"{task}: the label prior is high ({prior.value:.2f}, few-shot {regular}): "
                    "always giving the most frequent answer does about as well"
                )
        for (what, task, readout), located in self._located.items():
            e = located.estimate
            if not self.learns(task):
                continue
            if not np.isfinite(e.value):
                notes.append(f"{task}: the {readout} curve names no {what} layer (too flat)")
            elif e.high - e.low > len(self.layers) / 4:
                notes.append(
                    f"{task}: the {what} layer by {readout} is uncertain: {located}, more than a "
                    "quarter of the depth"
                )
        return notes

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, read-out, prompt, layer); of heads, what the helpful ones add."""
        parts = []
        for task in self.tasks:
            for readout in self.readouts:
                values = self._values(task, readout)
                prompt, layer = np.indices(values.shape)
                columns = {"prompt": prompt.ravel(), "layer": layer.ravel()}
                part = pd.DataFrame({**columns, "value": values.ravel().astype(float)})
                parts.append(part.assign(task=task, readout=readout))
        return pd.concat(parts, ignore_index=True)[["task", "readout", "prompt", "layer", "value"]]

    def plot(self) -> go.Figure:
        """The layers that read-outs name, for all tasks; and every task's curves."""
        from icl_mech.figures import task_map_figure

        return task_map_figure([self])

    def report(self, path: str | Path) -> Path:
        """Write one HTML page: what was run, curves, tables, caveats. It opens offline.

        Raises:
            InputError: where the folder cannot be written.
        """
        from icl_mech.figures import task_map_report

        return task_map_report([self], path)

    def _values(self, task: str, readout: str) -> np.ndarray:
        """Per prompt and layer, `[prompt, layer]`."""
        choose(task, self.tasks, "task")
        choose(readout, self.readouts, "read-out")
        if readout == "heads":
            aie = self.data["aie"].sel(task=task).transpose("aie_prompt", "layer", "head")
            return helpful(aie.values.astype(float))
        first = "point" if readout == "encoding" else "prompt"
        return self.data[readout].sel(task=task).transpose(first, "layer").values.astype(float)


def helpful(effects: Float[np.ndarray, "prompt layer head"]) -> Float[np.ndarray, "prompt layer"]:
    """Per prompt, what a layer's helpful heads add together.

    A head counts on every other prompt where its mean over the prompts between is positive. With
    a single prompt there is nothing to decide on, and all heads count.
    """
    if len(effects) < 2:
        return effects.sum(axis=-1)
    mass = np.empty(effects.shape[:2])
    for counted, decided in ((0, 1), (1, 0)):
        helps = effects[decided::2].mean(axis=0) > 0
        mass[counted::2] = (effects[counted::2] * helps).sum(axis=-1)
    return mass


def _shares(values: np.ndarray) -> list[Estimate]:
    """The share of the heads' effect that has been added by each layer."""
    mass = values.mean(axis=0)
    total = mass.sum()
    shares = np.cumsum(mass) / total if total > 0 else np.full(len(mass), np.nan)
    return [Estimate(float(s), np.nan, np.nan, len(values)) for s in shares]


def _gap(one: Located, two: Located) -> dict[str, float]:
    """Second layer minus first, over resamples in which both are there."""
    both = np.isfinite(one.draws) & np.isfinite(two.draws)
    gaps = (two.draws - one.draws)[both]
    if not len(gaps):
        return dict.fromkeys(("layers", "low", "high", "within_one"), np.nan)
    low, high = np.quantile(gaps, ENDS, method="nearest")
    return {
        "layers": two.estimate.value - one.estimate.value,
        "low": float(low),
        "high": float(high),
        "within_one": float((abs(gaps) <= 1).mean()),
    }


def check_comparable(maps: list[TaskMap]) -> None:
    """Raise InputError where several maps do not share a task or a rule."""
    if not maps:
        raise InputError("no task maps; expected at least one")
    shared = set(maps[0].tasks).intersection(*(m.tasks for m in maps[1:]))
    if not shared:
        raise InputError("the task maps share no task; expected the same tasks on every model")
    rules = {m.rule for m in maps}
    if len(rules) > 1:
        raise InputError(
            "the task maps define risen differently; expected one rule (with_rule sets it)"
        )
