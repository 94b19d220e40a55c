"""Measure a run's checkpoints: errors, task encoding, and the algorithm they follow."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float

import icl_mech
from icl_mech.decodability import knn_credit
from icl_mech.errors import InputError, choose
from icl_mech.files import differences
from icl_mech.progress import progress_bar
from icl_mech.stats.projection import check_projection
from icl_mech.synthetic.ablation import head_means, heads_off
from icl_mech.synthetic.checkpoints import Checkpoint, list_checkpoints, load_checkpoint
from icl_mech.synthetic.data import Batch, draw_balanced
from icl_mech.synthetic.emergence import Emergence
from icl_mech.synthetic.model import RegressionTransformer
from icl_mech.synthetic.perturb import (
    HOWS,
    TOKENS,
    BasisLines,
    How,
    Tokens,
    basis_lines,
    perturbed,
    positions,
    residuals,
    token_ys,
)
from icl_mech.synthetic.plane import plane, turned
from icl_mech.synthetic.probes import basis_probe, detectable_r2, weight_probe
from icl_mech.synthetic.reference import predict_all
from icl_mech.synthetic.settings import Settings, to_json

#: Limits of the number of sequences per basis. With fewer, some folds of the probes have no
#: sequence of a basis. More take hours, because every sequence is compared with every other.
LEAST, MOST = 10, 10_000
#: Sequences that the model reads at a time for the probe of W.
CHUNK = 256
#: Sequences of each basis for each of two fits: the lines removed, and the lines written.
LINE_SEQUENCES = 300
PERTURBATIONS: tuple[tuple[Tokens, How], ...] = (
    ("last_y", "replace"),
    ("last_y", "exchange"),
    ("all_y", "shift"),
    ("all_y", "exchange"),
    ("all_y", "random"),
)


def measure_emergence(
    folder: str | Path,
    *,
    n_per_basis: int = 100,
    n_probe: int = 1000,
    k: int = 10,
    token: Tokens = "last_y",
    perturbations: Sequence[tuple[Tokens, How]] = PERTURBATIONS,
    projection: str = "pca",
    seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
) -> Emergence:
    """Measure every checkpoint of a run on held-out sequences.

    Task decodability is that of Han et al. (2024), section 3, in the residual stream (by default at
    the y token of the last demonstration); layers are chosen on other sequences (dev).

    The perturbation matrix exchanges the bases' lines at all y tokens, `("all_y", "exchange")`;
    its random control is `("all_y", "random")`. The paper's way, to replace the last y token by
    another basis' mean, is `("last_y", "replace")`; it has no effect at these sizes. The lines that
    are written and those that are removed are fitted on separate sets of sequences. So giving a
    basis its own line shows the effect of estimation errors.

    Args:
        folder: of the run.
        n_per_basis: sequences per basis, for dev and test each.
        n_probe: other sequences per basis, from which a linear probe reads W. With few of them the
            probe misses small shares; its detection limit is `Emergence.weight_limit`.
        k: number of neighbours that vote (10 in the paper).
        token: where decodability and probes read: `"last_y"`, as in the paper, or `"query"`.
        perturbations: pairs of `at` and `how`, as in `perturbed`.
        projection: of `points`: `"pca"`, `"tsne"` or `"umap"` (the paper), see `plane`.
        seed: of the sequences.
        device: where the model runs.
        progress: show a bar.

    Raises:
        InputError: where there is no run, its checkpoints are of several runs, or an argument
            does not fit.

    Example:
        >>> import tempfile
        >>> from icl_mech.synthetic import preset, train
        >>> trained = train(preset("tiny", n_steps=2), tempfile.mkdtemp(), progress=False)
        >>> run = measure_emergence(trained.folder, n_per_basis=20, n_probe=40, progress=False)
        >>> run.steps
        [0, 1, 2]
    """
    choose(token, ("last_y", "query"), "token")
    for at, how in perturbations:
        choose(at, TOKENS, "at")
        choose(how, HOWS, "how")
    if not perturbations or len(set(perturbations)) < len(perturbations):
        raise InputError(f"perturbations {perturbations}; expected at least one, each once")
    check_projection(projection)
    check_counts(n_per_basis, n_probe, k)
    files = list_checkpoints(folder)
    settings = load_checkpoint(files[-1]).settings
    measurer = _Measurer(
        settings, n_per_basis, n_probe, k, token, tuple(perturbations), seed, device, projection
    )
    parts, steps = [], []
    with progress_bar(len(files), "checkpoints", progress) as bar:
        for file in files:
            checkpoint = load_checkpoint(file)
            found = list(differences(to_json(settings), to_json(checkpoint.settings)))
            if found:
                raise InputError(f"{file} belongs to another run than the last: {found[0]}")
            parts.append(measurer.one(checkpoint))
            steps.append(checkpoint.step)
            bar.update()
    measured = xr.concat(parts, dim=xr.DataArray(steps, dims="step", name="step"))
    data = xr.merge([measured, measurer.of_run()])
    # Single precision: half the size, seven digits.
    doubles = [name for name, array in data.items() if array.dtype == np.float64]
    data = data.assign({name: data[name].astype(np.float32) for name in doubles})
    return Emergence(data, _provenance(files[-1], measurer))


def check_counts(n_per_basis: int = 100, n_probe: int = 1000, k: int = 10) -> None:
    """Refuse numbers of sequences that `measure_emergence` cannot work with.

    Raises:
        InputError: naming the number, and what is expected.
    """
    if not max(LEAST, k + 1) <= n_per_basis <= MOST or k < 1:
        raise InputError(
            f"n_per_basis {n_per_basis}, k {k}; expected k of at least 1 and n_per_basis of at "
            f"least {LEAST}, above k and at most {MOST:,}: every sequence is compared with every "
            "other"
        )
    if not LEAST <= n_probe <= MOST:
        raise InputError(f"n_probe {n_probe}; expected {LEAST} to {MOST:,} sequences per basis")


def _provenance(last: Path, measurer: "_Measurer") -> dict[str, Any]:
    own = ("n_per_basis", "n_probe", "k", "projection", "seed", "token")
    return {
        "model": f"the run in {last.parent.name}",
        "settings": to_json(measurer.settings),
        "weights_sha256": hashlib.sha256(last.read_bytes()).hexdigest(),
        **{name: getattr(measurer, name) for name in own},
        "perturbations": [list(pair) for pair in measurer.perturbations],
        "versions": {"icl-mech": icl_mech.__version__, "torch": torch.__version__},
    }


@dataclass
class _Measurer:
    """Sequences and reference predictions, shared by all checkpoints."""

    settings: Settings
    n_per_basis: int
    n_probe: int
    k: int
    token: Tokens
    perturbations: tuple[tuple[Tokens, How], ...]
    seed: int
    device: str
    projection: str
    last_points: np.ndarray | None = None
    limit: float = float("nan")

    def __post_init__(self) -> None:
        mixture = self.settings.mixture
        self.test = draw_balanced(mixture, self.n_per_basis, self.seed, 0)
        self.dev = draw_balanced(mixture, self.n_per_basis, self.seed, 1)
        self.lines = [draw_balanced(mixture, LINE_SEQUENCES, self.seed, step) for step in (2, 3)]
        self.probed = draw_balanced(mixture, self.n_probe, self.seed, 4)
        self.references, self.as_if = predict_all(self.test, mixture)
        self.shape = (mixture.n_bases, self.n_per_basis)

    def of_run(self) -> xr.Dataset:
        """What all checkpoints share: the references, and the detection limit of the probe of W."""
        ys = self.test.ys.double()
        errors = np.stack([self._by_basis((p - ys) ** 2) for p in self.references.values()])
        length = self._by_basis(self.probed.weights.square().sum(1))
        limit_name = "least true R² of W that the probe tells from 0"
        dims = ("basis", "sequence")
        return xr.Dataset(
            {
                "query_y": (dims, self._by_basis(self.test.ys[:, -1])),
                "basis_prediction": ((*dims, "target"), self._by_basis(self.as_if[:, -1])),
                "reference_squared_error": (("reference", *dims, "n_seen"), errors),
                "weight_length": (
                    ("basis", "probe_sequence"),
                    length,
                    {"long_name": "squared length of W"},
                ),
                "weight_limit": ((), self.limit, {"long_name": limit_name}),
            },
            coords={"reference": list(self.references)},
        )

    def one(self, checkpoint: Checkpoint) -> xr.Dataset:
        """All measurements of one checkpoint."""
        model = checkpoint.model(self.device)
        tokens = model.tokens(self.test.xs, self.test.ys)
        out, resid = residuals(model, tokens)
        dev_tokens = model.tokens(self.dev.xs, self.dev.ys)
        dev_resid = residuals(model, dev_tokens)[1]
        (place,) = positions(model, self.token)
        rows = resid[:, :, place].cpu().numpy()
        predicted, ys = out[:, ::2].cpu().double(), self.test.ys.double()
        basis = self.test.basis.to(resid.device)
        taken, written = (self._lines(model, batch) for batch in self.lines)
        after = torch.stack(
            [
                perturbed(model, tokens, basis, written, at, how, taken, self.seed, resid)
                for at, how in self.perturbations
            ]
        )
        near = [self._by_basis((predicted - p) ** 2).mean(-1) for p in self.references.values()]
        off = heads_off(model, tokens, head_means(model, dev_tokens)).cpu().double()
        headless = (off - ys[:, -1]).square().permute(2, 0, 1)
        dims, layers = ("basis", "sequence"), ("basis", "sequence", "layer")
        return xr.Dataset(
            {
                "squared_error": ((*dims, "n_seen"), self._by_basis((predicted - ys) ** 2)),
                "distance": (("reference", *dims), np.stack(near)),
                "credit": (layers, self._td(rows, self.test)),
                "dev_credit": (layers, self._td(dev_resid[:, :, place].cpu().numpy(), self.dev)),
                "perturbed": (
                    (*dims, "perturbation", "layer", "target"),
                    self._by_basis(after.cpu().permute(3, 0, 1, 2)),
                ),
                "head_off": ((*layers, "head"), self._by_basis(headless)),
                "points": ((*layers, "axis"), self._by_basis(self._points(rows))),
                "basis_probe": (
                    ("layer", *dims),
                    [basis_probe(r, basis.cpu().numpy()).reshape(self.shape) for r in rows],
                ),
                "weight_probe": (
                    ("layer", "basis", "probe_sequence"),
                    self._weight_probe(model, place, checkpoint.step),
                    {"long_name": "squared error of the W that a linear probe reads"},
                ),
            },
            coords={"perturbation": [f"{at}:{how}" for at, how in self.perturbations]},
        )

    def _weight_probe(
        self, model: RegressionTransformer, place: int, step: int
    ) -> Float[np.ndarray, "layer basis probe_sequence"]:
        """Squared error of the W read at every layer; at the last step also the detection limit."""
        tokens = model.tokens(self.probed.xs, self.probed.ys)
        parts = [residuals(model, part)[1][:, :, place].cpu() for part in tokens.split(CHUNK)]
        rows, weights = torch.cat(parts, 1).numpy(), self.probed.weights.numpy()
        errors = [weight_probe(of_layer, weights) for of_layer in rows]
        if step == self.settings.n_steps:
            most_read = int(np.argmin([of_layer.sum() for of_layer in errors]))
            self.limit = detectable_r2(rows[most_read], weights)
        return np.stack([self._by_basis(of_layer) for of_layer in errors])

    def _lines(self, model: RegressionTransformer, batch: Batch) -> BasisLines:
        tokens = model.tokens(batch.xs, batch.ys)
        resid, basis = residuals(model, tokens)[1], batch.basis.to(tokens.device)
        return basis_lines(resid, token_ys(model, tokens), basis, self.shape[0])

    def _points(self, rows: np.ndarray) -> np.ndarray:
        """Points in the plane, rotated to look like those of the checkpoint before."""
        drawn = np.stack([plane(of_layer, self.projection, self.seed) for of_layer in rows], 1)
        if self.last_points is not None:
            drawn = turned(drawn, self.last_points)
        self.last_points = drawn
        return drawn

    def _td(self, rows: np.ndarray, batch: Batch) -> np.ndarray:
        basis = batch.basis.numpy()
        return self._by_basis(
            knn_credit(rows.transpose(1, 0, 2), basis, np.arange(len(basis)), self.k)
        )

    def _by_basis(self, values: torch.Tensor | np.ndarray) -> np.ndarray:
        """Split the first axis, of all sequences, into basis and sequence."""
        array = np.asarray(values)
        return array.reshape(self.shape[0], -1, *array.shape[1:])
