"""Options of `icl-mech finetune`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_mech.cli.options import Command, Flat, TaskOptions, target
from icl_mech.cli.output import deliver
from icl_mech.errors import InputError
from icl_mech.finetune.plan import FinetuneSettings, Plan, plan
from icl_mech.run_names import run_name

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.results import Result


@dataclass(frozen=True, kw_only=True)
class FinetuneCommand(Command):
    """Train adapters on some blocks: does it help to tune where the task is encoded, or decoded?

    Finetuning on a family's few-shot prompts (Han et al. 2024). Checkpoints go into a folder, and
    any question runs on one of them with --adapter; the same command goes on where a killed run
    stopped.
    Example: icl-mech finetune --tasks bitwise --blocks first
    """

    what = "finetune"
    settings: Flat[FinetuneSettings] = field(default_factory=FinetuneSettings)
    folder: Path | None = None
    """For checkpoints; by default in figures/, named as the figure."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("pos",)))

    def plan(self) -> Plan:
        self._check_model()
        return plan(self.tasks.names, self.settings)

    def _check_model(self) -> None:
        """Refuse what a model cannot be trained with.

        Raises:
            InputError: naming the option.
        """
        if self.models.adapter is not None:
            raise InputError(
                "--adapter with finetune, which trains an adapter of its own; expected a whole "
                "model: merge the adapter into it first (peft: merge_and_unload)"
            )
        if self.models.engine != "auto":
            raise InputError(
                f"--engine {self.models.engine} with finetune; expected none: it makes no edits"
            )
        if self.models.dtype != "float32":
            raise InputError(
                f"--dtype {self.models.dtype} with finetune; expected float32, in which it trains"
            )

    def measure(self, model: HookedModel, plan: Any) -> Result:
        raise InputError("finetune loads its own model; expected run()")

    def run(self) -> None:
        """Plan, train, and write and print what was found."""
        drawn, out = self.plan(), target(self)
        folder = self.folder or Path("figures") / run_name(self, self.what)
        from icl_mech.finetune.run import measure

        print(f"training on {self.models.model} in {folder}", file=sys.stderr, flush=True)
        result = measure(
            self.models.model,
            drawn,
            folder,
            self.progress,
            device=self.models.device,
            trust_remote_code=self.models.trust_remote_code,
            sink=self.models.sink,
        )
        deliver(result, out, self.output)
