"""Options that only some modes of a command read: given with another mode, they are refused."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from icl_mech.errors import InputError


def flag(name: str) -> str:
    """An option as it is typed.

    >>> flag("n_heads")
    '--n-heads'
    """
    return f"--{name.replace('_', '-')}"


def refuse_unread(options: Any, mode: str | None, belongs: Mapping[str, Sequence[str]]) -> None:
    """Refuse an option that was given but that the chosen mode would silently ignore.

    Given is what differs from its default: a default that is spelled out changes nothing.

    Args:
        options: a dataclass, a field per option.
        mode: the field of the chosen mode's flag; None for the mode that has none.
        belongs: for options that not all modes read, the fields of the flags of those that do;
            none for options of the mode without a flag.

    Raises:
        InputError: naming the first such option, and the modes that it is for.
    """
    defaults = {field.name: field.default for field in fields(options)}
    for name, modes in belongs.items():
        assert defaults[name] is not MISSING, name
        if (
            mode in modes
            or (mode is None and not modes)
            or getattr(options, name) == defaults[name]
        ):
            continue
        if not modes:
            raise InputError(f"{flag(name)} does not go with {flag(str(mode))}; expected only one")
        raise InputError(f"{flag(name)} is for {' and '.join(map(flag, modes))} (see --help)")
