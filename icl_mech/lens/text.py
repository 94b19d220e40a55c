"""Tells the name of a task, family or file from the text of a prompt."""

import os
from pathlib import Path

from icl_mech.errors import nearest
from icl_mech.prompts import Template
from icl_mech.tasks import list_families, list_tasks
from icl_mech.tasks.families import member_names
from icl_mech.tasks.files import SUFFIXES


def is_text(given: str, template: str) -> bool:
    """Whether `given` is the text of a prompt, not the name of a task, family or file.

    A text contains a space, a line break or the template's arrow. Misspelt names of tasks and
    families are not texts.

    >>> is_text("The capital of France is", "{x}->{y}"), is_text("Peru->", "{x}->{y}")
    (True, True)
    >>> [is_text(name, "{x}->{y}") for name in ("antonym", "country capital", "my pairs.csv")]
    [False, False, False]
    """
    arrow = Template(template).pieces[1].strip()
    if arrow in given and not _is_file(given):
        return True
    if len(given.split()) < 2 or _is_file(given):
        return False
    known = [*list_tasks(), *list_families(), *member_names()]
    return nearest("_".join(given.split()), known) is None


def _is_file(given: str) -> bool:
    """Whether it names an existing file, a file of pairs (existing or not) or a treebank."""
    named = Path(given).suffix.lower() in SUFFIXES or given.startswith("pos:")
    return named or os.path.exists(given)
