"""Is it the name of a task, or a text that somebody typed?"""

import os
from pathlib import Path

from icl_mech.errors import nearest
from icl_mech.prompts import Template
from icl_mech.tasks import list_families, list_tasks
from icl_mech.tasks.families import member_names
from icl_mech.tasks.files import SUFFIXES


def is_text(given: str, template: str) -> bool:
    """Whether it is a text, and no name of a task, family or file, also not a misspelt one.

    A text has a space, a line break or the template's arrow in it.

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
    """Whether it names a file of pairs or a treebank, there or not."""
    named = Path(given).suffix.lower() in SUFFIXES or given.startswith("pos:")
    return named or os.path.exists(given)
