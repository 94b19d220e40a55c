"""Options of `icl-mech masking`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat
from icl_mech.masking.plan import MaskingPlan, MaskingSettings, plan

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class MaskingCommand(Command):
    """Learn by which layer the demonstrations have been read.

    From a block on, later tokens no longer attend to them (Sia et al. 2024): what is left?
    Example: icl-mech masking --tasks country_capital antonyms --masks demonstrations labels
    """

    what = "masking"
    settings: Flat[MaskingSettings] = field(default_factory=MaskingSettings)

    def plan(self) -> MaskingPlan:
        return plan(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.masking.run import measure

        return measure(model, plan, self.progress)
