"""What decides the numbers, checked before a model is loaded."""

from dataclasses import dataclass

from icl_mech.errors import InputError
from icl_mech.prompts import Template, shot_counts
from icl_mech.tasks import Tasks, load_tasks
from icl_mech.variability.sampling import Sets, draw_sets


@dataclass(frozen=True)
class Settings:
    """Everything that, with the model and the tasks, decides the numbers.

    Raises:
        InputError: where the template or the numbers of shots cannot work.
    """

    n_vectors: int
    n_shots: tuple[int, ...]
    n_dev: int
    n_dummies: int
    seed: int
    template: str
    leading_space: bool | None

    def __post_init__(self) -> None:
        Template(self.template)
        shot_counts(self.n_shots)


def draw_all(tasks: Tasks, settings: Settings) -> list[Sets]:
    """The demonstration sets of every task, with the largest number of shots.

    Raises:
        InputError: where a task is unknown or too small, or there is one task only.
    """
    s = settings
    several = load_tasks(tasks)
    if len(several) < 2:
        raise InputError(
            f"one task ({several[0].name!r}); expected two or more: distances within a task say "
            "something only beside those between tasks"
        )
    return [
        draw_sets(task, s.n_vectors, s.n_dev, max(s.n_shots), s.n_dummies, s.seed)
        for task in several
    ]
