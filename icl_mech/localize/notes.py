"""What to keep in mind when reading a task map, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from icl_mech.localize.result import TaskMap


def notes(found: TaskMap) -> list[str]:
    """Caveats of the run, and those that this map's own numbers call for."""
    lines = list(found.provenance.get("notes", []))
    for task in found.tasks:
        lines += _learning(found, task)
    for task in filter(found.learns, found.tasks):
        lines += _layers(found, task)
    return lines


def _learning(found: TaskMap, task: str) -> list[str]:
    regular, prior = found.share(task, "regular"), found.share(task, "prior")
    if np.isnan(found.gain(task).low):
        return [f"{task}: too few queries to tell whether the model learns this in context"]
    if not found.learns(task):
        return [
            f"{task}: no in-context learning to localise (few-shot accuracy {regular}, not above "
            "zero-shot)"
        ]
    if regular.low < prior.value:
        return [
            f"{task}: the label prior is high ({prior.value:.2f}, few-shot {regular}): always "
            "giving the most frequent answer does about as well"
        ]
    return []


def _layers(found: TaskMap, task: str) -> list[str]:
    lines = []
    for (what, readout), located in found.layers_of(task).items():
        e = located.estimate
        if located.why:
            lines.append(f"{task}: the {readout} curve names no {what} layer ({located.why})")
        elif e.high - e.low > len(found.layers) / 4:
            lines.append(
                f"{task}: the {what} layer by {readout} is uncertain: {located}, more than a "
                "quarter of the depth"
            )
    return lines
