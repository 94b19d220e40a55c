"""Tasks whose prompts are pooled, to be told apart or patched into one another."""

from dataclasses import dataclass

from icl_mech.errors import InputError
from icl_mech.prompts.matched import same_inputs
from icl_mech.tasks import Family, Task, Tasks, flat, list_families, load_parts


@dataclass(frozen=True)
class Pool:
    """Tasks whose prompts are pooled.

    Attributes:
        tasks: two or more, no two with the same pairs.
        null: the family's task with random answers, if there is one. It is not in `tasks`, because
            its answers follow no mapping.
    """

    tasks: tuple[Task, ...]
    null: Task | None

    @property
    def names(self) -> list[str]:
        """Of the tasks, in order."""
        return [task.name for task in self.tasks]

    @property
    def shared(self) -> bool:
        """Whether all tasks ask the same inputs in the same order."""
        return same_inputs(self.tasks)

    @property
    def distinct(self) -> float | None:
        """Share of the inputs that no two tasks answer alike; `None` if inputs differ."""
        return Family("pool", self.tasks).distinct if self.shared else None


def load_pool(tasks: Tasks) -> Pool:
    """A family, its name, or a list of tasks and names (of tasks or families).

    Raises:
        InputError: where a name is unknown, there are fewer than two tasks, one comes twice, or
            two have the same pairs.

    Example:
        >>> load_pool("verbs").names
        ['verbs/gerund', 'verbs/past', 'verbs/participle', 'verbs/third_person']
    """
    parts = load_parts(tasks)
    found = flat(parts)
    families = [part for part in parts if isinstance(part, Family)]
    nulls = [task for family in families for task in family.tasks if task.name == family.null]
    names = [task.name for task in found]
    if len(found) < 2 or len(set(names)) != len(names):
        raise InputError(
            f"tasks {names}; expected two or more, each once (one task alone cannot be told apart "
            f"from others), or a family: {', '.join(list_families())}"
        )
    first: dict[frozenset, str] = {}
    for task in found:
        twin = first.setdefault(frozenset(task.pairs), task.name)
        if twin != task.name:
            raise InputError(f"tasks {twin!r} and {task.name!r} have the same pairs; expected two")
    # Several families ask different inputs, so that no null task goes with all of them.
    null = nulls[0] if len(nulls) == 1 and same_inputs([*found, nulls[0]]) else None
    return Pool(tuple(found), null)
