"""What to keep in mind when reading failures of task vectors."""

from typing import TYPE_CHECKING

from icl_mech.results import repeated
from icl_mech.stats import paired_difference

if TYPE_CHECKING:
    from icl_mech.failures.result import TaskVectorFailures

#: Share of wrong answers without a name from which it is said.
UNNAMED = 0.1
#: What the observed outcome may be where something was predicted.
AGREES = {
    "works": ("works",),
    "about half": ("in part",),
    "label prior": ("label prior",),
}


def notes(result: "TaskVectorFailures") -> list[str]:
    """A line for everything that would mislead, task by task."""
    data, n = result.data, result.data.sizes["prompt"]
    lines = repeated(result.tasks, data["n_queries"].values.tolist(), n)
    for task in result.tasks:
        lines += [f"{task}: {line}" for line in _of_task(result, task)]
    if result.repairs:
        lines.append(
            "a repair near the embedding writes states that are little more than the tokens, and "
            "so shows the demonstrations again: compare layers in `dev_right`"
        )
    return lines


def _of_task(result: "TaskVectorFailures", task: str) -> list[str]:
    lines = []
    observed, predicted = result.observed(task), str(result.of(task)["predicted"].item())
    if observed == "not in context":
        lines.append(
            f"the prompt ({result.accuracy(task, 'few_shot')}) is not clearly above what needs no "
            f"demonstrations ({result.floor(task).mean():.2f}): nothing for a vector to explain"
        )
    elif observed not in AGREES[predicted]:
        lines.append(f"predicted: {predicted}; observed: {observed}")
    if 1 - result.named(task) > UNNAMED:
        lines.append(f"{1 - result.named(task):.0%} of the vector's errors have no name")
    here = result.of(task)
    if float(here["dev_right"].sel(injected="theta").max()) == 0:
        lines.append(
            "theta is right on no dev prompt at any layer: its layer is the one where the right "
            "answer is most probable"
        )
    theta, shuffled = (here["right"].sel(condition=c).values for c in ("theta", "shuffled"))
    told_apart = paired_difference(theta, shuffled).low > 0
    if observed in ("works", "in part") and not told_apart:
        lines.append(
            f"theta from shuffled labels ({shuffled.mean():.2f}) is not told apart from theta "
            f"({theta.mean():.2f}): the vector may carry answers more than the mapping"
        )
    return lines
