"""Names of tasks as labels."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def subject(names: Sequence[str]) -> str:
    """The one task, escaped, or how many there are."""
    return escape(names[0]) if len(names) == 1 else f"{len(names)} tasks"


def short(names: Sequence[str], tasks: Sequence[str] | None = None) -> list[str]:
    """Names without the family that all tasks share ("verbs/past" -> "past"), escaped.

    Args:
        names: of tasks, and of others, which stay as they are.
        tasks: who decide whether there is one family; `names` by default.
    """
    families = {name.rpartition("/")[0] for name in tasks or names}
    if len(families) > 1 or "" in families:
        return [escape(name) for name in names]
    (family,) = families
    return [escape(name.removeprefix(f"{family}/")) for name in names]
