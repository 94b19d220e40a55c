"""Options of `icl-mech vectors`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat
from icl_mech.vector_methods.plan import ComparePlan, CompareSettings, plan_compare

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class VectorsCommand(Command):
    """Get task vectors in every way that was published, and compare them on the same prompts.

    Read, summed from heads, learned through the frozen model, and more; scored by first tokens,
    whole answers and the distance to the few-shot prompt, with controls and what each cost.
    Example: icl-mech vectors --tasks en_es present_past --methods theta learned
    """

    what = "vectors"
    settings: Flat[CompareSettings] = field(default_factory=CompareSettings)

    def plan(self) -> ComparePlan:
        return plan_compare(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.vector_methods.run import measure_compare

        return measure_compare(model, plan, self.progress)
