"""Options of `icl-mech conflict`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat, TaskOptions
from icl_mech.conflict.plan import ConflictPlan, ConflictSettings, parse_pair, plan
from icl_mech.errors import InputError

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class ConflictCommand(Command):
    """Learn which task is answered when a few-shot prompt shows one and the vector is another's.

    Hendel et al. 2023. By default the five pairs of the paper, with its numbers beside ours.
    --pairs takes others, --tasks all ordered pairs of several tasks (those without a conflict
    are left out, with the reason).
    Example: icl-mech conflict --pairs next_letter:to_upper en_es:en_fr
    """

    what = "conflict"
    settings: Flat[ConflictSettings] = field(default_factory=ConflictSettings)
    pairs: tuple[str, ...] = ()
    """Pairs, each the prompt's task, a colon, and the injected task: next_letter:to_upper."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=()))

    def plan(self) -> ConflictPlan:
        if self.pairs and self.tasks.task:
            raise InputError("--pairs and --tasks at once; expected one of them (see --help)")
        if self.pairs:
            return plan([parse_pair(text) for text in self.pairs], self.settings)
        return plan(self.tasks.load() if self.tasks.task else None, self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.conflict.run import measure

        return measure(model, plan, self.progress)
