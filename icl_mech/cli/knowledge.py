"""Options of `icl-mech knowledge`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat
from icl_mech.knowledge.plan import KnowledgePlan, KnowledgeSettings, plan_knowledge

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class KnowledgeCommand(Command):
    """Contradict in the prompt what the model knows: which answer wins, and from which layer on?

    logit(shown) - logit(known) after right and contradicting demonstrations, by layer, by head,
    and with task vectors in place.
    Example: icl-mech knowledge --tasks country_capital --methods theta
    """

    what = "knowledge"
    settings: Flat[KnowledgeSettings] = field(default_factory=KnowledgeSettings)

    def plan(self) -> KnowledgePlan:
        return plan_knowledge(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.knowledge.run import measure_knowledge

        return measure_knowledge(model, plan, self.progress)
