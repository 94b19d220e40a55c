"""Options of `icl-mech localize`, and the page that it writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from icl_mech.cli.options import (
    Command,
    Flat,
    TaskOptions,
    target,
)
from icl_mech.cli.output import deliver_all, rows
from icl_mech.decoder.plan import DecoderPlan, DecoderSettings, plan as plan_decoder
from icl_mech.errors import InputError
from icl_mech.localize.plan import MapPlan, MapSettings, plan_map
from icl_mech.run_names import model_label

if TYPE_CHECKING:
    from icl_mech.decoder import Decoder
    from icl_mech.localize import TaskMap
    from icl_mech.model import HookedModel


@dataclass(frozen=True, kw_only=True)
class LocalizeCommand(Command):
    """Learn at which layers a task is formed and decoded: five read-outs on one axis, as one page.

    Every read-out names its layers, with bootstrap intervals over queries; the page opens offline.
    Example: icl-mech localize --tasks countries --n-prompts 25 --also org/name
    """

    what = "task_map"
    settings: Annotated[Flat[MapSettings], tyro.conf.FlagCreatePairsOff] = field(
        default_factory=MapSettings
    )
    also: tuple[str, ...] = ()
    """More models to compare with on the same tasks, by relative depth."""
    decoder: bool = False
    """Also find the heads and MLPs that decode the vector, as `icl-mech decoder` does, with as many
    prompts and shots."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=("countries",)))

    def plan(self) -> MapPlan:
        return plan_map(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> TaskMap:
        from icl_mech.localize.run import measure_map

        return measure_map(model, plan, self.progress)

    def _decoder(self, model: HookedModel) -> Decoder:
        """Of the same tasks, on as many prompts."""
        from icl_mech.decoder.run import measure

        return measure(model, self._decoder_plan(), self.progress)

    def _decoder_plan(self) -> DecoderPlan:
        names = ("n_prompts", "n_shots", "seed", "n_dummies", "template", "leading_space")
        same = {name: getattr(self.settings, name) for name in (*names, "instruction")}
        return plan_decoder(self.tasks.load(), DecoderSettings(**same))

    def page(self) -> Path:
        """The path of the report; an error is raised now if it could not be written later."""
        page = target(self)
        if page.suffix != ".html":
            raise InputError(f"{page}: a report is a page; expected a name that ends in .html")
        return page

    def run(self) -> None:
        """Measure every model, and write one page and a file of data for each."""
        plan, page = self.plan(), self.page()
        if self.decoder:  # refuse what cannot work now, not after the map
            self._decoder_plan()
        names = (self.models.model, *self.also)
        data = [page.with_suffix(".nc")]
        data += [page.with_name(f"{page.stem}-{model_label(name)}.nc") for name in self.also]
        maps, decoders = [], []
        for models, path in zip(self.models.several(self.also), data, strict=True):
            model = models.load()
            maps.append(self.measure(model, plan))
            decoders.append(self._decoder(model) if self.decoder else None)
            if self.also:  # saved now, in case a later model fails
                maps[-1].save(path)
        from icl_mech.localize.page import task_map_report

        writers: dict[str, Callable[[], Path]] = {
            "report": lambda: task_map_report(maps, page, self.output.plotlyjs, decoders)
        }
        for i, (name, found, path) in enumerate(zip(names, maps, data, strict=True)):
            what = f"data_{model_label(name)}" if i else "data"
            writers[what] = partial(found.save, path)
        summary = [{"model": m.provenance["model"], **row} for m in maps for row in rows(m)]
        deliver_all(maps, summary, writers, self.output)
