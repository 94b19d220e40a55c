"""The caveats of a failures result."""

from typing import TYPE_CHECKING

from icl_mech.vectors import Choice

if TYPE_CHECKING:
    from icl_mech.failures.result import TaskVectorFailures

#: A caveat says which share of wrong answers has no name if it is above this.
UNNAMED = 0.1
#: A caveat says which share of tokens would have a name by chance if it is above this.
BY_CHANCE = 0.1
#: The observed outcome that agrees with a predicted one.
AGREES = {"works": "works", "about half": "in part", "label prior": "label prior"}


def notes(result: "TaskVectorFailures") -> list[str]:
    """One line per caveat, task by task."""
    lines = [*result.provenance.get("notes", []), *result.repeated_queries()]
    for task in result.tasks:
        lines += [f"{task}: {line}" for line in _of_task(result, task)]
    by_chance = [result.by_chance(task) for task in result.tasks]
    if max(by_chance) > BY_CHANCE:
        lines.append(
            f"of tokens picked blindly from the vocabulary, {min(by_chance):.0%} to "
            f"{max(by_chance):.0%} (by task) would have a name, too: which name an error has says "
            "more than that it has one"
        )
    if result.repairs:
        lines.append(
            "in the first blocks a repair writes states that are little more than the tokens, and "
            "so shows the demonstrations again: compare layers in `dev_right`"
        )
    return lines


def _of_task(result: "TaskVectorFailures", task: str) -> list[str]:
    lines, here = [], result.of(task)
    observed, predicted = result.observed(task), str(here["predicted"].item())
    if observed == "not in context":
        lines.append(
            f"the prompt ({result.accuracy(task, 'few_shot')}) is not clearly above the better of "
            f"the zero-shot prompt and the label prior ({result.floor(task).mean():.2f}): nothing "
            "for a vector to explain"
        )
    elif observed != AGREES[predicted]:
        lines.append(f"predicted: {predicted}; observed: {observed}")
    if 1 - result.named(task) > UNNAMED:
        lines.append(f"{1 - result.named(task):.0%} of the vector's errors have no name")
    if "rises" in here:  # older files lack it
        for method in here["injected"].values.tolist():
            right = here["dev_right"].sel(injected=method)
            choice = Choice(
                result.layer(task, method),
                bool(here["rises"].sel(injected=method)),
                float(right.mean("dev_prompt").max()),
            )
            lines += choice.caveat(choice.at, method)
    theta, shuffled = (result.accuracy(task, name).value for name in ("theta", "shuffled"))
    told_apart = result.difference(task, "theta", "shuffled").low > 0
    if observed in ("works", "in part") and not told_apart:
        lines.append(
            f"theta from shuffled labels ({shuffled:.2f}) is not told apart from theta "
            f"({theta:.2f}): the vector may carry answers more than the mapping"
        )
    return lines
