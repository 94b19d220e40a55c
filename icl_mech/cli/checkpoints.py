"""Options of `icl-mech checkpoints`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from icl_mech.checkpoints.plan import Checkpoint, CheckpointSettings, order_checkpoints
from icl_mech.cli.options import Command, Flat, ModelOptions, TaskOptions, target
from icl_mech.cli.output import deliver
from icl_mech.errors import InputError
from icl_mech.localize.plan import MapPlan, plan_map

if TYPE_CHECKING:
    from icl_mech.checkpoints import Checkpoints as Result
    from icl_mech.model import HookedModel


@dataclass(frozen=True, kw_only=True)
class CheckpointsCommand(Command):
    """Learn when in training a model encodes tasks, and when it solves them in context.

    Every checkpoint is measured as by localize, on the same prompts (Han et al. 2024), and kept in
    a folder: after an interrupt, the same command goes on where it stopped.
    Example: icl-mech checkpoints --model org/name --revisions step1000 step4000 step16000
    """

    what = "checkpoints"
    settings: Annotated[Flat[CheckpointSettings], tyro.conf.FlagCreatePairsOff] = field(
        default_factory=CheckpointSettings
    )
    revisions: tuple[str, ...] = ()
    """Revisions of --model on the hub, with their step in the name: step1000 step2000 ..."""
    sources: Annotated[tuple[str, ...], tyro.conf.arg(name="models")] = ()
    """Instead of --model and --revisions: folders or hub names, with their step in the name."""
    steps: tuple[int, ...] = ()
    """Steps of the revisions or models, in their order, where names do not say them."""
    folder: Path | None = None
    """Where finished checkpoints are kept; by default beside the figure."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("countries",)))

    @property
    def named(self) -> tuple[str, ...]:
        """The models, as `load_model` takes them.

        Raises:
            InputError: where there are none, or they are named in both ways.
        """
        if bool(self.revisions) == bool(self.sources):
            raise InputError(
                "expected either --revisions (of --model) or --models: the checkpoints to follow"
            )
        if self.revisions:
            return tuple(f"{self.models.model}@{revision}" for revision in self.revisions)
        if self.models.model != ModelOptions().model:
            raise InputError("--model beside --models; expected one of them")
        return self.sources

    def plan(self) -> MapPlan:
        return plan_map(self.tasks.load(), self.settings)

    def order(self) -> list[Checkpoint]:
        """The checkpoints, the earliest first."""
        return order_checkpoints(self.named, self.steps or None)

    def measure(self, model: HookedModel, plan: Any) -> Result:
        raise NotImplementedError("it has several models: run loads one after another")

    def run(self) -> None:
        """Plan, measure every checkpoint, and write and print what was found."""
        ordered, plan = self.order(), self.plan()
        out = target(self)
        folder = self.folder or out.with_name(f"{out.stem}-runs")
        from icl_mech.checkpoints.run import measure_checkpoints
        from icl_mech.model import check_source
        from icl_mech.plotting.export import check_writable
        from icl_mech.sweep.folder import MANIFEST

        for name in self.named:
            check_source(name)
        check_writable(folder / MANIFEST)

        def load(name: Any) -> HookedModel:
            return replace(self.models, model=str(name)).load()

        loaded = {"dtype": self.models.dtype, "sink": self.models.sink}
        found = measure_checkpoints(ordered, plan, load, loaded, folder, self.progress)
        deliver(found, out, self.output, also={"runs": lambda: folder})
