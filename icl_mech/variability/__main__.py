"""`python -m icl_mech.variability`: how much does a task's vector vary?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from icl_mech.cli import (
    Flat,
    ModelOptions,
    OutputOptions,
    TaskOptions,
    Writers,
    check_models,
    deliver,
    load,
    printing,
    run,
    target,
)
from icl_mech.layers import check_layer
from icl_mech.prompts import shot_counts
from icl_mech.tasks import Task
from icl_mech.variability.settings import Settings, draw_all

if TYPE_CHECKING:
    from icl_mech.variability import VectorVariability


#: One task per category.
DEFAULT = ("next_letter", "es_en", "present_gerund", "country_capital")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How far task vectors from different demonstrations are apart (Hendel et al. 2023).

    Cosine distances within and between tasks at every layer, their separation (silhouette), and
    the accuracy of every vector; several --n-shots show how these move with the demonstrations.
    """

    n_vectors: int = 25
    """Vectors per task, each from another demonstration set."""
    n_shots: tuple[int, ...] = (5,)
    """Demonstrations per set; several numbers are measured on the same sets."""
    n_dev: int = 15
    """Further vectors per task on which the layer that is quoted is chosen."""
    projection: Literal["pca", "tsne", "umap"] = "pca"
    """How vectors are shown in the plane; umap needs umap-learn."""
    form: Literal["raw", "centred"] = "raw"
    """Which distances the figure shows: of vectors as they are, or minus the mean of all."""
    layer: int | None = None
    """Of the plane and the histograms; by default the best on dev vectors."""
    also: tuple[str, ...] = ()
    """More models to compare with on the same tasks, by relative depth."""
    tasks: Flat[TaskOptions] = field(default_factory=lambda: TaskOptions(task=DEFAULT))
    models: Flat[ModelOptions]
    output: Flat[OutputOptions]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    run("icl_mech.variability", Options, _main, argv)


def _main(options: Options) -> None:
    o = options
    tasks = o.tasks.load()
    # What would be refused, before a model is loaded.
    draw_all(
        tasks,
        Settings(
            o.n_vectors, shot_counts(o.n_shots), o.n_dev, 2, o.tasks.seed, o.tasks.template, None
        ),
    )
    from icl_mech.stats.projection import check_projection

    check_projection(o.projection)
    out = target(o, "variability")
    names = check_models(o.models, o.also)
    from icl_mech.model import check_layer_of

    check_layer_of(o.models.model, o.layer)
    results = []
    for name in names:
        results.append(_measure(o, tasks, name))
        if o.also:  # kept, whatever becomes of the others
            results[-1].save(_data(out, len(results) - 1))
    first, *others = results
    figure = first.plot(o.layer, method=o.projection, form=o.form)
    deliver(first, out, o.output, figure, _compared(o, out, first, others) if others else None)


def _measure(o: Options, tasks: list[Task], name: str) -> VectorVariability:
    model = load(replace(o.models, model=name))
    if o.layer is not None and name == o.models.model:
        check_layer(o.layer, model.n_layers)
    from icl_mech.variability import vector_variability

    return vector_variability(
        model,
        tasks,
        o.n_vectors,
        o.n_shots,
        o.tasks.seed,
        n_dev=o.n_dev,
        template=o.tasks.template,
        progress=not o.output.no_progress,
    )


def _data(out: Path, i: int) -> Path:
    """Where the data of a model go: beside the figure, the first's by the figure's own name."""
    return out.with_name(f"{out.stem}-{i}.nc") if i else out.with_suffix(".nc")


def _compared(
    o: Options, out: Path, first: VectorVariability, others: list[VectorVariability]
) -> Writers:
    """The other models' data, and the figure of all models."""
    from icl_mech.plotting import export
    from icl_mech.variability.models_plot import variability_models_figure

    def draw() -> Path:
        figure = variability_models_figure([first, *others], o.form)
        return export(figure, out.with_stem(f"{out.stem}-models"))

    writers: dict[str, Callable[[], Path]] = {}
    for i, result in enumerate(others, 1):
        if not o.output.json:
            with printing():
                print(f"{result}\n")
        writers[f"data_{i}"] = partial(result.save, _data(out, i))
    return {**writers, "models": draw}


if __name__ == "__main__":
    main()
