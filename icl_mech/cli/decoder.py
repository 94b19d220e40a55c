"""Options of `icl-mech decoder`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from icl_mech.cli.options import Command, Flat
from icl_mech.decoder.plan import DecoderPlan, DecoderSettings, plan

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class DecoderCommand(Command):
    """Learn which heads and MLPs decode a task vector, and how much of its effect they carry.

    Found on odd prompts by setting each back (necessity) and by path patching (sufficiency), tested
    on even ones beside random sets. Example: icl-mech decoder --tasks country_capital antonyms
    """

    what = "decoder"
    settings: Annotated[Flat[DecoderSettings], tyro.conf.FlagCreatePairsOff] = field(
        default_factory=DecoderSettings
    )

    def plan(self) -> DecoderPlan:
        return plan(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.decoder.run import measure

        return measure(model, plan, self.progress)
