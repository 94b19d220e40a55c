"""Options of `icl-mech variability`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from icl_mech.cli.options import (
    Command,
    Flat,
    TaskOptions,
    target,
)
from icl_mech.cli.output import Writers, deliver, printing
from icl_mech.layers import check_layer
from icl_mech.variability.plan import VariabilityPlan, VariabilitySettings, plan

if TYPE_CHECKING:
    from icl_mech.model import HookedModel
    from icl_mech.variability import VectorVariability

#: One task per category.
DEFAULT = ("next_letter", "es_en", "present_gerund", "country_capital")


@dataclass(frozen=True, kw_only=True)
class VariabilityCommand(Command):
    """Learn how far task vectors from different demonstrations are apart, within and between tasks.

    Hendel et al. 2023. Cosine distances at every layer, their separation (silhouette), and the
    accuracy of every vector; several --n-shots show how these move with the demonstrations.
    Example: icl-mech variability --tasks antonyms es_en --n-shots 1 5 10
    """

    what = "variability"
    settings: Flat[VariabilitySettings] = field(default_factory=VariabilitySettings)
    projection: Literal["pca", "tsne", "umap"] = "pca"
    """How vectors are shown in the plane; umap needs umap-learn."""
    form: Literal["raw", "centred"] = "raw"
    """Which distances the figure shows: of vectors as they are, or minus the mean of all."""
    layer: int | None = None
    """Of the plane and the histograms; by default the best on dev vectors."""
    also: tuple[str, ...] = ()
    """More models to compare with on the same tasks, by relative depth."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=DEFAULT))

    def plan(self) -> VariabilityPlan:
        from icl_mech.stats.projection import check_projection

        check_projection(self.projection)
        return plan(self.tasks.load(), self.settings)

    def measure(self, model: HookedModel, plan: Any) -> VectorVariability:
        from icl_mech.variability.run import measure

        return measure(model, plan, self.progress)

    def run(self) -> None:
        """Plan once, measure every model, and compare them where there are several."""
        drawn = self.plan()
        out = target(self)
        models = self.models.several(self.also)
        from icl_mech.model import check_layer_of

        check_layer_of(self.models.model, self.layer)
        results = []
        for options in models:
            model = options.load()
            if self.layer is not None and options is models[0]:
                check_layer(self.layer, model.n_layers)
            results.append(self.measure(model, drawn))
            if self.also:  # saved now, in case a later model fails
                results[-1].save(_data(out, len(results) - 1))
        first, *others = results
        figure = first.plot(self.layer, method=self.projection, form=self.form)
        compared = self._compared(out, first, others) if others else None
        deliver(first, out, self.output, figure, compared)

    def _compared(
        self, out: Path, first: VectorVariability, others: list[VectorVariability]
    ) -> Writers:
        """The other models' data, and the figure of all models."""
        from icl_mech.plotting import export
        from icl_mech.variability.models_plot import variability_models_figure

        def draw() -> Path:
            figure = variability_models_figure([first, *others], self.form)
            path = out.with_stem(f"{out.stem}-models")
            return export(figure, path, plotlyjs=self.output.plotlyjs)

        writers: dict[str, Callable[[], Path]] = {}
        for i, result in enumerate(others, 1):
            if not self.output.json:
                with printing():
                    print(f"{result}\n")
            writers[f"data_{i}"] = partial(result.save, _data(out, i))
        return {**writers, "models": draw}


def _data(out: Path, i: int) -> Path:
    """The path of a model's data, beside the figure; the first model's has the figure's name."""
    return out.with_name(f"{out.stem}-{i}.nc") if i else out.with_suffix(".nc")
