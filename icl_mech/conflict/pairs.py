"""Which pairs of tasks are meant."""

from collections.abc import Iterable, Sequence
from itertools import permutations

from icl_mech.errors import InputError
from icl_mech.reference import hendel2023
from icl_mech.tasks import Task, Tasks, load_task, load_tasks

Pairs = Sequence[tuple[Task | str, Task | str]]


def paper_pairs() -> list[tuple[str, str]]:
    """The five pairs of the paper: the prompt's task, and the one whose vector is injected.

    >>> paper_pairs()[0], paper_pairs()[-1]
    (('next_letter', 'to_upper'), ('en_es', 'en_fr'))
    """
    return [(conflict.task, conflict.other_task) for conflict in hendel2023().conflicts]


def as_pairs(
    given: Pairs | Tasks | None,
) -> tuple[list[tuple[Task, Task]], bool]:
    """Pairs as given, all ordered pairs of several tasks, or (`None`) those of the paper.

    Returns:
        The pairs, and whether they are all those of a list of tasks (a matrix).

    Raises:
        InputError: where a name is unknown, a pair or task comes twice, or there is one task only.

    Example:
        >>> pairs, matrix = as_pairs([("to_upper", "next_letter")])
        >>> [(first.name, second.name) for first, second in pairs], matrix
        ([('to_upper', 'next_letter')], False)
    """
    if given is None:
        given = paper_pairs()
    if (
        isinstance(given, Iterable)
        and not isinstance(given, str)
        and any(isinstance(item, tuple) for item in given)
    ):
        return _explicit(given), False
    tasks = load_tasks(given)  # type: ignore[arg-type]  # no tuples among them
    if len(tasks) < 2:
        raise InputError(f"one task ({tasks[0].name!r}); expected two or more, or pairs of tasks")
    return list(permutations(tasks, 2)), True


def _explicit(given: Sequence) -> list[tuple[Task, Task]]:
    pairs = []
    for item in given:
        if not isinstance(item, tuple) or len(item) != 2:
            raise InputError(
                f"{item!r} among pairs of tasks; expected (prompt's task, injected task) throughout"
            )
        first, second = (t if isinstance(t, Task) else load_task(t) for t in item)
        pairs.append((first, second))
    names = [(first.name, second.name) for first, second in pairs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"the pair {twice[0]}:{twice[1]} comes twice; expected each once")
    return pairs


def parse_pair(text: str) -> tuple[Task, Task]:
    """`"next_letter:to_upper"`: the prompt's task, then the injected one.

    A colon may be part of a task's name ("pos:file.conllu/noun").

    Raises:
        InputError: where there is no colon, or a task is unknown.
    """
    cuts = [i for i, letter in enumerate(text) if letter == ":"]
    if not cuts:
        raise InputError(
            f"pair {text!r}; expected the prompt's task, a colon, and the injected task, as in "
            "next_letter:to_upper"
        )
    problem = None
    for cut in cuts:
        try:
            return load_task(text[:cut]), load_task(text[cut + 1 :])
        except InputError as error:
            problem = problem or error
    raise problem or AssertionError("unreachable")
