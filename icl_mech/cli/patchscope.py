"""Options of `icl-mech patchscope`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat
from icl_mech.patchscope.plan import PatchscopePlan, PatchscopeSettings, plan

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class PatchscopeCommand(Command):
    """Learn what the model says of a task vector that is written into a prompt which asks for it.

    How often does it name the task, or give an answer (Ghandeharioun et al. 2024)?
    Example: icl-mech patchscope --tasks country_capital antonyms --invitations repeat kind
    """

    what = "patchscope"
    settings: Flat[PatchscopeSettings] = field(default_factory=PatchscopeSettings)

    def plan(self) -> PatchscopePlan:
        return plan(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.patchscope.run import measure

        return measure(model, plan, self.progress)
