"""What to keep in mind when reading numbers over checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from icl_mech.checkpoints.emergence import MEAN
from icl_mech.stats import MIN_CLUSTERS

if TYPE_CHECKING:
    from icl_mech.checkpoints.result import Checkpoints

#: With fewer checkpoints, an onset hardly says more than the two checkpoints around it.
FEW = 6


def notes(result: Checkpoints) -> list[str]:
    """A line each."""
    return [
        *_of_reading(result),
        *result.provenance.get("notes", []),
        *_of_steps(result),
        *_of_onsets(result),
        *_of_prior(result),
    ]


def _of_reading(result: Checkpoints) -> list[str]:
    first, second = result.td_layers()
    layers = str(first) if first == second else f"{first} and {second}"
    lines = [
        f"TD after block {layers} at every step, chosen at the last checkpoint on the other half "
        "of the queries; accuracy is of first tokens",
    ]
    if 1 < len(result.tasks) < MIN_CLUSTERS:
        lines.append(
            f"{len(result.tasks)} tasks; fewer than {MIN_CLUSTERS} give no interval over tasks"
        )
    return lines


def _of_steps(result: Checkpoints) -> list[str]:
    steps = result.steps
    lines = []
    if len(steps) < FEW:
        lines.append(
            f"{len(steps)} checkpoints are few: an onset says between which two of them a curve "
            "rises, hardly more"
        )
    rising = [
        what
        for what, rise in zip(("TD", "few-shot accuracy"), result.rises[MEAN], strict=True)
        if rise.still_rising
    ]
    if rising:
        lines.append(
            f"{' and '.join(rising)} still rose between the last two checkpoints: an onset is of "
            "the rise so far, and comes later where training goes on"
        )
    return lines


def _of_onsets(result: Checkpoints) -> list[str]:
    onsets = result.onsets()
    lines = []
    for what, name in (("encoding", "TD"), ("accuracy", "few-shot accuracy")):
        none = [str(task) for task in onsets.index[onsets[what].isna()]]
        if none:
            lines.append(
                f"no onset of {what} ({', '.join(none)}): {name} at the last checkpoint is not "
                "above that at the first beyond noise"
            )
    steps, found = np.array(result.steps), onsets[["encoding", "accuracy"]].to_numpy().ravel()
    after = np.searchsorted(steps, found[~np.isnan(found)]).clip(1, len(steps) - 1)
    if len(after):
        gaps = steps[after] - steps[after - 1]
        lines.append(
            f"checkpoints lie {gaps.min():,} to {gaps.max():,} steps apart round the onsets, and "
            "curves count as straight between them (over the logarithm of steps): intervals do "
            "not hold that error"
        )
    return lines


def _of_prior(result: Checkpoints) -> list[str]:
    weak = []
    for task in result.tasks:
        right = result.accuracy(task=task)
        if right.low < result.accuracy(task=task, which="prior").value < right.value + 1e-9:
            weak.append(task)
    if not weak:
        return []
    return [
        f"{', '.join(weak)}: at the last checkpoint, always giving the most frequent answer does "
        "about as well as the few-shot prompts"
    ]
