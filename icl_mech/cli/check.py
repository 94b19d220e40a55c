"""Options of `icl-mech check`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from icl_mech.check.plan import CheckPlan, CheckSettings, plan
from icl_mech.cli.options import Flat, ModelOptions, PrintOptions, TaskOptions, as_meant
from icl_mech.cli.output import plain_rows, printing
from icl_mech.errors import InputError

if TYPE_CHECKING:
    from icl_mech.check import ModelSupport


@dataclass(frozen=True, kw_only=True)
class CheckCommand:
    """Learn whether a model is supported: do edits act in it, and alike on both engines?

    Says which engine runs the model and why, which sites it has and what its blocks see, and tries
    edits on few-shot prompts. Exit code 1 where a check failed.
    Example: icl-mech check EleutherAI/pythia-70m
    """

    named: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="MODEL")] = None
    """The model; the same as --model."""
    settings: Flat[CheckSettings] = field(default_factory=CheckSettings)
    tasks: Flat[TaskOptions] = field(default_factory=TaskOptions)
    models: Flat[ModelOptions] = field(default_factory=ModelOptions)
    output: Flat[PrintOptions] = field(default_factory=PrintOptions)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", as_meant(self.settings))

    def plan(self) -> CheckPlan:
        """The prompts that are run."""
        return plan(self.tasks.load(), self.settings)

    def model(self) -> ModelOptions:
        """Which model, named in either way.

        Raises:
            InputError: where it is named in both.
        """
        if self.named is None:
            return self.models
        if self.models.model != ModelOptions().model:
            raise InputError(f"{self.named!r} beside --model {self.models.model}; expected one")
        return replace(self.models, model=self.named)

    def run(self) -> None:
        """Plan, load the model, check it, and print what was found.

        Raises:
            SystemExit: with code 1, where a check failed.
        """
        options, drawn = self.model(), self.plan()
        from icl_mech.check.run import measure

        found = measure(options.load(), drawn, not self.output.no_progress)
        with printing():
            print(json.dumps(_as_json(found)) if self.output.json else found)
        if not found.passed:
            raise SystemExit(1)


def _as_json(found: ModelSupport) -> dict[str, Any]:
    """The result as one object; NaN as None."""
    return {
        "passed": found.passed,
        "summary": plain_rows(found.to_frame()),
        "facts": asdict(found.facts),
    }
