"""A line before the demonstrations, which may name the task (Han et al. 2024, table 1)."""

from collections.abc import Sequence
from dataclasses import replace

from icl_mech.errors import InputError, choose, shown
from icl_mech.tasks import ContextTask, Task, load_other
from icl_mech.tasks.builtin import instructions
from icl_mech.tasks.task import Episode
from icl_mech.tasks.text import check_text, is_blank

#: What a prompt may begin with, beside a text of the caller's.
CONDITIONS = ("none", "true", "other", "irrelevant")
#: Names no task.
IRRELEVANT = "The shop opens at nine in the morning."


def check_instruction(instruction: str) -> str:
    """Refuse what is neither a condition nor a line of text.

    >>> check_instruction("ture")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    icl_mech.errors.InputError: unknown instruction 'ture'; did you mean 'true'?...

    Raises:
        InputError: where it is empty, or a single word that is no condition.
    """
    check_text("instruction", instruction)
    if is_blank(instruction):
        raise InputError(f"instruction {shown(instruction)} is empty; expected 'none', or text")
    if len(instruction.split()) == 1:
        choose(instruction, CONDITIONS, "instruction")
    return instruction


def header(task: Task | ContextTask, instruction: str) -> str:
    """The line that a task's prompts begin with; empty for none.

    >>> from icl_mech.tasks import load_task
    >>> [header(load_task("verbs/gerund"), condition) for condition in ("true", "other")]
    ['Write the gerund of the verb.', 'Write the simple past of the verb.']

    Args:
        task: what the prompts ask.
        instruction: `"none"`; `"true"`: the task's own; `"other"`: that of another task, the next
            one of the family, or, for a task without family, of `load_other`; `"irrelevant"`: a
            line that names no task; or the line itself.

    Raises:
        InputError: where the task's own is wanted and it has none.
    """
    if instruction == "none":
        return ""
    if instruction == "irrelevant":
        return IRRELEVANT
    if instruction == "other":
        return _of_another(task)
    if instruction != "true":
        return instruction
    own = task.instruction if isinstance(task, Task) else ""
    if not own:
        raise InputError(
            f"task {task.name!r} has no instruction of its own; expected the line itself, or "
            "Task.from_pairs(..., instruction='...')"
        )
    return own


def _of_another(task: Task | ContextTask) -> str:
    """The line of the next task of the family, or of a task of another kind."""
    prefix, _, output = task.name.rpartition("/")
    # The tasks on a treebank are named after its file.
    family = "pos" if prefix.startswith("pos:") else prefix
    lines = {n: line for n, line in instructions().items() if n.startswith(f"{family}/")}
    lines.pop(f"{family}/null", None)
    names = list(lines)
    if f"{family}/{output}" in names:
        return lines[names[(names.index(f"{family}/{output}") + 1) % len(names)]]
    return load_other(task).instruction


def instructed(
    episodes: Sequence[Episode], task: Task | ContextTask, instruction: str
) -> tuple[Episode, ...]:
    """The same episodes, with the line that their few-shot prompts begin with.

    >>> from icl_mech.tasks import load_task
    >>> task = load_task("to_upper")
    >>> (episode,) = instructed([Episode(task.pairs[:2], task.pairs[2], ())], task, "true")
    >>> episode.instruction
    'Write the letter in upper case.'
    """
    line = header(task, instruction)
    return tuple(replace(episode, instruction=line) for episode in episodes)
