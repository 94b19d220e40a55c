"""Result: how task encoding and decoding form over the course of training."""

from dataclasses import replace
from functools import cache
from itertools import combinations
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from scipy.stats import spearmanr

from icl_mech.errors import choose
from icl_mech.results import Result, with_ends
from icl_mech.stats import Estimate, Estimates, mean, means, ratio_of_means, within_1
from icl_mech.stats.onset import known_step
from icl_mech.synthetic.data import TaskMixture, draw_balanced
from icl_mech.synthetic.following import followed_by_pair
from icl_mech.synthetic.notes import emergence_notes
from icl_mech.synthetic.probes import detectable_r2
from icl_mech.synthetic.settings import from_json

#: A head is needed if the error without it is more than this many times the error with it.
NEEDED = 1.1


class Emergence(Result):
    """Measurements of every checkpoint of a run, per held-out sequence.

    `data` holds, over `step` (checkpoints), `basis` and `sequence`:

    - `squared_error`, by `n_seen` (examples before the prediction);
    - `distance`, the squared distance of the predictions to those of every `reference`, mean over
      `n_seen`;
    - `credit`, task decodability by `layer` (1 right, 0 wrong, a share for ties), and `dev_credit`,
      the same for the sequences on which the layer is chosen;
    - `perturbed`, the query's prediction after the residual stream of each layer was changed to a
      `target` basis, by `perturbation`;
    - `head_off`, the query's squared error with one `head` replaced by its mean;
    - `basis_probe` (right or wrong), by layer;
    - `points`, the sequences in the plane (`axis`), by layer.

    Over `probe_sequence` instead of `sequence`: `weight_probe`, the squared error of the W that a
    linear probe reads, by layer.

    Without `step`: `query_y`, the y to be predicted; `basis_prediction`, the prediction by ridge
    regression on the coordinates of each `target` basis; `reference_squared_error`;
    `weight_length`; `weight_limit`, the probe's detection limit.
    """

    ARRAYS: ClassVar = {
        "squared_error": ("step", "basis", "sequence", "n_seen"),
        "credit": ("step", "basis", "sequence", "layer"),
        "dev_credit": ("step", "basis", "layer"),
        "basis_probe": ("step", "basis", "sequence", "layer"),
    }
    QUOTED: ClassVar = (
        *with_ends("mse", "td"),
        "over_bayes_mixture",
        "over_ridge",
        "layer",
        "basis_probe",
        "nearest_reference",
    )

    @property
    def steps(self) -> list[int]:
        """Updates done at each checkpoint."""
        return [int(step) for step in self.data["step"].values]

    @property
    def names(self) -> list[str]:
        """The tasks in the order of `basis`: "basis 0", ..., or the families of functions."""
        return from_json(self.provenance["settings"]).mixture.names

    @property
    def kind(self) -> str:
        """What a task is: a "basis", or a "family" of functions."""
        return "family" if "functions" in self.provenance["settings"]["mixture"] else "basis"

    def _step(self, step: int | None) -> int:
        return known_step(self.steps, step)

    def best_layer(self, step: int | None = None) -> int:
        """The layer with the best decodability on dev sequences; the first one of equals."""
        credit = self.data["dev_credit"].sel(step=self._step(step)).mean(["basis", "sequence"])
        return int(credit.argmax("layer"))

    def td(self, step: int | None = None, layer: int | None = None) -> Estimate:
        """Task decodability on test sequences, at the layer chosen on dev by default.

        The interval is over sequences. It does not account for sequences being one another's
        neighbours.
        """
        step = self._step(step)
        layer = self.best_layer(step) if layer is None else layer
        return mean(self._flat(self.data["credit"].sel(step=step).isel(layer=layer)))

    def error(self, step: int | None = None) -> Estimates:
        """Mean squared error by number of examples seen."""
        return means(self._flat(self.data["squared_error"].sel(step=self._step(step))))

    def basis_errors(self) -> Estimates:
        """Mean squared error after the last example, by checkpoint and basis."""
        last = self.data["squared_error"].isel(n_seen=-1)
        return means(last.transpose("sequence", "step", "basis").values)

    def td_by_layer(self) -> Estimates:
        """Task decodability on test sequences, by checkpoint and layer."""
        return means(self._flat(self.data["credit"]))

    def reference_error(self, reference: str) -> Estimates:
        """Mean squared error of a reference algorithm, on the same sequences."""
        return means(self._flat(self._of(reference)))

    @property
    def references(self) -> list[str]:
        """The reference algorithms."""
        return [str(name) for name in self.data["reference"].values]

    def _of(self, reference: str) -> xr.DataArray:
        choose(reference, self.references, "reference")
        return self.data["reference_squared_error"].sel(reference=reference)

    def against(self, reference: str, step: int | None = None) -> Estimate:
        """Mean squared error after the last example, over that of a reference."""
        theirs = self._of(reference).isel(n_seen=-1)
        ours = self.data["squared_error"].sel(step=self._step(step)).isel(n_seen=-1)
        return ratio_of_means(self._flat(ours), self._flat(theirs)).at()

    def nearest_reference(self, step: int | None = None) -> str:
        """The reference whose predictions are nearest, over all numbers of examples."""
        nearest = self.distances().value[self.steps.index(self._step(step))].argmin()
        return self.references[int(nearest)]

    def distances(self) -> Estimates:
        """Mean squared distance to each reference's predictions, by checkpoint and reference."""
        return means(self._flat(self.data["distance"].transpose("step", "reference", ...)))

    def by_task(self, step: int | None = None) -> pd.DataFrame:
        """A row per basis or family: its error, over that of references, and its decodability.

        Columns, all with 95 % intervals over sequences: `mse`, the mean squared error after the
        last example; `over_*`, the ratio of `mse` to that of ridge regression on x, of the Bayes
        mixture, and of the best estimator if the task is known; `td`, the share of its sequences
        whose task is decoded, at `best_layer`.

        Args:
            step: the last checkpoint by default.
        """
        step = self._step(step)
        here = self.data.sel(step=step).isel(n_seen=-1)
        known = "known_family" if self.kind == "family" else "known_basis_ridge"
        rows = {}
        for k, name in enumerate(self.names):
            ours = here["squared_error"].isel(basis=k).values.astype(float)
            row = mean(ours).columns("mse")
            for reference in ("ridge", "bayes_mixture", known):
                theirs = self._of(reference).isel(n_seen=-1, basis=k).values.astype(float)
                ratio = ratio_of_means(ours, theirs).at()
                # First-order ends may be below 0, although no ratio of errors is.
                row |= replace(ratio, low=max(ratio.low, 0.0)).columns(f"over_{reference}")
            credit = here["credit"].isel(basis=k, layer=self.best_layer(step)).values
            rows[name] = row | within_1([mean(credit.astype(float))])[0].columns("td")
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis(self.kind)

    def needed_heads(self, step: int | None = None, cost: float = NEEDED) -> pd.DataFrame:
        """A row per head: for every basis or family, the error without it over that with it.

        Han et al. (2024), figures 17 and 18: heads are pruned one at a time, here by their mean.
        `needed_by` lists the tasks for which the 95 % interval of that ratio lies above `cost`.

        Args:
            step: the last checkpoint by default.
            cost: ratio of errors above which a head is needed.
        """
        found = self.head_effects(step)
        _, n_layers, n_heads = found.value.shape
        rows = {}
        for layer in range(n_layers):
            for head in range(n_heads):
                ratios = dict(zip(self.names, found.value[:, layer, head], strict=True))
                low = found.low[:, layer, head]
                needed = [n for n, end in zip(self.names, low, strict=True) if end > cost]
                rows[f"{layer}.{head}"] = ratios | {"needed_by": ", ".join(needed)}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("head")

    def shared_heads(self, step: int | None = None, cost: float = NEEDED) -> pd.DataFrame:
        """A row per pair of bases or families: heads that both need, and how alike their costs are.

        `both` is the number of heads that both tasks need (see `needed_heads`), `either` the number
        that at least one needs; `correlation` is Spearman's, of the two tasks' ratios over all
        heads.

        Args:
            step, cost: as in `needed_heads`.
        """
        found = self.head_effects(step)
        needed = (found.low > cost).reshape(len(self.names), -1)
        ratios = found.value.reshape(len(self.names), -1)
        rows = []
        for i, j in combinations(range(len(self.names)), 2):
            rows.append(
                {
                    "one": self.names[i],
                    "other": self.names[j],
                    "both": int((needed[i] & needed[j]).sum()),
                    "either": int((needed[i] | needed[j]).sum()),
                    "correlation": float(spearmanr(ratios[i], ratios[j]).statistic),
                }
            )
        return pd.DataFrame(rows).set_index(["one", "other"])

    def head_effects(self, step: int | None = None) -> Estimates:
        """By basis, layer and head: the error with the head off, over that with it on."""
        here = self.data.sel(step=self._step(step))
        return self._over_clean(here, here["head_off"])

    @property
    def perturbations(self) -> list[str]:
        """The changes to the residual stream, each as `<at>:<how>`, see `perturbed`."""
        return [str(name) for name in self.data["perturbation"].values]

    def perturbation(
        self, step: int | None = None, layer: int | None = None, which: str | None = None
    ) -> Estimates:
        """Source x target: the error after the perturbation, over that before; 1 is no effect.

        The perturbation matrix to report is that of `"all_y:exchange"`, which exchanges the bases'
        lines at all y tokens. Compare it with `"all_y:random"`, a random change of the same size.
        The paper's way, `"last_y:replace"` (another basis' mean at one token), is the default, but
        has next to no effect on models of these sizes.

        Args:
            step: the last checkpoint by default.
            layer: by default `causal_layer`, the one at which another basis costs most. It is
                chosen on half of the sequences, and the result is that of the other half.
            which: one of `perturbations`; the first by default.

        Raises:
            InputError: where there is no such checkpoint or perturbation.
        """
        here = self._at_layer(step, layer, which)
        return self._over_clean(here, here["wrong"])

    def followed(
        self, step: int | None = None, layer: int | None = None, which: str | None = None
    ) -> Estimates:
        """Source x target x (own, target): how far the changed prediction follows each basis.

        The coefficients of the predictions of ridge regression on the own and on the target basis,
        as in `following.followed`. NaN if source and target are the same.

        Args:
            step, layer, which: as in `perturbation`.
        """
        here = self._at_layer(step, layer, which)
        return followed_by_pair(here["perturbed"].values, here["basis_prediction"].values)

    def _at_layer(self, step: int | None, layer: int | None, which: str | None) -> xr.Dataset:
        """A perturbation at one layer.

        If the layer is chosen here, the sequences on which it is chosen are left out.
        """
        here = self._perturbed(self._step(step), which)
        if layer is not None:
            return here.isel(layer=layer)
        return here.isel(layer=self.causal_layer(step, which), sequence=slice(1, None, 2))

    def causal_layer(self, step: int | None = None, which: str | None = None) -> int:
        """The layer at which the smallest error over all source-target pairs is largest.

        It is chosen on every other sequence; of equal layers the first one.
        """
        here = self._perturbed(self._step(step), which).isel(sequence=slice(0, None, 2))
        tables = self._over_clean(here, here["wrong"]).value
        others = ~np.eye(len(tables), dtype=bool)
        least = [tables[:, layer][others].min() for layer in range(tables.shape[1])]
        return int(np.argmax(least))

    def _perturbed(self, step: int, which: str | None) -> xr.Dataset:
        name = self.perturbations[0] if which is None else which
        choose(name, self.perturbations, "perturbation")
        arrays = ["squared_error", "perturbed", "query_y", "basis_prediction"]
        here = self.data[arrays].sel(step=step, perturbation=name)
        here["wrong"] = (here["perturbed"] - here["query_y"]) ** 2
        return here.transpose("basis", "sequence", "layer", "target", ...)

    def _over_clean(self, here: xr.Dataset, after: xr.DataArray) -> Estimates:
        """The mean error after a change over that before it, for each basis."""
        clean = here["squared_error"].isel(n_seen=-1)
        bases = range(self.data.sizes["basis"])
        return Estimates.stacked(
            [ratio_of_means(after.isel(basis=k).values, clean.isel(basis=k).values) for k in bases]
        )

    def weight_r2(self, step: int | None = None) -> Estimates:
        """Share of W's squared length that a linear probe reads, by layer: cross-validated R².

        A value near 0 excludes only shares that the probe can detect: see `weight_limit`.
        """
        wrong = self.data["weight_probe"].sel(step=self._step(step))
        length = self._flat(self.data["weight_length"])
        lost = ratio_of_means(self._flat(wrong), length)
        return Estimates(1 - lost.value, 1 - lost.high, 1 - lost.low, lost.n, lost.n_clusters)

    @property
    def n_probe(self) -> int:
        """Sequences per basis that the probe of W is cross-validated on."""
        return int(self.data["weight_length"].sizes[self._probe_dim])

    @property
    def _probe_dim(self) -> str:
        """The dimension of the probe's sequences; in older files that of all other measurements."""
        found = "probe_sequence" in self.data["weight_length"].dims
        return "probe_sequence" if found else "sequence"

    @property
    def weight_limit(self) -> float:
        """The least true R² of W that the probe tells from 0, as in `probes.detectable_r2`.

        It is measured with activations of the last checkpoint, at the layer from which most of W is
        read. Older files do not have it; for them it is measured with normally distributed rows.
        """
        if "weight_limit" in self.data:
            return float(self.data["weight_limit"])
        settings = from_json(self.provenance["settings"])
        return _limit_by_sizes(settings.mixture, settings.model.d_model, self.n_probe)

    def basis_accuracy(self, step: int | None = None) -> Estimates:
        """How often a linear probe names the basis, by layer, cross-validated."""
        return means(self._flat(self.data["basis_probe"].sel(step=self._step(step)).astype(float)))

    @staticmethod
    def _flat(array: xr.DataArray) -> np.ndarray:
        """Sequences of all bases along a first axis."""
        own = [dim for dim in ("basis", "sequence", "probe_sequence") if dim in array.dims]
        rest = [dim for dim in array.dims if dim not in own]
        found = array.transpose(*own, *rest).values.astype(float)
        return found.reshape(-1, *found.shape[2:])

    def full_summary(self) -> pd.DataFrame:
        """One row per checkpoint: errors, decodability, perturbation, probes."""
        return pd.DataFrame([self.at(step) for step in self.steps]).set_index("step")

    def at(self, step: int | None = None) -> dict[str, Any]:
        """The numbers of one checkpoint, a row of the summary; of the last one by default."""
        step = self._step(step)
        layer = self.best_layer(step)
        row: dict[str, Any] = {"step": step, "layer": layer}
        row |= self.error(step).at(-1).columns("mse")
        for reference in ("bayes_mixture", "ridge"):
            row |= self.against(reference, step).columns(f"over_{reference}")
        row |= self.td(step).columns("td")
        own = np.eye(self.data.sizes["basis"], dtype=bool)
        for name in self.perturbations:
            matrix = self.perturbation(step, which=name).value
            taken_over = self.followed(step, which=name).value[..., 1]
            row[f"{name}_own"] = float(matrix[own].max())
            row[f"{name}_other"] = float(matrix[~own].min())
            row[f"{name}_followed"] = float(taken_over[~own].min())
        row |= {
            "basis_probe": float(self.basis_accuracy(step).value[layer]),
            "weight_r2": float(self.weight_r2(step).value.max()),
            "weight_limit": self.weight_limit,
            "nearest_reference": self.nearest_reference(step),
        }
        errors = self.data["squared_error"].sel(step=step).isel(n_seen=-1).mean("sequence")
        return row | {f"mse_basis_{k}": float(v) for k, v in enumerate(errors.values)}

    def caveats(self) -> list[str]:
        """What a reader of the numbers must know, a line each."""
        return emergence_notes(self)

    def to_frame(self) -> pd.DataFrame:
        """One row per (step, basis, sequence, layer): what is decoded there."""
        names = ["credit", "dev_credit", "basis_probe"]
        return self.data[names].to_dataframe().reset_index()

    def table(self) -> pd.DataFrame:
        """The summary as text, for people."""
        rows = {}
        for step in self.steps:
            row = self.at(step)
            rows[step] = {
                "MSE": str(self.error(step).at(-1)),
                "over Bayes": f"{row['over_bayes_mixture']:.2f}",
                "over ridge": f"{row['over_ridge']:.2f}",
                "TD": str(self.td(step)),
                "layer": str(row["layer"]),
                **{
                    f"{name} {whose}": f"{row[f'{name}_{whose}']:.2f}"
                    for name in self.perturbations
                    for whose in ("own", "other", "followed")
                },
                "basis probe": f"{row['basis_probe']:.2f}",
                "R² of W": f"{row['weight_r2']:.2f}",
                "detectable": f"{row['weight_limit']:.2f}",
                "nearest": row["nearest_reference"],
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")

    def finding(self) -> str:
        """Whether training taught the model to encode the tasks, and to use them.

        A task is encoded if more of its sequences are decoded right at the end than before
        training. It is used if the error is below that of ridge regression, which does not know the
        tasks. Both must hold beyond the 95 % interval over sequences (`onsets`).
        """
        from icl_mech.synthetic.timing import onsets

        if len(self.steps) < 2:
            return ""
        when, n = onsets(self), len(self.names)
        encoded, used = (int(when[name].notna().sum()) for name in ("encoding", "use"))
        tasks = "families" if self.kind == "family" else "bases"
        if not encoded and not used:
            return f"This run is not shown to encode, or to use, any of {n} {tasks}"
        if encoded == used == n:
            every = "both" if n == 2 else f"all {n}"
            td = self.td().value
            return f"This run learnt to encode {every} {tasks} (TD {td:.2f}), and to use them"
        return f"Of {n} {tasks}, this run encodes {encoded} and uses {used}"

    def _draw(self) -> go.Figure:
        """Error and decodability over training."""
        from icl_mech.synthetic.plot import emergence_figure

        return emergence_figure(self)

    def plot_points(self, layer: int | None = None) -> go.Figure:
        """The sequences in the plane, with a slider over checkpoints.

        Args:
            layer: by default the one with the best decodability at the end, on dev.
        """
        from icl_mech.synthetic.points_plot import points_figure

        return points_figure(self, self.best_layer() if layer is None else layer)

    def plot_perturbation(self) -> go.Figure:
        """The perturbation matrices before and after training, and curves over layers."""
        from icl_mech.synthetic.matrices_plot import perturbation_figure

        return perturbation_figure(self)

    def plot_algorithms(self) -> go.Figure:
        """Distance to every reference algorithm over training; how much of W each layer holds."""
        from icl_mech.synthetic.algorithms_plot import algorithm_figure

        return algorithm_figure(self)

    def plot_heads(self) -> go.Figure:
        """The error of each basis with each head off, at the end of training."""
        from icl_mech.synthetic.matrices_plot import basis_heads_figure

        return basis_heads_figure(self)


@cache
def _limit_by_sizes(mixture: TaskMixture, d_model: int, n_per_basis: int) -> float:
    """The detection limit of a probe whose activations were not kept."""
    weights = draw_balanced(mixture, n_per_basis, 0).weights.numpy()
    rows = np.random.default_rng(0).standard_normal((len(weights), d_model))
    return detectable_r2(rows, weights)
