"""Options of `icl-mech train`."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icl_mech.cli.options import Flag, Flat, OutputOptions
from icl_mech.cli.output import deliver
from icl_mech.errors import InputError

if TYPE_CHECKING:
    from icl_mech.synthetic import Training


@dataclass(frozen=True, kw_only=True)
class TrainCommand:
    """Learn when task encoding and decoding form: train a small transformer, and measure it.

    The tasks are a mixture of sparse linear regressions, or of families of functions (Han et al.
    2024). Checkpoints go into a
    folder; the same command goes on where a killed run stopped.
    Example: icl-mech train --preset tiny --measure
    """

    preset: str = "small"
    """paper (12 layers, 80,000 updates: for a GPU), small (for two CPU cores), families (the same
    size; linear, sparse, leaky ReLU and quadratic functions instead of bases), tiny (seconds)."""
    folder: Path | None = None
    """For checkpoints; figures/synthetic-<preset>-seed<seed> by default."""
    variant: str | None = None
    """Train on another of the paper's mixtures: orthogonal4, orthogonal6, overlapping8."""
    n_steps: int | None = None
    """Updates, instead of the preset's."""
    batch_size: int | None = None
    """Sequences per update, instead of the preset's."""
    learning_rate: float | None = None
    """Of Adam, instead of the preset's."""
    no_curriculum: Flag = False
    """small: train on the mixture from the first update on, as the paper does."""
    seed: int = 0
    """Of weights and data."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the forward pass in mixed precision: for a GPU."""
    device: str | None = None
    """cuda, mps or cpu; by default the first that is there."""
    compile: Flag = False
    """Compile the model first (torch.compile)."""
    measure: Flag = False
    """Measure every checkpoint after training; figures and a report go into the folder."""
    n_per_basis: int | None = None
    """--measure: held-out sequences per basis; 100 by default."""
    n_probe: int | None = None
    """--measure: other sequences per basis, from which a probe reads W; 1000 by default."""
    output: Flat[OutputOptions] = field(default_factory=OutputOptions)

    def run(self) -> None:
        """Train, and with --measure write and print what was found."""
        from icl_mech.plotting import check_target
        from icl_mech.synthetic import measure_emergence, train
        from icl_mech.synthetic.page import emergence_report

        counts, settings = self._counts(), self._settings()
        folder = self.folder or Path("figures") / f"synthetic-{self.preset}-seed{self.seed}"
        out = self.output.out or folder / "emergence.html"
        page = out.with_name(f"{out.stem}-report.html")
        if self.measure:
            check_target(out)
            check_target(page)
        print(f"training {self.preset} in {folder}", file=sys.stderr, flush=True)
        progress = not self.output.no_progress
        trained = train(
            settings, folder, device=self.device, compile=self.compile, progress=progress
        )
        if not self.measure:
            _report(trained, self.output.json)
            return
        device = str(trained.model.device)
        emergence = measure_emergence(folder, **counts, device=device, progress=progress)
        report = {"report": lambda: emergence_report(emergence, page, self.output.plotlyjs)}
        deliver(emergence, out, self.output, also=report)

    def _settings(self) -> Any:
        """The settings of the training: a preset's, with what was changed."""
        from icl_mech.synthetic import preset, variant

        changes: dict[str, Any] = {"seed": self.seed, "precision": self.precision}
        for name in ("n_steps", "batch_size", "learning_rate"):
            if getattr(self, name) is not None:
                changes[name] = getattr(self, name)
        if self.no_curriculum:
            changes["curriculum_steps"] = 0
        if self.variant is not None:
            changes["mixture"] = variant(self.variant)
        return preset(self.preset, **changes)

    def _counts(self) -> dict[str, Any]:
        """The given numbers of sequences, checked before training.

        Raises:
            InputError: for numbers that cannot work, and for options of --measure without it.
        """
        from icl_mech.synthetic.measure import check_counts

        given = {"n_per_basis": self.n_per_basis, "n_probe": self.n_probe}
        counts = {name: value for name, value in given.items() if value is not None}
        if not self.measure:
            unused = ["--out"] if self.output.out is not None else []
            unused += [f"--{name.replace('_', '-')}" for name in counts]
            if unused:
                raise InputError(
                    f"{', '.join(unused)} without --measure, which alone writes figures; expected "
                    "--measure too (checkpoints go into --folder)"
                )
        check_counts(**counts)
        return counts


def _report(trained: Training, as_json: bool) -> None:
    """Print the last training losses, and where the checkpoints are."""
    from icl_mech.synthetic import list_checkpoints

    recent = trained.basis_loss[-100:].nanmean(0).tolist()
    if as_json:
        found = {
            "n_steps": trained.settings.n_steps,
            "loss_by_basis": recent,
            "folder": str(trained.folder),
            "n_checkpoints": len(list_checkpoints(trained.folder)),
        }
        print(json.dumps(found))
        return
    losses = "  ".join(f"{value:.3f}" for value in recent)
    print(f"loss by basis, mean of the last updates (at most 100): {losses}")
    print(f"checkpoints: {trained.folder.resolve()}")
