"""Options of `icl-mech answers`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.answers.plan import AnswerPlan, AnswerSettings, plan_answers
from icl_mech.cli.options import Command, Flat

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class AnswersCommand(Command):
    """Learn whether conclusions about task vectors change when whole answers are scored.

    Zero-shot, zero-shot with the task vector, and few-shot prompts go on greedily until the answer
    ends. First token, prefix, exact text and the probability of the whole answer are compared.
    Example: icl-mech answers --tasks country_capital present_past --n-prompts 25
    """

    what = "answers"
    settings: Flat[AnswerSettings] = field(default_factory=AnswerSettings)

    def plan(self) -> AnswerPlan:
        from icl_mech.model import check_layer_of

        plan = plan_answers(self.tasks.load(), self.settings)
        check_layer_of(self.models.model, self.settings.layer)
        return plan

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.answers.run import measure_answers

        return measure_answers(model, plan, self.progress)
