"""What to keep in mind when reading task decodability, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from icl_mech.decodability.result import TaskDecodability


def notes(result: TaskDecodability) -> list[str]:
    """Caveats that this result's own numbers call for."""
    return [*_inputs(result), *_labels(result), *_answers(result)]


def _inputs(result: TaskDecodability) -> list[str]:
    p, found = result.provenance, []
    if not p["shared_inputs"]:
        found.append(
            "the tasks have inputs of their own, so their words alone can tell them apart: "
            "compare with the query alone, or measure within a family"
        )
    elif p["share_of_distinct_inputs"] < 1:
        found.append(
            f"two tasks share an answer on {1 - p['share_of_distinct_inputs']:.0%} of the inputs: "
            "demonstrations drawn from these can leave the task open"
        )
    n_points, n_queries = result.data.sizes["point"], p["n_queries"]
    if n_queries < n_points:
        found.append(
            f"{n_queries} different queries in {n_points} prompts per task (few inputs); the "
            "intervals are over queries"
        )
    if p["leave_out"] == "point" and p["shared_inputs"]:
        found.append(
            "only the point itself is left out: every other task's prompt with the same query "
            "stays in the pool, which pushes TD below chance where words matter most"
        )
    if "input_credit" in result.data and not p["shared_inputs"]:
        alone = result.peak(control="input")
        if alone.low > result.chance:
            found.append(f"the queries alone give the task away at {alone} of the points")
    if "instruction_credit" in result.data:
        told = result.peak(control="instruction")
        if told.low > result.chance:
            found.append(
                f"the instruction names the task: read without any demonstration, {told} of the "
                "points are decoded right (the largest of all layers)"
            )
    return found


def _labels(result: TaskDecodability) -> list[str]:
    found = []
    if "shuffled_credit" in result.data:
        if 1 in result.shots:
            found.append("with one shot there are no labels to shuffle: that control is empty")
        for shots in (n for n in result.shots if n > 1):
            shuffled, ours = result.held_out(shots, control="shuffled"), result.held_out(shots)
            if result.above("shuffled", shots).low <= 0 and ours.low > result.chance:
                found.append(
                    f"{shots}-shot: prompts with shuffled labels are decoded about as well "
                    f"({shuffled.value:.2f} against {ours.value:.2f}): the kind of the answers "
                    "gives the task away, not the mapping"
                )
    for shots in result.shots:
        same = result.without_difference(shots)
        if same:
            found.append(
                f"{shots}-shot: after block {', '.join(map(str, same))} every task gets the same "
                "votes, as where all prompts have the same activations: there TD is chance by "
                "definition, with no interval to speak of"
            )
        best = result.peak(shots)
        if best.low <= result.chance:
            found.append(
                f"{shots}-shot: TD is not told apart from chance at any layer (the largest is "
                f"{best}; the interval accounts for choosing it among {len(result.layers)})"
            )
    return found


def _answers(result: TaskDecodability) -> list[str]:
    found = []
    several = float(np.mean(result.data["answer_tokens"].values > 1))
    if several > 0:
        found.append(
            f"{several:.0%} of the answers have several tokens; accuracy asks for all of them "
            "(exact match), and the first token alone is in first_token_accuracy"
        )
    return found
