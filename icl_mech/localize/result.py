"""A task map: the layers at which one model forms tasks, and those at which it decodes them."""

from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float

from icl_mech.errors import InputError, choose
from icl_mech.files import PlotlyJs
from icl_mech.layers import span
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import (
    Estimate,
    means,
    paired_difference,
    share,
    shares,
    widened,
    within_1,
)
from icl_mech.stats.curves import (
    Located,
    Rule,
    consumed,
    formed,
    gap,
    gathered,
    locate,
    nowhere,
    settled,
)

if TYPE_CHECKING:
    from icl_mech.decoder import Decoder

#: Curves over layers.
READOUTS = ("encoding", "transfer", "lens", "heads", "masking")
#: The read-outs that name layers of formation, and those that name layers of decoding.
FORMATION = ("encoding", "transfer", "heads", "masking")
DECODING = ("transfer", "lens")
_WHERE = {
    ("formation", "encoding"): formed,
    ("formation", "transfer"): formed,
    ("formation", "heads"): gathered,
    ("formation", "masking"): formed,
    ("decoding", "transfer"): consumed,
    ("decoding", "lens"): settled,
}


class TaskMap(TaskResult):
    """Five read-outs on one axis of layers, and the layers that they name, per task.

    - *encoding*: task decodability (Han et al. 2024), the share of a prompt's nearest neighbours'
      votes that is right: `encoding` over (`task`, `point`, `layer`);
    - *transfer*: whether theta (Hendel et al. 2023), injected after a layer, brings the right
      answer to a zero-shot prompt: `transfer` over (`task`, `prompt`, `layer`);
    - *lens*: the probability of the answer when the residual stream of the few-shot prompt's last
      token is read after a layer: `lens` over (`task`, `prompt`, `layer`);
    - *heads*: the effect (Todd et al. 2023) of a layer's helpful heads: `aie` over (`task`,
      `aie_prompt`, `layer`, `head`), if it was measured. Helpful heads are chosen on one half of
      the prompts and their effect is counted on the other half (on the same prompts, the noise of
      many heads would look like help);
    - *masking*: whether the few-shot prompt's answer is right if tokens after the demonstrations
      attend to them only up to a block (Sia et al. 2024): `masking` over (`task`, `prompt`,
      `layer`), if it was measured. No vector is written.

    The task is *formed* at the layer where encoding, transfer or masking has risen half-way from
    floor to peak, or where half of the heads' effect has been added. It is *decoded* at the layer
    where an injected vector has stopped working, or where the lens has come half-way to the model's
    own answer and stays there.
    "Half-way" is an argument (`Rule`); the result keeps all curves, so that `with_rule` can apply
    another. No layer is named if demonstrations do not help the model (there is no in-context
    learning to localise), or if the rise is within noise.

    `query` over (`task`, `point`) is the query of each prompt. Prompt `i` of the other read-outs is
    point `i`. Prompts that share a query are not independent: intervals are over queries.
    """

    ARRAYS: ClassVar = {
        "encoding": ("task", "point", "layer"),
        "transfer": ("task", "prompt", "layer"),
        "lens": ("task", "prompt", "layer"),
        "query": ("task", "point"),
    }
    QUOTED: ClassVar = (
        "formation_encoding",
        *with_ends("formation_transfer"),
        "formation_heads",
        "formation_masking",
        "decoding_transfer",
        *with_ends("decoding_lens"),
        "peak_transfer",
        "few_shot",
    )

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
        """The rule by which a curve counts as risen."""
        return Rule(**self.provenance["rule"])

    def with_rule(
        self, fraction: float = 0.5, min_rise: float = 0.1, min_found: float = 0.95
    ) -> "TaskMap":
        """The same measurements under another definition of risen, see `Rule`."""
        rule = Rule(fraction, min_rise, min_found)
        return TaskMap(self.data, {**self.provenance, "rule": vars(rule)})

    def curve(self, task: str, readout: str) -> list[Estimate]:
        """A read-out at every layer, with 95 % intervals over queries."""
        values = self._values(task, readout)
        queries = self._queries(task, len(values))
        if readout == "encoding":  # prompts vote for one another, see `stats.votes`
            return within_1(widened(shares(values.T, queries), len(np.unique(queries))))
        if readout in ("transfer", "masking"):
            return shares(values.T.astype(bool), queries)
        if readout == "heads":
            return added(values)
        return means(values, clusters=queries).rows()

    def formation(self, task: str, readout: str = "transfer") -> Located:
        """The layer where the task is formed, by one of `FORMATION`."""
        choose(readout, [r for r in FORMATION if r in self.readouts], "read-out of formation")
        return self._located["formation", choose(task, self.tasks, "task"), readout]

    def decoding(self, task: str, readout: str = "lens") -> Located:
        """The layer where the task is decoded, by one of `DECODING`."""
        choose(readout, DECODING, "read-out of decoding")
        return self._located["decoding", choose(task, self.tasks, "task"), readout]

    def layers_of(self, task: str) -> dict[tuple[str, str], Located]:
        """All layers of a task, by (`"formation"` or `"decoding"`, read-out)."""
        choose(task, self.tasks, "task")
        return {
            (what, readout): located
            for (what, of, readout), located in self._located.items()
            if of == task
        }

    def learns(self, task: str) -> bool:
        """Whether the model does the task in context: `gain` is above 0 beyond its interval."""
        return self.gain(task).low > 0

    def gain(self, task: str) -> Estimate:
        """Share of right answers with demonstrations minus without, paired by prompt."""
        right, without = (self._each(task, name) for name in ("regular", "baseline"))
        return paired_difference(right, without, clusters=self._queries(task, len(right)))

    def share(self, task: str, name: str) -> Estimate:
        """Share of the prompts that are right: `"regular"` (few-shot), `"baseline"` (zero-shot),
        or `"prior"` (always the most frequent answer), with an interval over queries."""
        right = self._each(task, choose(name, ("regular", "baseline", "prior"), "share"))
        return share(right, self._queries(task, len(right)))

    @cached_property
    def _located(self) -> dict[tuple[str, str, str], Located]:
        """Every layer that is asked for, bootstrapped once."""
        return {
            (what, task, readout): self._locate(what, task, readout)
            for task in self.tasks
            for what, readout in _WHERE
            if readout in self.readouts
        }

    def _locate(self, what: str, task: str, readout: str, n: int | None = None) -> Located:
        """The layer by one read-out, on all of its prompts or on the first `n`.

        Read-outs of the same prompts use the same resamples, so their layers can be compared.
        """
        values = self._values(task, readout)[:n]
        queries = np.unique(self._queries(task, len(values)), return_inverse=True)[1]
        if not self.learns(task):
            return nowhere(len(queries), len(np.unique(queries)), "no in-context learning")
        i = self.tasks.index(task)
        return locate(values, self.rule, _WHERE[what, readout], i, queries)

    def agreement(self, task: str) -> pd.DataFrame:
        """Differences between the layers of every two read-outs, with intervals.

        Differences are paired: both read-outs use the same prompts and the same resamples.
        Encoding has more prompts than the others; here it is read on the others' prompts alone, so
        its layer may differ from that of `formation`. `within_one` is the share of resamples in
        which the two layers are at most one apart. Values are NaN if one of the two names no layer.
        """
        choose(task, self.tasks, "task")
        n = self.data.sizes["prompt"]
        rows = []
        for what, readouts in (("formation", FORMATION), ("decoding", DECODING)):
            known = [r for r in readouts if r in self.readouts]
            found = {
                r: self._locate(what, task, r, n)
                if r == "encoding"
                else self._located[what, task, r]
                for r in known
            }
            for first, second in combinations(known, 2):
                between = gap(found[first], found[second])
                rows.append({"what": what, "first": first, "second": second, **between})
        return pd.DataFrame(rows).set_index(["what", "first", "second"])

    def depth(self, layer: float) -> float:
        """A layer as a share of the model's depth: 1 is after the last block."""
        return (layer + 1) / len(self.layers)

    def full_summary(self) -> pd.DataFrame:
        """One row per task: formation and decoding layers by every read-out, with intervals.

        `*_found` is the share of resamples in which there is a layer (see `Rule`); if no layer is
        named, `caveats` says why.
        """
        rows = []
        for task in self.tasks:
            row: dict[str, Any] = {"task": task}
            for (what, readout), located in self.layers_of(task).items():
                name, e = f"{what}_{readout}", located.estimate
                row |= e.columns(name)
                row[f"{name}_depth"] = self.depth(e.value)
                row[f"{name}_found"] = located.found
            row["peak_transfer"] = float(self._values(task, "transfer").mean(axis=0).max())
            row["few_shot"] = self.share(task, "regular").value
            row["label_prior"] = self.share(task, "prior").value
            rows.append(row)
        return pd.DataFrame(rows).set_index("task")

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            row = {
                f"{what} ({readout})": str(located) if self.learns(task) else located.why
                for (what, readout), located in self.layers_of(task).items()
            }
            rows[task] = row | {"few-shot": f"{self.share(task, 'regular').value:.2f}"}
        return pd.DataFrame.from_dict(rows, orient="index")

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        lines = super().caveats() + list(self.provenance.get("notes", []))
        for task in self.tasks:
            lines += self._caveats_of_learning(task)
        for task in filter(self.learns, self.tasks):
            lines += self._caveats_of_layers(task)
        return lines

    def _caveats_of_learning(self, task: str) -> list[str]:
        regular, prior = self.share(task, "regular"), self.share(task, "prior")
        if np.isnan(self.gain(task).low):
            return [f"{task}: too few queries to tell whether the model learns this in context"]
        if not self.learns(task):
            return [
                f"{task}: no in-context learning to localise (few-shot accuracy {regular}, not "
                "above zero-shot)"
            ]
        if regular.low < prior.value:
            return [
                f"{task}: the label prior is high ({prior.value:.2f}, few-shot {regular}): always "
                "giving the most frequent answer does about as well"
            ]
        return []

    def _caveats_of_layers(self, task: str) -> list[str]:
        lines = []
        for (what, readout), located in self.layers_of(task).items():
            e = located.estimate
            if located.why:
                lines.append(f"{task}: the {readout} curve names no {what} layer ({located.why})")
            elif e.high - e.low > len(self.layers) / 4:
                lines.append(
                    f"{task}: the {what} layer by {readout} is uncertain: {located}, more than a "
                    "quarter of the depth"
                )
        return lines

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, read-out, prompt, layer); for heads, the sum of the helpful ones."""
        parts = []
        for task in self.tasks:
            for readout in self.readouts:
                values = self._values(task, readout)
                prompt, layer = np.indices(values.shape)
                columns = {"prompt": prompt.ravel(), "layer": layer.ravel()}
                part = pd.DataFrame({**columns, "value": values.ravel().astype(float)})
                parts.append(part.assign(task=task, readout=readout))
        return pd.concat(parts, ignore_index=True)[["task", "readout", "prompt", "layer", "value"]]

    def finding(self) -> str:
        """After which blocks the task is formed and decoded; of several tasks, in how many.

        The layer of formation comes from transfer (θ begins to work) or, if transfer names none,
        from encoding. The layer of decoding comes from the lens or, if it names none, from transfer
        (θ stops working).
        """
        learnt = [task for task in self.tasks if self.learns(task)]
        if not learnt:
            return "No in-context learning is shown that could be localised"
        formed = self._named(learnt, "formation", ("transfer", "encoding"))
        decoded = self._named(learnt, "decoding", ("lens", "transfer"))
        if not formed and not decoded:
            return "No layer at which the task is formed or decoded stands out of noise"
        said = [
            f"{verb} after {span(layers)}{_of(len(layers), len(self.tasks))}"
            for verb, layers in (("formed", formed), ("decoded", decoded))
            if layers
        ]
        if len(self.tasks) == 1:
            return f"The task is {' and '.join(said)}"
        return ", ".join(said).capitalize()

    def _named(self, tasks: list[str], what: str, readouts: tuple[str, ...]) -> list[int]:
        """For every task, the layer of the first read-out that names one, if any does."""
        found = []
        for task in tasks:
            layers = [self._located[what, task, readout] for readout in readouts]
            found += [int(at.estimate.value) for at in layers if not at.why][:1]
        return found

    def _draw(self) -> go.Figure:
        """The layers that read-outs name, for all tasks; and every task's curves."""
        from icl_mech.localize.plot import task_map_figure

        return task_map_figure([self])

    def report(
        self,
        path: str | Path,
        plotlyjs: PlotlyJs = "inline",
        decoder: "Decoder | None" = None,
    ) -> Path:
        """Write one HTML page: what was run, curves, tables, caveats. It opens offline.

        Args:
            path: the file to write.
            plotlyjs: where the page loads plotly.js from, see `icl_mech.plotting.export`.
            decoder: a result of `find_decoder` on the same tasks; its picture comes first.

        Raises:
            InputError: if the folder cannot be written.
        """
        from icl_mech.localize.page import task_map_report

        return task_map_report([self], path, plotlyjs, [decoder])

    def _each(self, task: str, name: str) -> np.ndarray:
        """Right or wrong, per prompt."""
        return self.of(task)[name].values.astype(bool)

    def _queries(self, task: str, n: int) -> np.ndarray:
        """The queries of the first `n` prompts of a task."""
        return self.of(task)["query"].values[:n]

    def _values(self, task: str, readout: str) -> np.ndarray:
        """Per prompt and layer, `[prompt, layer]`."""
        choose(task, self.tasks, "task")
        choose(readout, self.readouts, "read-out")
        if readout == "heads":
            aie = self.data["aie"].sel(task=task).transpose("aie_prompt", "layer", "head")
            return helpful(aie.values.astype(float))
        first = "point" if readout == "encoding" else "prompt"
        return self.data[readout].sel(task=task).transpose(first, "layer").values.astype(float)


def _of(n: int, n_tasks: int) -> str:
    """` (in n of n_tasks)`; an empty text if it is all of them."""
    return f" (in {n} of {n_tasks})" if n < n_tasks else ""


def check_comparable(maps: list[TaskMap]) -> None:
    """Raise InputError if there is no map, or the maps share no task or differ in their rule."""
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


def helpful(effects: Float[np.ndarray, "prompt layer head"]) -> Float[np.ndarray, "prompt layer"]:
    """The summed effect of a layer's helpful heads, per prompt.

    A head counts on one half of the prompts (even or odd) if its mean over the other half is
    positive. With a single prompt all heads count.
    """
    if len(effects) < 2:
        return effects.sum(axis=-1)
    mass = np.empty(effects.shape[:2])
    for counted, decided in ((0, 1), (1, 0)):
        helps = effects[decided::2].mean(axis=0) > 0
        mass[counted::2] = (effects[counted::2] * helps).sum(axis=-1)
    return mass


def added(values: np.ndarray) -> list[Estimate]:
    """The share of the heads' effect that has been added by each layer."""
    mass = values.mean(axis=0)
    total = mass.sum()
    shares = np.cumsum(mass) / total if total > 0 else np.full(len(mass), np.nan)
    return [Estimate(float(s), np.nan, np.nan, len(values)) for s in shares]
