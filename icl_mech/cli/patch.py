"""Options of `icl-mech scan`, `positions`, `components` and `mean-patching`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat, ModelOptions, OutputOptions, TaskOptions
from icl_mech.patch.scan_plan import ScanPlan, ScanSettings, plan_scan

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class Scan(Command):
    """Learn after which layers a task vector works: θ injected at every layer, with controls.

    Hendel et al. 2023. Example: icl-mech scan --tasks country_capital antonyms --n-prompts 50
    """

    what = "layer_scan"
    settings: Flat[ScanSettings] = field(default_factory=ScanSettings)
    other_task: str | None = None
    """Whose θ is the control; by default antonyms, or, for a linguistic task, country_capital."""
    tasks: Flat[TaskOptions] = field(default_factory=TaskOptions)
    models: Flat[ModelOptions] = field(default_factory=ModelOptions)
    output: Flat[OutputOptions] = field(default_factory=OutputOptions)

    def plan(self) -> ScanPlan:
        return plan_scan(self.tasks.load(), self.settings, self.other_task)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.patch.scan import measure_scan

        return measure_scan(model, plan, self.progress)
