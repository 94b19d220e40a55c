"""Caveats of the measurements of a training run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from icl_mech.synthetic.emergence import Emergence


def emergence_notes(run: "Emergence") -> list[str]:
    """The caveats that apply, a line each."""
    p = run.provenance["settings"]
    notes = [
        f"one run: seeds differ in which {run.kind} is learned first, and when",
        "intervals are over held-out sequences, not over training runs",
    ]
    notes.append(
        f"the probe of W has {run.n_probe} sequences per {run.kind}: it tells a true R² of "
        f"{run.weight_limit:.2f} from 0, and says nothing about smaller ones"
        if run.weight_limit == run.weight_limit
        else f"the probe of W has {run.n_probe} sequences per {run.kind}: too few to tell any "
        "share of W from none"
    )
    if "leaky_relu" in run.names:
        notes.append(
            "the references of leaky ReLU, and the Bayes mixture, are sampled: their predictions "
            "have a Monte-Carlo error of about .01"
        )
    if "query:replace" in run.perturbations:
        notes.append("replacing the query's residual removes its x too")
    if n := p["curriculum_steps"]:
        notes.append(
            f"trained with a curriculum: weights had a non-zero mean during the first {n} updates, "
            "which helps the model to tell bases apart; the paper has no curriculum"
        )
    if run.td().high < run.basis_accuracy().value.max():
        notes.append(
            f"a linear probe names the {run.kind} more often than the nearest neighbours do: "
            f"the {run.kind} is there, but most of the distance comes from other differences"
        )
    return notes
