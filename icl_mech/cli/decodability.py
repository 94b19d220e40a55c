"""Options of `icl-mech decodability`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flag, Flat, TaskOptions
from icl_mech.decodability.plan import DecodabilitySettings, Plan, plan

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class DecodabilityCommand(Command):
    """Learn at which layers the task can be read: do a prompt's nearest neighbours share its task?

    Task decodability (Han et al. 2024).
    Example: icl-mech decodability --tasks verbs --n-shots 1 4 10
    """

    what = "decodability"
    settings: Flat[DecodabilitySettings] = field(default_factory=DecodabilitySettings)
    layers: tuple[int, ...] | None = None
    """Blocks after which the stream is read; all by default."""
    no_probe: Flag = False
    """Fit no linear probe."""
    no_controls: Flag = False
    """Run no prompts with shuffled labels, and no queries alone."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("verbs",)))

    def plan(self) -> Plan:
        return plan(self.tasks.names, self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.decodability.run import measure

        return measure(
            model,
            plan,
            self.progress,
            layers=self.layers,
            probe=not self.no_probe,
            controls=not self.no_controls,
        )
