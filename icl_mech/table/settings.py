"""What, besides model and tasks, decides the numbers of a table."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from icl_mech.errors import InputError
from icl_mech.prompts import DEFAULT_TEMPLATE, Template, draw_split
from icl_mech.tasks import Task, load_other


def run_settings(
    tasks: Sequence[Task],
    n_prompts: int = 100,
    n_shots: int = 5,
    seed: int = 0,
    n_dev: int | None = None,
    n_dummies: int = 2,
    template: str = DEFAULT_TEMPLATE,
    leading_space: bool | None = None,
) -> dict[str, Any]:
    """Everything but the model and the tasks that decides the numbers, checked for all tasks.

    Raises:
        InputError: where a template or count cannot work with one of the tasks.
    """
    Template(template)
    n_dev = max(1, n_prompts // 2) if n_dev is None else n_dev
    for task in tasks:
        for drawn in (task, load_other(task)):
            draw_split(drawn, n_prompts, n_dev, n_shots, n_dummies, seed)
    if any(task.name == "mean" for task in tasks):
        raise InputError("a task is named 'mean', as the last row is; expected another name")
    return {
        "icl_mech": version("icl-mech"),
        "n_prompts": n_prompts,
        "n_dev": n_dev,
        "n_shots": n_shots,
        "n_dummies": n_dummies,
        "seed": seed,
        "template": template,
        "leading_space": leading_space,
    }
