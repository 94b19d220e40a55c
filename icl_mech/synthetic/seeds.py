"""Result of several runs that differ only in their seed, with intervals over seeds."""

from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from jaxtyping import Float

from icl_mech.errors import InputError
from icl_mech.files import differences
from icl_mech.results import Result, with_ends
from icl_mech.stats import MIN_CLUSTERS, Estimate, few_mean
from icl_mech.stats.onset import FRACTION, lead_in_words
from icl_mech.synthetic.emergence import Emergence
from icl_mech.synthetic.timing import Encoding, onsets

ONSETS = ("encoding", "performance", "use")
Over = Literal["performance", "use"]
#: Columns of a run's summary whose mean over seeds is reported; perturbations add more.
NUMBERS = ("over_bayes_mixture", "over_ridge", "td", "basis_probe", "weight_r2", "weight_limit")


class EmergenceOverSeeds(Result):
    """The arrays of several `Emergence`s along a first axis, `seed`."""

    ARRAYS: ClassVar = {
        "squared_error": ("seed", "step", "basis", "sequence", "n_seen"),
        "credit": ("seed", "step", "basis", "sequence", "layer"),
    }
    QUOTED: ClassVar = (
        "mse",
        "over_bayes_mixture",
        *with_ends("td"),
        *(f"{name}_onset" for name in ONSETS),
        "lead",
        "lead_of_use",
    )

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs, in order."""
        return [int(seed) for seed in self.data["seed"].values]

    @property
    def numbers(self) -> list[str]:
        """Columns of `full_summary` whose mean over seeds is reported."""
        names = self.run(self.seeds[0]).perturbations
        return [
            *NUMBERS,
            *(f"{name}_{whose}" for name in names for whose in ("own", "other", "followed")),
        ]

    def run(self, seed: int) -> Emergence:
        """One of the runs.

        Raises:
            InputError: where there is none with this seed.
        """
        if seed not in self.seeds:
            raise InputError(f"no run with seed {seed}; expected one of {self.seeds}")
        data = self.data.sel(seed=seed, drop=True)
        return Emergence(data, self.provenance["runs"][self.seeds.index(seed)])

    def onsets(self, fraction: float = FRACTION, encoding: Encoding = "td") -> pd.DataFrame:
        """A row per (seed, basis): onsets of encoding and performance, as `onsets`."""
        found = {seed: onsets(self.run(seed), fraction, encoding) for seed in self.seeds}
        return pd.concat(found, names=["seed"])

    def lead(
        self, fraction: float = FRACTION, encoding: Encoding = "td", over: Over = "performance"
    ) -> Estimate:
        """By how many updates encoding precedes performance, or use; negative if it comes later.

        Mean over bases in each run, then over seeds, with Student's t interval over seeds.
        """
        column = {"performance": "lead", "use": "lead_of_use"}[over]
        leads = self.onsets(fraction, encoding)[column].groupby("seed").mean().to_numpy()
        return few_mean(leads[~np.isnan(leads)])

    def over_seeds(self) -> pd.Series:
        """The last checkpoint's numbers: `Estimate`s over seeds (Student's t interval)."""
        rows = pd.DataFrame([self.run(seed).at() for seed in self.seeds])
        return pd.Series({name: few_mean(rows[name].to_numpy(float)) for name in self.numbers})

    def full_summary(self) -> pd.DataFrame:
        """One row per seed: the last checkpoint's numbers, and mean onsets over bases."""
        rows = []
        for seed in self.seeds:
            run = self.run(seed)
            when = onsets(run).mean()
            means = {f"{name}_onset": when[name] for name in ONSETS}
            leads = {name: when[name] for name in ("lead", "lead_of_use")}
            rows.append({"seed": seed, **run.at(), **means, **leads})
        return pd.DataFrame(rows).set_index("seed")

    def to_frame(self) -> pd.DataFrame:
        """One row per (seed, step, basis, sequence, layer), as `Emergence.to_frame`."""
        frames = {seed: self.run(seed).to_frame() for seed in self.seeds}
        return pd.concat(frames, names=["seed"]).droplevel(1)

    def table(self) -> pd.DataFrame:
        """The summary as text, for people; the last row is over seeds."""
        rows: dict[str, dict[str, str]] = {}
        for seed, row in self.full_summary().iterrows():
            rows[f"seed {seed}"] = {
                **{name: f"{row[name]:.2f}" for name in self.numbers},
                "layer": str(row["layer"]),
                **{f"{name} onset": f"{row[f'{name}_onset']:.0f}" for name in ONSETS},
                "encoding over performance": lead_in_words(row["lead"]),
                "encoding over use": lead_in_words(row["lead_of_use"]),
            }
        rows["mean over seeds"] = {
            **{name: str(estimate) for name, estimate in self.over_seeds().items()},
            "encoding over performance": lead_in_words(self.lead()),
            "encoding over use": lead_in_words(self.lead(over="use")),
        }
        table = pd.DataFrame.from_dict(rows, orient="index").fillna("")
        return table.rename(columns=lambda name: name.replace("_", " "))

    def caveats(self) -> list[str]:
        """What a reader of the numbers must know, a line each."""
        onsets = self.onsets()[list(ONSETS)]
        least, most = self._grid(onsets.to_numpy().ravel())
        notes = [
            f"{len(self.seeds)} seeds: intervals assume a normal distribution over seeds",
            "an onset is where a curve has made half of its whole change; the onset of use is "
            "where the error falls below ridge regression's",
            f"checkpoints around the onsets lie {least:,} to {most:,} updates apart, and curves "
            "are taken as straight between them; intervals of a lead do not include this error",
        ]
        missing = int(onsets.isna().any(axis=1).sum())
        if missing:
            notes.append(f"{missing} pairs of seed and basis have no onset: nothing emerged")
        shared = self.run(self.seeds[0]).caveats()
        return notes + [note for note in shared if not note.startswith("one run")]

    def _grid(self, onsets: Float[np.ndarray, "onset"]) -> tuple[int, int]:
        """The least and the largest distance between the checkpoints before and after an onset."""
        steps = np.array(self.run(self.seeds[0]).steps)
        after = np.searchsorted(steps, onsets[~np.isnan(onsets)]).clip(min=1)
        gaps = (steps[after] - steps[after - 1]) if len(after) else np.diff(steps)
        return int(gaps.min()), int(gaps.max())

    def finding(self) -> str:
        """Which comes first, encoding or use of the task, and by how much.

        The order is stated if the 95 % interval of the lead over seeds (Student's t) excludes 0.
        """
        lead = self.lead(over="use")
        if lead.low > 0 or lead.high < 0:
            verb, _, by = lead_in_words(lead).partition(" by ")
            return f"Encoding {verb} the use of the task by {by} updates"
        return "Which comes first, encoding or the use of the task, is not told"

    def few(self) -> str:
        n = len(self.seeds)
        return f"few seeds: {n}; intervals are wide" if n < MIN_CLUSTERS else ""

    def _draw(self) -> go.Figure:
        """Decodability and error of every seed and basis over training, with their onsets."""
        from icl_mech.synthetic.seeds_plot import seeds_figure

        return seeds_figure(self)


def emergence_over_seeds(runs: Iterable[Emergence]) -> EmergenceOverSeeds:
    """Combine the runs of several seeds into one result.

    Args:
        runs: measured with the same arguments at the same checkpoints.

    Raises:
        InputError: where there is no run, two have the same seed, or they differ in more than it.

    Example:
        >>> files = [f"analyses/data/small-seed{seed}.nc" for seed in (0, 1)]
        >>> emergence_over_seeds([icl_mech.load_result(file) for file in files]).seeds
        [0, 1]
    """
    several = list(runs)
    if not several:
        raise InputError("no runs; expected at least one")
    seeds = [run.provenance["settings"]["seed"] for run in several]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"runs with seeds {seeds}; expected each seed once")
    first = _but_seed(several[0])
    for run in several[1:]:
        found = list(differences(first, _but_seed(run)))
        if found:
            raise InputError(f"runs differ in more than the seed: {'; '.join(found)}")
    data = xr.concat(
        [run.data for run in several], dim=xr.DataArray(seeds, dims="seed", name="seed")
    )
    provenance = several[0].provenance | {
        "model": f"{len(seeds)} runs",
        "runs": [run.provenance for run in several],
    }
    provenance.pop("weights_sha256", None)
    return EmergenceOverSeeds(data, provenance)


def _but_seed(run: Emergence) -> dict[str, Any]:
    """The provenance that runs must share."""
    own = ("model", "weights_sha256", "settings")
    shared = {name: value for name, value in run.provenance.items() if name not in own}
    settings = {k: v for k, v in run.provenance["settings"].items() if k != "seed"}
    return {**shared, "settings": settings, "steps": run.steps}
