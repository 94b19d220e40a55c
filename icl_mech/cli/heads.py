"""Options of `icl-mech heads`, `ablate` and `function-vectors`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from icl_mech.cli.options import Command, Flat
from icl_mech.heads.plan import (
    AblationSettings,
    AttributionSettings,
    FunctionVectorSettings,
    HeadsPlan,
    plan_heads,
)

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class HeadsCommand(Command):
    """Learn which attention heads carry the task: a map of all heads by three methods.

    Exact average indirect effect (Todd et al. 2023), attribution patching, and direct logit
    attribution. Example: icl-mech heads --tasks country_capital --n-prompts 20 --n-clean 25
    """

    what = "heads"
    settings: Flat[AttributionSettings] = field(default_factory=AttributionSettings)

    def plan(self) -> HeadsPlan:
        return plan_heads(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.heads.attribution import measure_attribution

        return measure_attribution(model, plan, self.progress)


@dataclass(frozen=True, kw_only=True)
class AblateCommand(Command):
    """Learn whether the task needs its top heads: accuracy without them, and without random ones.

    Example: icl-mech ablate --tasks country_capital --counts 1 3 10 --off other_tasks
    """

    what = "ablation"
    settings: Flat[AblationSettings] = field(default_factory=AblationSettings)

    def plan(self) -> HeadsPlan:
        return plan_heads(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.heads.ablation import measure_ablation

        return measure_ablation(model, plan, self.progress)


@dataclass(frozen=True, kw_only=True)
class FunctionVectorsCommand(Command):
    """Learn whether a few heads' mean output brings the task into prompts that do not show it.

    Todd et al. 2023; θ of Hendel et al. 2023 and controls are injected beside it, at every layer.
    Example: icl-mech function-vectors --tasks antonyms --n-heads 2 10 --scale 1
    """

    what = "function_vectors"
    settings: Annotated[Flat[FunctionVectorSettings], tyro.conf.FlagCreatePairsOff] = field(
        default_factory=FunctionVectorSettings
    )

    def plan(self) -> HeadsPlan:
        return plan_heads(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.heads.vectors import measure_function_vectors

        return measure_function_vectors(model, plan, self.progress)
