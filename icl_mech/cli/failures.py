"""Options of `icl-mech failures`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flag, Flat, TaskOptions
from icl_mech.errors import InputError
from icl_mech.failures.plan import FailurePlan, FailureSettings, plan
from icl_mech.tasks import list_failures

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result

#: Stands for all failure tasks.
ALL = "failures"


@dataclass(frozen=True, kw_only=True)
class FailuresCommand(Command):
    """Learn what one task vector cannot do, which errors it makes, and what several vectors repair.

    On tasks whose answer depends on the prompt's own demonstrations; ordinary tasks can be named
    beside them. Example: icl-mech failures --tasks lookup country_capital --no-repairs
    """

    what = "failures"
    settings: Flat[FailureSettings] = field(default_factory=FailureSettings)
    no_repairs: Flag = False
    """The vector alone; much faster."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=(ALL,)))

    def plan(self) -> FailurePlan:
        settings = self.settings
        if self.no_repairs:
            if settings.repairs != FailureSettings().repairs:
                raise InputError("--repairs does not go with --no-repairs; expected only one")
            settings = replace(settings, repairs=())
        named = [list_failures() if name == ALL else [name] for name in self.tasks.names]
        return plan([name for names in named for name in names], settings)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        from icl_mech.failures.run import measure

        return measure(model, plan, self.progress)
