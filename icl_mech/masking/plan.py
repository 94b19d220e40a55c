"""The settings of `context_masking`, its masks, and the prompts of every task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from icl_mech.errors import InputError, choose
from icl_mech.prompts import PromptSettings, Split
from icl_mech.stats.curves import Rule
from icl_mech.tasks import Task, Tasks, load_tasks

#: All tokens after the demonstrations.
_AFTER = ("query*", "final_arrow")


@dataclass(frozen=True)
class Mask:
    """A mask: the tokens that it hides, and the tokens that it hides them from.

    Attributes:
        hidden, at: roles, as `Knockout` takes them.
        said: description for people.
    """

    hidden: str
    at: tuple[str | int, ...]
    said: str


#: Every mask by name.
MASKS: Mapping[str, Mask] = {
    "demonstrations": Mask("demo_*", _AFTER, "demonstrations, from query and last token"),
    "last_token": Mask("demo_*", (-1,), "demonstrations, from the last token only"),
    "labels": Mask("demo_*_y", _AFTER, "labels, from query and last token"),
    "inputs": Mask("demo_*_x", _AFTER, "inputs, from query and last token"),
    "arrows": Mask("demo_*_arrow", _AFTER, "arrows, from query and last token"),
}


@dataclass(frozen=True, kw_only=True)
class MaskingSettings(PromptSettings):
    """Settings of `context_masking`.

    Example:
        >>> MaskingSettings(n_prompts=4, masks=("labels",)).masks
        ('labels',)
    """

    n_prompts: int = 25
    """Test prompts per task."""
    masks: tuple[str, ...] = tuple(MASKS)
    """What is hidden: demonstrations, last_token (the same, from the last token only), labels,
    inputs, arrows."""
    rule: Rule = field(default_factory=Rule)
    """When a curve counts as risen, and when its layer is named."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for mask in self.masks:
            choose(mask, MASKS, "mask")
        if not self.masks or len(set(self.masks)) < len(self.masks):
            raise InputError(
                f"masks {list(self.masks)}; expected at least one, each once: {', '.join(MASKS)}"
            )

    def recorded(self) -> dict[str, Any]:
        """What provenance records: every setting by name."""
        return super().recorded() | {"rule": dict(vars(self.rule))}


@dataclass(frozen=True)
class MaskingPlan:
    """All tasks with their episodes."""

    tasks: Sequence[tuple[Task, Split]]
    settings: MaskingSettings


def plan(tasks: Tasks, settings: MaskingSettings) -> MaskingPlan:
    """Load the tasks and draw their prompts; no model is needed.

    Raises:
        InputError: if a task does not exist or has too few pairs.

    Example:
        >>> len(plan("antonyms", MaskingSettings(n_prompts=4)).tasks[0][1].test)
        4
    """
    return MaskingPlan([(task, settings.draw(task)) for task in load_tasks(tasks)], settings)
