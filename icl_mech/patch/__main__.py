"""`python -m icl_mech.patch`: scans over layers, token positions, or components."""

from dataclasses import dataclass
from typing import Literal

import tyro

from icl_mech.cli import Flat, ModelOptions, OutputOptions, TaskOptions, deliver, load, run, target
from icl_mech.errors import InputError
from icl_mech.modes import refuse_unread
from icl_mech.patch.contrasts import Corruption, draw_pairs
from icl_mech.prompts import draw_split, half
from icl_mech.tasks import Task, load_other

#: Scans by option, and how many prompts each takes by default.
SCANS = {"layer_scan": 50, "position_scan": 16, "component_scan": 16}
#: What is patched, by scan.
SITES = {"position_scan": ("resid_pre",), "component_scan": ("attn_out", "mlp_out", "z")}
#: Options that not all scans read, with those that do.
_BELONGS = {
    "n_dev": ("layer_scan",),
    "corruption": ("position_scan", "component_scan"),
    "direction": ("position_scan", "component_scan"),
    "sites": ("position_scan", "component_scan"),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Activation patching on in-context learning.

    --layer-scan injects task vectors into zero-shot prompts at every layer (Hendel et al. 2023).
    --position-scan patches the residual stream between clean and corrupted few-shot prompts, one
    token and layer at a time; --component-scan patches what attention, MLPs and (at the final
    arrow) single heads write. Each writes an interactive figure, with the data beside it.
    """

    layer_scan: tyro.conf.FlagCreatePairsOff[bool] = False
    """Scan layers for the task vector."""
    position_scan: tyro.conf.FlagCreatePairsOff[bool] = False
    """Scan token positions and layers for what tells clean from corrupted prompts."""
    component_scan: tyro.conf.FlagCreatePairsOff[bool] = False
    """The same for attention, MLPs and heads."""
    n_prompts: int | None = None
    """Test prompts per task; 50 for --layer-scan, 16 for the others."""
    n_shots: int = 5
    """Demonstrations per prompt."""
    n_dev: int | None = None
    """--layer-scan: prompts on which the layer is chosen; half of --n-prompts by default."""
    corruption: Corruption = "labels"
    """Position and component scans: what differs in the corrupted prompt. Its labels are shuffled,
    its demonstrations are another task's, or its query is another."""
    direction: Literal["denoise", "noise", "both"] = "both"
    """Position and component scans: clean activations into corrupted prompts, the reverse, or
    both."""
    sites: tuple[str, ...] | None = None
    """Position and component scans: what is patched instead (resid_pre, resid_mid, resid_post,
    attn_out, mlp_out, z)."""
    tasks: Flat[TaskOptions]
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.patch", Options, _main, argv)


def _main(options: Options) -> None:
    chosen = [scan for scan in SCANS if getattr(options, scan)]
    if len(chosen) != 1:
        flags = {scan: f"--{scan.replace('_', '-')}" for scan in SCANS}
        if not chosen:
            *most, last = flags.values()
            raise InputError(f"nothing to do; expected {', '.join(most)} or {last} (see --help)")
        several = " and ".join(flags[scan] for scan in chosen)
        raise InputError(f"{several} at once; expected one scan (see --help)")
    (scan,) = chosen
    refuse_unread(options, scan, _BELONGS)
    n_prompts = SCANS[scan] if options.n_prompts is None else options.n_prompts
    tasks = options.tasks.load()
    if scan == "layer_scan":
        _layer_scan(options, tasks, n_prompts)
    else:
        _position_scan(options, tasks, n_prompts, scan)


def _layer_scan(options: Options, tasks: list[Task], n_prompts: int) -> None:
    n_dev = half(n_prompts, options.n_dev)
    for task in tasks:  # what the scan would refuse, before a model is loaded
        draw_split(task, n_prompts, n_dev, options.n_shots, 2, options.tasks.seed)
    out = target(options, "layer_scan", "layer_scan")
    model = load(options.models)
    from icl_mech.patch import layer_scan

    scan = layer_scan(
        model,
        tasks,
        n_prompts=n_prompts,
        n_shots=options.n_shots,
        n_dev=n_dev,
        seed=options.tasks.seed,
        template=options.tasks.template,
        progress=not options.output.no_progress,
    )
    deliver(scan, out, options.output)


def _position_scan(options: Options, tasks: list[Task], n_prompts: int, scan: str) -> None:
    o = options
    for task in tasks:  # what the scan would refuse, before a model is loaded
        draw_pairs(task, load_other(task), n_prompts, o.n_shots, o.tasks.seed, o.corruption)
    out = target(o, scan, scan)
    from icl_mech.model import SITES as KNOWN
    from icl_mech.patch.grid import each

    sites = each(SITES[scan] if o.sites is None else o.sites, KNOWN, "site")
    model = load(o.models)
    from icl_mech.patch import patch_positions

    result = patch_positions(
        model,
        tasks,
        n_prompts=n_prompts,
        n_shots=o.n_shots,
        seed=o.tasks.seed,
        corruption=o.corruption,
        direction=("denoise", "noise") if o.direction == "both" else o.direction,
        sites=sites,
        # Single heads everywhere would take as many times longer as there are heads.
        head_roles="final_arrow",
        template=o.tasks.template,
        progress=not o.output.no_progress,
    )
    deliver(result, out, o.output)


if __name__ == "__main__":
    main()
