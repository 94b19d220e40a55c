"""Heads and MLPs that decode a task vector: their effects, one by one and in sets."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.errors import choose
from icl_mech.results import TaskResult, with_ends
from icl_mech.stats import Estimate, mean, means, ratio_of_means

#: The two settings: theta written into zero-shot prompts, and the residual stream of few-shot
#: prompts with right labels written into those with shuffled labels.
SETTINGS = ("zero_shot", "few_shot")
#: The effects measured for every component, in nats.
EFFECTS = (
    "necessity",
    "sufficiency",
    "direct",
    "necessity_first_order",
    "sufficiency_first_order",
)
#: The share of the effect on odd prompts that must be lost without the chosen components. It is
#: above one half, so that about half is also lost on the even prompts.
ENOUGH = 0.6
#: If the chosen components alone keep less than this share, a caveat says so.
MOST = 0.7
#: The most components that a finding names.
_NAMED = 4


class Decoder(TaskResult):
    """The role of every later head and MLP in the effect of theta, one by one and in sets.

    The *effect* is the increase of the answer's log probability (nats) by the vector: `with_vector`
    minus `without`, over (`task`, `setting`, `prompt`). `data` holds over (`task`, `setting`,
    `prompt`, `layer`, `part`), where `part` is a head's number or `"mlp"`:

    - `necessity`: the loss if the component is set back to its output without the vector;
    - `sufficiency`: the gain if only this component reads the vector (path patching) and later
      components run freely; `bypass` is the path past all components to the unembedding. In a
      linear model all of these add up to the effect;
    - `direct`: the gain by the change of its output if no later component reacts;
    - `necessity_first_order`, `sufficiency_first_order`: the first two by gradients.

    Components are ranked by necessity on odd prompts (`rank`). On all prompts, three kinds of sets
    are set back: the first `size` components (`set_back`), all others (`others_set_back`), and
    random sets of `size` components (`random_set_back`). Quoted numbers come from even prompts.
    `aie` is the effect of every head that may write the vector (Todd et al. 2023), and `attention`
    the attention of the last token with and without the vector.
    """

    ARRAYS: ClassVar = {
        "necessity": ("task", "setting", "prompt", "layer", "part"),
        "with_vector": ("task", "setting", "prompt"),
        "set_back": ("task", "setting", "prompt", "size"),
        "query": ("task", "prompt"),
    }
    QUOTED: ClassVar = (
        "theta_layer",
        "effect",
        "n_chosen",
        *with_ends("removed"),
        "random_removed",
        *with_ends("kept"),
        "chosen",
    )

    @property
    def effects(self) -> list[str]:
        """Those of `EFFECTS` that were measured."""
        return [name for name in EFFECTS if name in self.data]

    def theta_layer(self, task: str) -> int:
        """After which block theta is written."""
        return int(self.of(task)["theta_layer"])

    def effect(self, task: str, setting: str = "zero_shot") -> Estimate:
        """Mean increase of the answer's log probability (nats) by the vector."""
        here = self._in(task, setting)
        whole = (here["with_vector"] - here["without"]).values.astype(float)
        return mean(whole, clusters=self.queries(task))

    def components(self, task: str, setting: str = "zero_shot") -> pd.DataFrame:
        """Every later component, most needed first, with its effects (nats, 95 % intervals).

        `share` is its necessity as a share of the whole effect.
        """
        here, queries = self._in(task, setting), self.queries(task)
        flat = {
            name: here[name].stack(component=("layer", "part")).transpose("prompt", "component")
            for name in self.effects
        }
        rank = here["rank"].stack(component=("layer", "part"))
        there = np.flatnonzero(np.isfinite(rank.values))
        there = there[np.argsort(rank.values[there])]
        places = [rank["component"].values[i] for i in there]
        found = pd.DataFrame(index=pd.Index([_name(*p) for p in places], name="component"))
        found["layer"] = [int(layer) for layer, _ in places]
        for name, values in flat.items():
            e = means(values.values[:, there].astype(float), clusters=queries)
            found[name], found[f"{name}_low"], found[f"{name}_high"] = e.value, e.low, e.high
        found["share"] = found["necessity"] / self.effect(task, setting).value
        return found

    def sizes(self, task: str, setting: str = "zero_shot") -> list[int]:
        """The numbers of components that were set back together."""
        there = np.isfinite(self._in(task, setting)["set_back"].values).all(axis=0)
        return [int(size) for size in self.data["size"].values[there]]

    def removed(self, task: str, size: int, setting: str = "zero_shot") -> Estimate:
        """Share of the effect that is lost if the first `size` components are set back."""
        here = self._even(task, setting, size)
        return self._share(here["with_vector"] - here["set_back"], here, task)

    def kept(self, task: str, size: int, setting: str = "zero_shot") -> Estimate:
        """Share of the effect that is left if all but the first `size` components are set back."""
        here = self._even(task, setting, size)
        return self._share(here["others_set_back"] - here["without"], here, task)

    def random_removed(self, task: str, size: int, setting: str = "zero_shot") -> Estimate:
        """As `removed`, for random sets of `size` components: mean over sets."""
        here = self._even(task, setting, size)
        return self._share(here["with_vector"] - here["random_set_back"].mean("draw"), here, task)

    def beyond_random(self, task: str, size: int, setting: str = "zero_shot") -> Estimate:
        """`removed` minus `random_removed`, paired by prompt."""
        here = self._even(task, setting, size)
        return self._share(here["random_set_back"].mean("draw") - here["set_back"], here, task)

    def bypass(self, task: str, setting: str = "zero_shot") -> Estimate:
        """Share of the effect through the path past all components."""
        here = self._in(task, setting)
        shares = ratio_of_means(
            (here["bypass"] - here["without"]).values[:, None],
            (here["with_vector"] - here["without"]).values,
            clusters=self.queries(task),
        )
        return shares.at(0)

    def n_chosen(self, task: str, setting: str = "zero_shot") -> int:
        """The smallest size that removes `ENOUGH` of the effect on odd prompts, else the best."""
        here = self._in(task, setting).isel(prompt=slice(1, None, 2))
        gone = (here["with_vector"] - here["set_back"]).mean("prompt")
        whole = float((here["with_vector"] - here["without"]).mean())
        shares = {size: float(gone.sel(size=size)) / whole for size in self.sizes(task, setting)}
        enough = [size for size, share in shares.items() if share >= ENOUGH]
        return enough[0] if enough else max(shares, key=lambda size: shares[size])

    def chosen(self, task: str, setting: str = "zero_shot") -> list[str]:
        """The `n_chosen` components that were found on odd prompts, most needed first."""
        return list(self.components(task, setting).index[: self.n_chosen(task, setting)])

    def attention(self, task: str, head: str, setting: str = "zero_shot") -> pd.DataFrame:
        """Attention of a head from the last token, by role, with and without the vector.

        Args:
            task, setting: as elsewhere.
            head: its name, such as `"L12H2"`.

        Raises:
            InputError: if there is no such head.
        """
        here = self._in(task, setting)["attention"]
        n_layers, n_heads = here.sizes["layer"], here.sizes["head"]
        known = [f"L{layer}H{h}" for layer in range(n_layers) for h in range(n_heads)]
        layer, index = divmod(known.index(choose(head, known, "head")), n_heads)
        shares = here.isel(layer=layer, head=index).transpose("condition", "prompt", "role")
        without, with_vector = shares.values.astype(float)
        change = means(with_vector - without, clusters=self.queries(task))
        return pd.DataFrame(
            {
                "without": without.mean(axis=0),
                "with": with_vector.mean(axis=0),
                "change": change.value,
                "change_low": change.low,
                "change_high": change.high,
            },
            index=pd.Index(here["role"].values, name="role"),
        )

    def full_summary(self) -> pd.DataFrame:
        """One row per task and setting; shares are of the effect, on even prompts."""
        rows = []
        for task in self.tasks:
            for setting in SETTINGS:
                size = self.n_chosen(task, setting)
                row: dict[str, Any] = {"task": task, "setting": setting}
                row["theta_layer"] = self.theta_layer(task)
                row |= self.effect(task, setting).columns("effect")
                row |= {"n_chosen": size, "n_components": len(self.components(task, setting))}
                for name in ("removed", "random_removed", "beyond_random", "kept"):
                    row |= getattr(self, name)(task, size, setting).columns(name)
                row |= self.bypass(task, setting).columns("bypass")
                rows.append(row | {"chosen": ", ".join(self.chosen(task, setting))})
        return pd.DataFrame(rows).set_index(["task", "setting"])

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for task in self.tasks:
            for setting in SETTINGS:
                size = self.n_chosen(task, setting)
                rows[f"{task}, {setting.replace('_', '-')}"] = {
                    "θ after block": self.theta_layer(task),
                    "effect (nats)": str(self.effect(task, setting)),
                    "found": _some(self.chosen(task, setting)),
                    "gone without": str(self.removed(task, size, setting)),
                    "as many at random": str(self.random_removed(task, size, setting)),
                    "left with only these": str(self.kept(task, size, setting)),
                }
        return pd.DataFrame.from_dict(rows, orient="index")

    def caveats(self) -> list[str]:
        """What to keep in mind when reading the numbers, a line each."""
        notes = super().caveats() + self.repeated_queries()
        notes += [f"left out: {why}" for why in self.provenance.get("left_out", {}).values()]
        for task in self.tasks:
            if not self.effect(task, "few_shot").low > 0:
                notes.append(
                    f"{task}: in few-shot prompts with shuffled labels the right stream is not "
                    f"shown to help ({self.effect(task, 'few_shot')} nats): read no share there"
                )
            size = self.n_chosen(task)
            kept = self.kept(task, size)
            if kept.value < MOST:
                notes.append(
                    f"{task}: the drawn components alone keep {kept} of theta's effect; the rest "
                    "needs others beside them"
                )
            if not self.beyond_random(task, size).low > 0:
                notes.append(
                    f"{task}: the components found are not shown to matter more than as many at "
                    "random"
                )
        return notes

    def finding(self) -> str:
        """Which components decode theta, if they are shown to matter more than random ones."""
        shown = [t for t in self.tasks if self.beyond_random(t, self.n_chosen(t)).low > 0]
        if not shown:
            return "No component is shown to decode θ more than others"
        if len(self.tasks) > 1:
            return (
                f"In {len(shown)} of {len(self.tasks)} tasks few components are shown to decode "
                "θ, more than others"
            )
        (task,) = shown
        size, n = self.n_chosen(task), len(self.components(task))
        gone = self.removed(task, size).value
        return (
            f"θ is decoded by {_some(self.chosen(task))}: without "
            f"{'it' if size == 1 else 'them'} ({size} of {n} components) {gone:.0%} of its effect "
            "is gone"
        )

    def _draw(self) -> go.Figure:
        """Demonstrations, heads that write, theta, components that read, answer; and sets."""
        from icl_mech.decoder.plot import decoder_figure

        return decoder_figure(self)

    def to_frame(self) -> pd.DataFrame:
        """One row per (task, setting, prompt, later component)."""
        frame = self.data[self.effects].to_dataframe().reset_index()
        return frame[np.isfinite(frame["necessity"])].reset_index(drop=True)

    def _in(self, task: str, setting: str) -> xr.Dataset:
        return self.of(task).sel(setting=choose(setting, SETTINGS, "setting"))

    def _even(self, task: str, setting: str, size: int) -> xr.Dataset:
        """The even prompts, which components are tested on, with sets of one size."""
        choose(str(size), list(map(str, self.sizes(task, setting))), "size")
        return self._in(task, setting).sel(size=size).isel(prompt=slice(None, None, 2))

    def _share(self, part: xr.DataArray, here: xr.Dataset, task: str) -> Estimate:
        whole = (here["with_vector"] - here["without"]).values.astype(float)
        queries = self.queries(task)[::2]
        return ratio_of_means(part.values.astype(float)[:, None], whole, clusters=queries).at(0)


def _name(layer: int, part: str) -> str:
    return f"MLP {layer}" if part == "mlp" else f"L{layer}H{part}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + f" and {more} more" * (more > 0)
