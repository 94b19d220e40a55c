"""Options of `icl-mech progressive`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat
from icl_mech.progressive.plan import ProgressivePlan, ProgressiveSettings, plan_progressive

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class ProgressiveCommand(Command):
    """Generate the first answer tokens with demonstrations and the others without: what is lost?

    Distance to the few-shot prompt token by token, whole answers and tokens per second against the
    number of first tokens, with nothing, the separator's states or a vector in their place (PICA).
    Example: icl-mech progressive --tasks present_past --methods theta
    """

    what = "progressive"
    settings: Flat[ProgressiveSettings] = field(default_factory=ProgressiveSettings)

    def plan(self) -> ProgressivePlan:
        return plan_progressive(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.progressive.run import measure_progressive

        return measure_progressive(model, plan, self.progress)
