"""The caveats of a conflicting-tasks result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icl_mech.vectors import Choice

if TYPE_CHECKING:
    from icl_mech.conflict.result import ConflictingTasks

#: A task is hardly answered if the share of right answers is below this.
WEAK = 0.3


def notes(result: ConflictingTasks) -> list[str]:
    """One line per caveat."""
    found = [
        f"{a} <- {b}: {line}"
        for a, b in map(result.tasks_of, result.pairs)
        for line in _of_pair(result, a, b)
    ]
    if result.undefined:
        found.append(
            f"{len(result.undefined)} of {len(result.undefined) + len(result.pairs)} pairs are "
            "undefined (no shared input with different answers, or too few): see .undefined"
        )
    return found


def _of_pair(result: ConflictingTasks, a: str, b: str) -> list[str]:
    pair, found = f"{a}:{b}", []
    n, n_queries = result.data.sizes["prompt"], result.provenance["pairs"][pair]["n_queries"]
    if n_queries < n:
        found.append(
            f"{n_queries} different queries in {n} prompts; the intervals are over queries"
        )
    here = result.data.sel(pair=pair)
    if "rises" in here:  # older files lack it
        accuracy = float(result.dev_accuracy(pair).value)
        choice = Choice(result.layer(pair), bool(here["rises"]), accuracy)
        found += choice.caveat(choice.at, f"θ of {b}")
    regular, own, random = (
        result.share(pair, "prompt", condition).value for condition in ("regular", "own", "random")
    )
    alone = result.share(pair, "injected", "zero_shot").value
    if regular < WEAK:
        found.append(
            f"without a vector only {regular:.2f} of the prompts follow {a}: there is little to "
            "override"
        )
    if alone < WEAK:
        found.append(
            f"in zero-shot prompts only {alone:.2f} of the answers follow θ of {b}: if few follow "
            "it after demonstrations, the reason may be the vector, not the prompt"
        )
    if own < regular - 0.2:
        found.append(
            f"with θ of {a} itself {own:.2f} of the prompts follow {a} (no vector: "
            f"{regular:.2f}): any vector written there breaks part of what θ of {b} breaks"
        )
    if random > 0.5:
        found.append(
            f"with a random vector {random:.2f} of the prompts still follow {a}: after block "
            f"{result.layer(pair)} other tokens than the last carry the task, too"
        )
    return found
