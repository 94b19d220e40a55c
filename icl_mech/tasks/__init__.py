"""Tasks: inputs and the answers that count as right. Knows no models and no tokens."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from icl_mech.errors import InputError, choose, shown
from icl_mech.tasks.builtin import SPECS, build
from icl_mech.tasks.context import ContextTask, Prediction
from icl_mech.tasks.failures import list_failures, load_failure, make_lookup_task
from icl_mech.tasks.families import list_families, load_family, load_member, member_names
from icl_mech.tasks.family import Family
from icl_mech.tasks.files import SUFFIXES, read_task
from icl_mech.tasks.task import Episode, Pair, Task
from icl_mech.tasks.text import check_text

__all__ = [
    "ContextTask",
    "Episode",
    "Family",
    "Pair",
    "Prediction",
    "Task",
    "Tasks",
    "flat",
    "list_failures",
    "list_families",
    "list_tasks",
    "load_failure",
    "load_family",
    "load_other",
    "load_parts",
    "load_task",
    "load_tasks",
    "make_lookup_task",
    "not_a_task",
]

#: What questions accept as tasks: one or several, as `Task`, `Family`, name or file.
Tasks = Family | Task | str | Path | Sequence[Family | Task | str | Path]

_BY_NAME = {spec.name: spec for spec in SPECS}
_ALIASES = {alias: spec.name for spec in SPECS for alias in spec.aliases}


def list_tasks(category: str | None = None) -> list[str]:
    """Names of the built-in tasks, of one category or (by default) of all.

    >>> list_tasks("translation")
    ['fr_en', 'en_fr', 'es_en', 'en_es']

    Raises:
        InputError: where there is no such category.
    """
    if category is not None:
        choose(category, dict.fromkeys(spec.category for spec in SPECS), "category")
    return [spec.name for spec in SPECS if category in (None, spec.category)]


def load_task(name: str | Path) -> Task:
    """A built-in task by name or alias, a task of a family, or a user's pairs from a file.

    >>> load_task("country_capital").pairs[0]
    Pair(x='Afghanistan', answers=('Kabul',))

    Args:
        name: one of `list_tasks()`, a task of a family ("countries/currency",
            "pos:<treebank>/noun"), or a path: a JSON object `{x: y}`, a JSON list of
            `{"input": x, "output": y}`, JSON lines, or a CSV or TSV file with the columns
            `input` and `output`. Several accepted answers: a list in JSON, `|` in a table.

    Raises:
        InputError: where no such task or file exists, or a row is malformed (named).
    """
    if not isinstance(name, str | Path):
        raise InputError(not_a_task(name))
    text = str(name)
    check_text("task", text)
    key = text.lower().replace("-", "_")
    key = _ALIASES.get(key, key)
    if key in _BY_NAME:
        return build(_BY_NAME[key])
    member = load_member(text)
    if member is not None:
        return member
    if Path(text).suffix.lower() in SUFFIXES or os.path.exists(text):
        return read_task(Path(text))
    try:
        choose(key, [*_BY_NAME, *member_names()], "task")
    except InputError as error:
        raise InputError(f"{error} (or a path to a {'/'.join(SUFFIXES)} file)") from None
    raise AssertionError("unreachable")


def load_tasks(task: Tasks) -> list[Task]:
    """Load one task or several. A family stands for all of its tasks but the null task.

    >>> [task.name for task in load_tasks(["to_upper", "antonyms"])]
    ['to_upper', 'antonyms']

    Raises:
        InputError: where no task is named, a name is unknown, or two tasks have the same name.
    """
    tasks = flat(load_parts(task))
    if not tasks:
        raise InputError("no task is named; expected at least one (see icl_mech.list_tasks())")
    for name, n in Counter(t.name for t in tasks).items():
        if n > 1:
            raise InputError(_named_twice([t for t in tasks if t.name == name]))
    return tasks


def _named_twice(tasks: Sequence[Task]) -> str:
    """The error message for tasks that have the same name."""
    name = tasks[0].name
    if all(t == tasks[0] for t in tasks):
        return f"task {name!r} is named twice; expected each once"
    if name in _BY_NAME and any(t == build(_BY_NAME[name]) for t in tasks):
        return f"a file of pairs has the name of the built-in task {name!r}; rename the file"
    return f"two different tasks have the name {name!r}; rename one (a file gives its own name)"


def load_parts(task: Tasks) -> list[Task | Family]:
    """Load the named tasks and families, without splitting families into their tasks.

    >>> [part.name for part in load_parts(["to_upper", "bitwise"])]
    ['to_upper', 'bitwise']

    Raises:
        InputError: where a name is unknown, or something is no name, task or list of these.
    """
    if isinstance(task, Family | Task | str | Path):
        several: list[Any] = [task]
    # What has keys (a dict, a frame) holds pairs, not tasks; bytes hold numbers.
    elif (
        isinstance(task, Iterable)
        and not isinstance(task, bytes | bytearray)
        and not hasattr(task, "keys")
        and bool(getattr(task, "ndim", True))
    ):
        several = list(task)
    else:
        raise InputError(not_a_task(task))
    return [t if isinstance(t, Family | Task) else _task_or_family(t) for t in several]


def not_a_task(given: Any) -> str:
    """The error message for something that was given as a task and is none.

    >>> not_a_task(3)[:47]
    'task is 3 (int); expected a name, a path, a Tas'
    """
    if isinstance(given, ContextTask):
        return (
            f"task {given.name!r} makes whole prompts (a ContextTask), which only "
            "task_vector_failures asks; expected a task of pairs"
        )
    kind = type(given).__name__
    return (
        f"task is {shown(given)} ({kind}); expected a name, a path, a Task, or a list of these. "
        "Pairs of your own: Task.from_pairs({'dog': 'puppy', ...}), or a file "
        f"({', '.join(SUFFIXES)})"
    )


def flat(parts: Sequence[Task | Family]) -> list[Task]:
    """All tasks in one list; families give all of their tasks but the null task.

    >>> [task.name for task in flat(load_parts(["to_upper", "bitwise"]))][:3]
    ['to_upper', 'bitwise/and', 'bitwise/nand']
    """
    return [t for p in parts for t in (p.proper if isinstance(p, Family) else (p,))]


def _task_or_family(given: Any) -> Task | Family:
    if not isinstance(given, str | Path):
        raise InputError(not_a_task(given))
    name = str(given)
    is_treebank = name.startswith("pos:") and os.path.isfile(name.removeprefix("pos:"))
    known = name.lower().replace("-", "_") in list_families()
    return load_family(name) if known or is_treebank else load_task(name)


def load_other(task: Task | ContextTask, other: Task | str | None = None) -> Task:
    """The task to compare `task` with: `other`, or by default one of another kind.

    >>> load_other(load_task("to_upper"), None).name
    'antonyms'

    Args:
        task: the task that is studied.
        other: by default antonyms, or, for a linguistic task, country_capital.

    Raises:
        InputError: where `other` is the task itself.
    """
    if other is None:
        return load_task("country_capital" if task.category == "linguistic" else "antonyms")
    chosen = other if isinstance(other, Task) else load_task(other)
    if chosen.name == task.name:
        raise InputError(f"other_task is the task itself ({task.name!r}); expected another one")
    return chosen
