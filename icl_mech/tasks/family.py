"""A family: tasks that ask the same inputs, so that only the answers tell them apart."""

from dataclasses import dataclass, replace
from itertools import combinations

from icl_mech.errors import InputError, choose
from icl_mech.tasks.task import Task


@dataclass(frozen=True)
class Family:
    """Tasks with exactly the same inputs in the same order.

    Tasks with different inputs can be told apart by their words alone. Only tasks that share their
    inputs show whether a model represents the mapping (Han et al. 2024).

    Attributes:
        name: as `load_family` knows it.
        tasks: two or more, each named `"<family>/<output>"`.
        null: the name of the task whose answers are random, where there is one: the control that
            Han et al. call *Null*.

    Raises:
        InputError: where there are fewer than two tasks, two share a name, their inputs differ,
            or `null` is none of them.
    """

    name: str
    tasks: tuple[Task, ...]
    null: str | None = None

    def __post_init__(self) -> None:
        names = [task.name for task in self.tasks]
        if len(names) < 2 or len(set(names)) != len(names):
            raise InputError(
                f"family {self.name!r}: tasks {names}; expected two or more, each once"
            )
        for task in self.tasks:
            if [pair.x for pair in task.pairs] != list(self.inputs):
                raise InputError(
                    f"family {self.name!r}: tasks {names[0]!r} and {task.name!r} have different "
                    "inputs; expected the same ones in the same order"
                )
        if self.null is not None:
            choose(self.null, names, "null task")

    def __repr__(self) -> str:
        outputs = ", ".join(task.name.rpartition("/")[2] for task in self.tasks)
        return f"Family({self.name!r}, {len(self.inputs)} inputs: {outputs})"

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs that all tasks of the family share."""
        return tuple(pair.x for pair in self.tasks[0].pairs)

    @property
    def proper(self) -> tuple[Task, ...]:
        """All tasks but the null task."""
        return tuple(task for task in self.tasks if task.name != self.null)

    @property
    def distinct(self) -> float:
        """Share of the inputs for which no two tasks (but the null task) accept the same answer.

        Demonstrations drawn from the other inputs may fit several tasks.
        """
        return sum(self._distinguishes()) / len(self.inputs)

    def task(self, output: str) -> Task:
        """The task named `"<family>/<output>"`.

        Raises:
            InputError: where there is none, naming the nearest.
        """
        outputs = {task.name.rpartition("/")[2]: task for task in self.tasks}
        return outputs[choose(output, outputs, f"task of family {self.name!r}:")]

    def only_distinct(self) -> "Family":
        """The family without the inputs for which two tasks accept the same answer.

        Raises:
            InputError: where no input is left.
        """
        kept = self._distinguishes()
        if not any(kept):
            raise InputError(f"family {self.name!r}: two tasks share an answer for every input")
        tasks = (
            replace(task, pairs=tuple(p for p, keep in zip(task.pairs, kept, strict=True) if keep))
            for task in self.tasks
        )
        return Family(self.name, tuple(tasks), self.null)

    def _distinguishes(self) -> list[bool]:
        """For every input, whether no two tasks accept the same answer."""
        asked = [task.pairs for task in self.proper]
        return [
            all(set(a.answers).isdisjoint(b.answers) for a, b in combinations(row, 2))
            for row in zip(*asked, strict=True)
        ]
