"""The settings of `patchscope`, the invitation prompts, and the episodes of every task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from icl_mech.errors import InputError, choose
from icl_mech.lens.naming import naming_words
from icl_mech.prompts import N_DUMMIES, PromptSettings, Split
from icl_mech.tasks import Task, Tasks, load_tasks

#: The mark in an invitation, and the text that replaces it; the vector is written over its token.
MARK, PLACEHOLDER = "{}", "x"
#: Prompts that invite the model to describe the marked token.
INVITATIONS = {
    "repeat": "cat -> cat\n1135 -> 1135\nhello -> hello\n{} ->",
    "describe": "Syria: a country in the Middle East\nDante: an Italian poet\ncello: an "
    "instrument with four strings\n{}:",
    "kind": "red, blue, green: colours\none, two, three: numbers\ncat, dog, cow: animals\n{}:",
}


@dataclass(frozen=True, kw_only=True)
class PatchscopeSettings(PromptSettings):
    """Settings of `patchscope`.

    Example:
        >>> PatchscopeSettings(n_prompts=4, invitations=("repeat",)).max_new_tokens
        12
    """

    n_prompts: int = 20
    """Vectors per task, each from other demonstrations."""
    invitations: tuple[str, ...] = tuple(INVITATIONS)
    """Which of the prompts that invite: repeat, describe, kind; or texts of your own in which {}
    marks the token over which the vector is written."""
    layers: tuple[int, ...] | None = None
    """After which blocks the vector is read; all by default."""
    into: int | None = None
    """After which block it is written; by default after the one where it was read."""
    max_new_tokens: int = 12
    """The most tokens that are generated."""
    n_dummies: int = N_DUMMIES
    """Dummy queries per set of demonstrations, over which a vector is averaged."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.set_counts("n_dummies", "max_new_tokens")
        for text in self.invitations:
            if MARK not in text:
                choose(text, INVITATIONS, "invitation")
            elif text.count(MARK) > 1:
                raise InputError(f"invitation {text!r} marks several tokens; expected one {{}}")
        if not self.invitations or len(set(self.invitations)) < len(self.invitations):
            raise InputError(
                f"invitations {list(self.invitations)}; expected at least one, each once"
            )

    @property
    def texts(self) -> dict[str, str]:
        """The text of every invitation by name (a text of your own is its own name)."""
        return {name: INVITATIONS.get(name, name) for name in self.invitations}


@dataclass(frozen=True)
class PatchscopePlan:
    """All tasks with their episodes, and the words that name every task, in lower case."""

    tasks: Sequence[tuple[Task, Split]]
    naming: Mapping[str, frozenset[str]]
    settings: PatchscopeSettings


def plan(
    tasks: Tasks,
    settings: PatchscopeSettings,
    naming: Mapping[str, Sequence[str]] | None = None,
) -> PatchscopePlan:
    """Load the tasks and draw their demonstrations; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few pairs, or `naming` holds a text instead
            of a list.

    Example:
        >>> len(plan("antonyms", PatchscopeSettings(n_prompts=4)).tasks[0][1].test)
        4
    """
    s = settings
    drawn = [(task, s.draw(task, n_dummies=s.n_dummies)) for task in load_tasks(tasks)]
    return PatchscopePlan(drawn, naming_words(naming), s)
