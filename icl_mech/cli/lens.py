"""Options of `icl-mech lens` and `vector-lens`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from icl_mech.cli.options import Command, Flat
from icl_mech.lens.plan import (
    LensPlan,
    LensSettings,
    VectorLensPlan,
    VectorLensSettings,
    plan_lens,
    plan_vectors,
)

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class LensCommand(Command):
    """Learn what the model would answer if it stopped after each layer: the logit lens.

    At every layer: the answer, the query, the most frequent answer and another task's answer.
    Example: icl-mech lens --tasks country_capital en_fr --roles query final_arrow
    """

    what = "lens"
    settings: Flat[LensSettings] = field(default_factory=LensSettings)
    other_task: str | None = None
    """Whose answers are rivals; by default a task that shares most inputs, if there is one."""

    def plan(self) -> LensPlan:
        return plan_lens(self.tasks.load(), self.settings, self.other_task)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.lens.run import measure_lens

        return measure_lens(model, plan, self.progress)


@dataclass(frozen=True, kw_only=True)
class VectorLensCommand(Command):
    """Learn what task vectors say when they are read through the unembedding.

    Do their top tokens name the task (Hendel et al. 2023)?
    Example: icl-mech vector-lens --tasks country_capital --layers 9 10 11 --only-words
    """

    what = "vocabulary"
    settings: Annotated[Flat[VectorLensSettings], tyro.conf.FlagCreatePairsOff] = field(
        default_factory=VectorLensSettings
    )

    def plan(self) -> VectorLensPlan:
        return plan_vectors(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.lens.vectors import measure_vectors

        return measure_vectors(model, plan, self.progress)
