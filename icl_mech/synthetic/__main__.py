"""`python -m icl_mech.synthetic`: train a transformer on sparse linear regressions."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from icl_mech.cli import Flat, OutputOptions, deliver, run
from icl_mech.errors import InputError

if TYPE_CHECKING:
    from icl_mech.synthetic import Training


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train a small transformer in which task encoding and decoding can be watched forming.

    The tasks are a mixture of sparse linear regressions (Han et al. 2024). Checkpoints go into a
    folder; the same command goes on where a killed run stopped.
    """

    preset: str = "small"
    """paper (12 layers, 80,000 updates: for a GPU), small (for two CPU cores), tiny (seconds)."""
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
    no_curriculum: tyro.conf.FlagCreatePairsOff[bool] = False
    """small: train on the mixture from the first update on, as the paper does."""
    seed: int = 0
    """Of weights and data."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 runs the forward pass in mixed precision: for a GPU."""
    device: str | None = None
    """cuda, mps or cpu; by default the first that is there."""
    compile: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile the model first (torch.compile)."""
    measure: tyro.conf.FlagCreatePairsOff[bool] = False
    """Measure every checkpoint after training; figures and a report go into the folder."""
    n_per_basis: int | None = None
    """--measure: held-out sequences per basis; 100 by default."""
    n_probe: int | None = None
    """--measure: other sequences per basis, from which a probe reads W; 1000 by default."""
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.synthetic", Options, _main, argv)


def _main(options: Options) -> None:
    from icl_mech.plotting import check_target
    from icl_mech.synthetic import measure_emergence, preset, train, variant
    from icl_mech.synthetic.page import emergence_report

    counts = _counts(options)
    changes: dict[str, Any] = {"seed": options.seed, "precision": options.precision}
    for name in ("n_steps", "batch_size", "learning_rate"):
        if getattr(options, name) is not None:
            changes[name] = getattr(options, name)
    if options.no_curriculum:
        changes["curriculum_steps"] = 0
    if options.variant is not None:
        changes["mixture"] = variant(options.variant)
    settings = preset(options.preset, **changes)
    folder = options.folder or Path("figures") / f"synthetic-{options.preset}-seed{options.seed}"
    out = options.output.out or folder / "emergence.html"
    page = out.with_name(f"{out.stem}-report.html")
    if options.measure:
        check_target(out)
        check_target(page)
    print(f"training {options.preset} in {folder}", file=sys.stderr, flush=True)
    trained = train(
        settings,
        folder,
        device=options.device,
        compile=options.compile,
        progress=not options.output.no_progress,
    )
    if options.measure:
        emergence = measure_emergence(
            folder,
            **counts,
            device=str(trained.model.device),
            progress=not options.output.no_progress,
        )
        deliver(
            emergence,
            out,
            options.output,
            also={"report": lambda: emergence_report(emergence, page)},
        )
    else:
        _report(trained, options.output.json)


def _counts(options: Options) -> dict[str, Any]:
    """What is measured, as given; refused now, not after the training.

    Raises:
        InputError: for numbers that do not fit, and options of --measure without it.
    """
    from icl_mech.synthetic.measure import check_counts

    given = {"n_per_basis": options.n_per_basis, "n_probe": options.n_probe}
    counts = {name: value for name, value in given.items() if value is not None}
    if not options.measure:
        unused = ["--out"] if options.output.out is not None else []
        unused += [f"--{name.replace('_', '-')}" for name in counts]
        if unused:
            raise InputError(
                f"{', '.join(unused)} without --measure, which alone writes figures; expected "
                "--measure too (checkpoints go into --folder)"
            )
    check_counts(**counts)
    return counts


def _report(trained: "Training", as_json: bool) -> None:
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


if __name__ == "__main__":
    main()
