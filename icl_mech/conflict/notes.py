"""What to keep in mind when reading conflicting tasks, a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from icl_mech.vectors import Choice

if TYPE_CHECKING:
    from icl_mech.conflict.result import ConflictingTasks

#: Below this the task is hardly done, so that there is little to override or to inject.
WEAK = 0.3


def notes(result: ConflictingTasks) -> list[str]:
    """Caveats that this result's own numbers call for."""
    found = [note for pair in result.pairs for note in _of(result, pair)]
    if result.undefined:
        found.append(
            f"{len(result.undefined)} of {len(result.undefined) + len(result.pairs)} pairs are "
            "undefined (no shared input with different answers, or too few): see .undefined"
        )
    return found


def _of(result: ConflictingTasks, pair: str) -> list[str]:
    a, b = result.tasks_of(pair)
    about = result.provenance["pairs"][pair]
    found = []
    n = result.data.sizes["prompt"]
    if about["n_queries"] < n:
        found.append(
            f"{a} <- {b}: {about['n_queries']} different queries in {n} prompts; the intervals "
            "are over queries"
        )
    here = result.data.sel(pair=pair)
    if "rises" in here:  # older files lack it
        choice = Choice(
            result.layer(pair), bool(here["rises"]), float(result.dev_accuracy(pair).value)
        )
        found += [f"{a} <- {b}: {line}" for line in choice.caveat(choice.at, f"θ of {b}")]
    regular = result.share(pair, "prompt", "regular")
    if regular.value < WEAK:
        found.append(
            f"{a} <- {b}: without a vector only {regular.value:.2f} of the prompts follow {a}: "
            "there is little to override"
        )
    alone = result.share(pair, "injected", "zero_shot")
    if alone.value < WEAK:
        found.append(
            f"{a} <- {b}: θ of {b} hardly works on these queries without demonstrations "
            f"({alone.value:.2f}), so that not following it says little about the prompt"
        )
    own, random = (result.share(pair, "prompt", c) for c in ("own", "random"))
    if own.value < regular.value - 0.2:
        found.append(
            f"{a} <- {b}: θ of {a} itself keeps only {own.value:.2f} of answers right (no vector: "
            f"{regular.value:.2f}): part of what θ of {b} breaks, any vector there breaks"
        )
    if random.value > 0.5:
        found.append(
            f"{a} <- {b}: even a random vector leaves {random.value:.2f} following {a}: after "
            f"block {result.layer(pair)} the last token is not all that carries the task"
        )
    return found
