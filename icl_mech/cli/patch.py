"""Options of `icl-mech scan`, `positions`, `components` and `mean-patching`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat, TaskOptions
from icl_mech.patch.means_plan import MeanPlan, MeanSettings, plan_means
from icl_mech.patch.positions_plan import (
    ComponentSettings,
    PositionPlan,
    PositionSettings,
    plan_positions,
)
from icl_mech.patch.scan_plan import ScanPlan, ScanSettings, plan_scan

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class ScanCommand(Command):
    """Learn after which layers a task vector works: θ injected at every layer, with controls.

    Hendel et al. 2023. Example: icl-mech scan --tasks country_capital antonyms --n-prompts 50
    """

    what = "layer_scan"
    settings: Flat[ScanSettings] = field(default_factory=ScanSettings)
    other_task: str | None = None
    """Whose θ is the control; by default antonyms, or, for a linguistic task, country_capital."""

    def plan(self) -> ScanPlan:
        return plan_scan(self.tasks.load(), self.settings, self.other_task)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.patch.scan import measure_scan

        return measure_scan(model, plan, self.progress)


@dataclass(frozen=True, kw_only=True)
class PositionsCommand(Command):
    """Learn at which tokens and layers the residual stream holds what the answer depends on.

    Activations are patched between clean and corrupted few-shot prompts (Meng et al. 2022).
    Example: icl-mech positions --tasks country_capital --corruption query
    """

    what = "position_scan"
    settings: Flat[PositionSettings] = field(default_factory=PositionSettings)
    other_task: str | None = None
    """Whose demonstrations corrupt, with --corruption task; by default antonyms, or, for a
    linguistic task, country_capital."""

    def plan(self) -> PositionPlan:
        # Single heads are patched at the final arrow only: all tokens would take far longer.
        return plan_positions(
            self.tasks.load(), self.settings, self.other_task, head_roles="final_arrow"
        )

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.patch.positions import measure_positions

        return measure_positions(model, plan, self.progress)


@dataclass(frozen=True, kw_only=True)
class ComponentsCommand(PositionsCommand):
    """Learn which attention blocks, MLPs and heads write what the answer depends on.

    Attention and MLPs are patched at every token, single heads at the final arrow.
    Example: icl-mech components --tasks antonyms --corruption task
    """

    what = "component_scan"
    settings: Flat[ComponentSettings] = field(default_factory=ComponentSettings)


@dataclass(frozen=True, kw_only=True)
class MeanPatchingCommand(Command):
    """Learn whether answers follow a task's mean activation that is written into other prompts.

    Han et al. 2024, section 5. Example: icl-mech mean-patching --tasks verbs --layers 6 9 12
    """

    what = "mean_patching"
    settings: Flat[MeanSettings] = field(default_factory=MeanSettings)
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("verbs",)))

    def plan(self) -> MeanPlan:
        from icl_mech.model import check_layer_of

        for layer in self.settings.layers or ():
            check_layer_of(self.models.model, layer)
        return plan_means(self.tasks.names, self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.patch.means import measure_means

        return measure_means(model, plan, self.progress)
