"""Caveats of task decodability: what a reader of the numbers must know, a line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from icl_mech.decodability.result import TaskDecodability


def notes(result: TaskDecodability) -> Iterator[str]:
    """The caveats that this result's numbers call for."""
    yield from _inputs(result)
    yield from _labels(result)
    yield from _answers(result)


def _inputs(result: TaskDecodability) -> Iterator[str]:
    p = result.provenance
    if not p["shared_inputs"]:
        yield (
            "the tasks have inputs of their own, so their words alone can tell them apart: "
            "compare with the query alone, or measure within a family"
        )
    elif p["share_of_distinct_inputs"] < 1:
        yield (
            f"two tasks share an answer on {1 - p['share_of_distinct_inputs']:.0%} of the inputs: "
            "demonstrations drawn from these fit both tasks"
        )
    n_points, n_queries = result.data.sizes["point"], p["n_queries"]
    if n_queries < n_points:
        yield (
            f"{n_queries} different queries in {n_points} prompts per task (few inputs); the "
            "intervals are over queries"
        )
    if p["leave_out"] == "point" and p["shared_inputs"]:
        yield (
            "only the point itself is left out: every other task's prompt with the same query "
            "stays in the pool, which pushes TD down, in early layers below chance"
        )
    if "input_credit" in result.data and not p["shared_inputs"]:
        alone = result.peak(control="input")
        if alone.low > result.chance:
            yield f"the queries alone give the task away at {alone} of the points"
    if "instruction_credit" in result.data:
        told = result.peak(control="instruction")
        if told.low > result.chance:
            yield (
                f"the instruction names the task: read without any demonstration, {told} of the "
                "points are decoded right (the largest of all layers)"
            )


def _labels(result: TaskDecodability) -> Iterator[str]:
    if "shuffled_credit" in result.data:
        if 1 in result.shots:
            yield "with one shot there are no labels to shuffle: that control is empty"
        for shots in (n for n in result.shots if n > 1):
            shuffled, ours = result.held_out(shots, control="shuffled"), result.held_out(shots)
            if result.above("shuffled", shots).low <= 0 and ours.low > result.chance:
                yield (
                    f"{shots}-shot: prompts with shuffled labels are decoded about as well "
                    f"({shuffled.value:.2f} against {ours.value:.2f}): the kind of the answers "
                    "gives the task away, not the mapping"
                )
    for shots in result.shots:
        same = result.without_difference(shots)
        if same:
            yield (
                f"{shots}-shot: after block {', '.join(map(str, same))} every task gets the same "
                "votes, as if all prompts had the same activations: TD there is exactly chance, "
                "and its interval means nothing"
            )
        best = result.peak(shots)
        if best.low <= result.chance:
            yield (
                f"{shots}-shot: TD is not told apart from chance at any layer (the largest is "
                f"{best}; the interval accounts for choosing it among {len(result.layers)})"
            )


def _answers(result: TaskDecodability) -> Iterator[str]:
    several = float(np.mean(result.data["answer_tokens"].values > 1))
    if several > 0:
        yield (
            f"{several:.0%} of the answers have several tokens; accuracy asks for all of them "
            "(exact match), and the first token alone is in first_token_accuracy"
        )
