"""Options of `icl-mech transfer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat, TaskOptions
from icl_mech.transfer.plan import TransferPlan, TransferSettings, plan_transfer

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class TransferCommand(Command):
    """Write vectors that were formed under one template, or at one token, under another.

    Accuracy between formats (arrow, Q:/A:, a sentence, Spanish words, with and without an
    instruction) and between tokens, beside how often the same vectors' task can be decoded.
    Example: icl-mech transfer --tasks countries --formats arrow qa
    """

    what = "transfer"
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("countries",)))
    settings: Flat[TransferSettings] = field(default_factory=TransferSettings)

    def plan(self) -> TransferPlan:
        return plan_transfer(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.transfer.run import measure_transfer

        return measure_transfer(model, plan, self.progress)
