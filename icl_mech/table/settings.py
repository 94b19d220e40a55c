"""What, besides model and tasks, decides the numbers of a table."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from icl_mech.errors import InputError
from icl_mech.prompts import DEFAULT_TEMPLATE, N_DUMMIES, PromptSettings, Template, half, whole
from icl_mech.tasks import Task, load_other


def run_settings(
    tasks: Sequence[Task],
    n_prompts: int = 100,
    n_shots: int = 5,
    seed: int = 0,
    n_dev: int | None = None,
    n_dummies: int = N_DUMMIES,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
    control_layers: str = "chosen",
) -> dict[str, Any]:
    """Everything but the model and the tasks that decides the numbers, checked for all tasks.

    Raises:
        InputError: where a template or count cannot work with one of the tasks.
    """
    Template(template)
    protocol = PromptSettings(
        whole("n_prompts", n_prompts),
        half(n_prompts, n_dev),
        whole("n_shots", n_shots),
        whole("n_dummies", n_dummies),
        whole("seed", seed),
        template,
        leading_space,
    )
    for task in tasks:
        protocol.split(task)
        protocol.split(load_other(task))
    if any(task.name == "mean" for task in tasks):
        raise InputError("a task is named 'mean', as the last row is; expected another name")
    return {"icl_mech": version("icl-mech"), **vars(protocol), "control_layers": control_layers}
