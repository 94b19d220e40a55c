"""Options of `icl-mech classify`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.classification.plan import LabelPlan, LabelSettings, plan_labels
from icl_mech.cli.options import Command, Flat, TaskOptions

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class ClassifyCommand(Command):
    """Score a task with a few labels class by class, among all tokens and among the labels.

    Balanced prompts of any file of texts and labels; few-shot, zero-shot, and with task vectors.
    Example: icl-mech classify --tasks sentences/topic --n-shots 10 --methods theta
    """

    what = "classify"
    tasks: Flat[TaskOptions] = field(
        default_factory=lambda: TaskOptions(task=("sentences/sentiment",))
    )
    settings: Flat[LabelSettings] = field(default_factory=LabelSettings)

    def plan(self) -> LabelPlan:
        return plan_labels(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.classification.run import measure_labels

        return measure_labels(model, plan, self.progress)
