"""Writes a sweep, finished or not, as one page with tables beside it."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from icl_mech.files import PlotlyJs
from icl_mech.plotting import tables
from icl_mech.plotting.page import embedded, html_table, write_page
from icl_mech.results import write_whole
from icl_mech.run_names import plain_name, step_of
from icl_mech.stats import Estimate, means
from icl_mech.sweep.gather import ACCURACIES, Gathered, gather
from icl_mech.sweep.plot import (
    depth_figure,
    layers_figure,
    ratio_figure,
    steps_figure,
    td_figure,
)
from icl_mech.sweep.result import Sweep

_PAGE = """
<style>.scroll th, .scroll td { white-space: nowrap; }
.missing td:last-child { white-space: normal; min-width: 22em; }
summary { cursor: pointer; margin: 1em 0; }</style>
<p>Cells: {{ states }}. A cell is one measure of one task, or of one set of tasks, on one model with
one seed. Figures are of every model's first seed, tables of all; numbers in full lie beside this
page, as {{ kinds }}.</p>
<div class="scroll">{{ status }}</div>
{% if not_done %}<h2>What is missing</h2>
<div class="scroll missing">{{ not_done }}</div>
{% if left_out %}<p class="quiet">and {{ left_out }} more; all are in the table of cells.</p>
{% endif %}{% endif %}
{% for note in notes %}<p class="quiet">{{ note }}</p>{% endfor %}
<h2>Models</h2>
<div class="scroll">{{ models }}</div>
{% for part in parts %}
<h2>{{ part.entry }}</h2>
{% for figure in part.figures %}{{ figure }}{% endfor %}
{% for name, table in part.tables.items() %}<h3>{{ name }}</h3>
<div class="scroll">{{ table }}</div>{% endfor %}
<details{{ "" if part.figures else " open" }}><summary>{{ part.rows }}</summary>
<div class="scroll">{{ part.cells }}</div></details>
{% endfor %}
"""
#: The most rows of missing cells, and of a summary, that a page shows.
_MISSING, _MOST = 30, 300


def write_report(sweep: Sweep, path: str | Path, plotlyjs: PlotlyJs = "inline") -> Path:
    """Write the page, and the numbers of every measure beside it, each file whole or not at all.

    Args:
        sweep: finished or not.
        path: of the page (`.html`); tables are called `<stem>-<measure>` with their suffix.
        plotlyjs: where the page gets plotly.js from, see `icl_mech.plotting.export`.

    Raises:
        InputError: where a file cannot be written, or a result is damaged.
    """
    path = Path(path)
    cells, cards = sweep.cells(), model_cards(sweep)
    open_cells = cells[cells["state"] != "done"][
        ["model", "entry", "task", "seed", "state", "error"]
    ]
    states = ", ".join(f"{n:,} {s}" for s, n in cells["state"].value_counts().items())
    sizes = {str(name): _size(n) for name, n in cards["weights"].items()}
    order = list(sizes)
    written = _write_tables(path, "cells", cells, cells) + _write_tables(
        path, "models", cards, cards
    )
    parts: list[dict[str, Any]] = []
    drawn = 0
    for entry in dict.fromkeys(cells["entry"]):
        found = gather(sweep, entry)
        if not len(found.full):
            continue
        figures = [
            embedded(figure, first=drawn + i == 0, plotlyjs=plotlyjs)
            for i, figure in enumerate(_figures(found, sizes))
        ]
        drawn += len(figures)
        tables_of = {name: _for_page(t) for name, t in _tables(found, order)}
        parts.append({"entry": entry, "figures": figures, "tables": tables_of, **_rows(found)})
        written += _write_tables(path, entry, found.full, found.narrow)
    measures = ", ".join(dict.fromkeys(cells["entry"]))
    return write_page(
        _PAGE,
        path,
        plotlyjs,
        heading=f"{measures} on {len(order)} models",
        states=states,
        status=_for_page(sweep.table().reset_index()),
        not_done=_for_page(open_cells.head(_MISSING)) if len(open_cells) else "",
        left_out=max(0, len(open_cells) - _MISSING),
        notes=[
            f"{n} cells were made by icl-mech {v}, another version than this"
            for v, n in sweep.folder.other_versions().items()
        ],
        models=_for_page(_cards_as_text(cards)),
        kinds=", ".join(dict.fromkeys(file.suffix for file in written)),
        parts=parts,
    )


def model_cards(sweep: Sweep) -> pd.DataFrame:
    """A table of the models, the largest first, with their properties, costs and progress.

    Columns: `architecture`, `weights` (their number), `layers`, `engine`, `dtype`, `device`,
    `load_seconds`, `seconds` (of all finished cells), `memory` (bytes at most), and the numbers of
    cells: `done`, `failed`, `missing`.
    """
    cells = sweep.cells()
    rows = {}
    for model, of in cells.groupby("model", sort=False):
        done = of[of["state"] == "done"]
        last = done.iloc[-1].to_dict() if len(done) else {}
        told = ("architecture", "weights", "layers", "engine", "dtype", "device", "load_seconds")
        rows[model] = {
            **{name: last.get(name) for name in told},
            "seconds": done["seconds"].sum() if len(done) else None,
            "memory": done["memory"].max() if len(done) else None,
            **{state: int((of["state"] == state).sum()) for state in ("done", "failed", "missing")},
        }
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")
    return frame.sort_values("weights", ascending=False, na_position="last", kind="stable")


def _figures(found: Gathered, sizes: Mapping[str, str]) -> Iterator[go.Figure]:
    """The figures of a measure; none if it has no figure that compares models."""
    order = list(sizes)
    if found.scans:
        scans = _in_order(found.scans, order)
        yield depth_figure(scans)
        yield ratio_figure(scans)
    if any(depths for of in found.maps.values() for depths in of.values()):
        yield layers_figure(_in_order(found.maps, order), sizes)
    if found.decodability:
        yield td_figure(pd.concat(found.decodability, ignore_index=True), found.r_squared)
    for results in found.variability.values():
        from icl_mech.variability.models_plot import variability_models_figure

        yield variability_models_figure(results)
    for what, curves in _over_steps(found).items():
        yield steps_figure(curves, what)


def _in_order(of: Mapping[str, Any], order: list[str]) -> dict[str, Any]:
    return {name: of[name] for name in order if name in of}


def _over_steps(found: Gathered) -> dict[str, dict[str, dict[int, Estimate]]]:
    """The curves of models that are checkpoints of one training, by the name that they share."""
    curves: dict[str, dict[str, dict[int, Estimate]]] = {}

    def add(model: str, name: str, estimate: Callable[[], Estimate]) -> None:
        step = step_of(model)
        if step is not None:
            shared = model.partition("@")[0] if "@" in model else "one training"
            curves.setdefault(shared, {}).setdefault(name, {})[step] = estimate()

    for model, scans in found.scans.items():
        add(model, "few-shot accuracy", lambda s=scans: s.mean("regular"))  # type: ignore[misc]
        add(model, "accuracy with θ", lambda s=scans: s.mean("hypothesis"))  # type: ignore[misc]
    for rows in found.decodability:
        values = rows["td"].to_numpy(dtype=float)[:, None]
        add(str(rows["model"].iloc[0]), "task decodability", lambda v=values: means(v).at(0))  # type: ignore[misc]
    for model, maps in found.maps.items():
        for what, depths in maps.items():
            if depths:
                values = pd.Series(depths).to_numpy()[:, None]
                add(model, f"depth of {what}", lambda v=values: means(v).at(0))  # type: ignore[misc]
    return {shared: of for shared, of in curves.items() if max(len(c) for c in of.values()) > 1}


def _tables(found: Gathered, order: list[str]) -> Iterator[tuple[str, pd.DataFrame]]:
    """The page's tables of means and R² per model, with their titles."""
    if found.scans:
        rows = {
            model: {
                **{name: _said(of.mean(name)) for name in ACCURACIES},
                "hypothesis / regular": _said(of.ratio()),
                "tasks": str(len(of.theta)),
            }
            for model, of in _in_order(found.scans, order).items()
        }
        yield "Means over tasks", _by_model(rows)
    if found.r_squared:
        squared = {m: {"R² of TD and accuracy": _said(e)} for m, e in found.r_squared.items()}
        yield "Does TD predict accuracy?", _by_model(_in_order(squared, order))


def _by_model(rows: Mapping[str, Mapping[str, str]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(dict(rows), orient="index").rename_axis("model").reset_index()


def _rows(found: Gathered) -> dict[str, Any]:
    """The summaries of a measure's cells for a page, and their title."""
    n = len(found.narrow)
    name = f"All {n} rows" if n <= _MOST else f"The first {_MOST} rows of {n:,}"
    shown = _with_intervals(found.narrow.head(_MOST))
    if "task" in shown and (shown["subject"] == shown["task"]).all():
        shown = shown.drop(columns="subject")
    return {"rows": f"{name}, by cell", "cells": _for_page(_text(shown))}


def _for_page(frame: pd.DataFrame) -> Any:
    return html_table(frame.rename_axis(columns=None), index=False)


def _cards_as_text(cards: pd.DataFrame) -> pd.DataFrame:
    """The model cards as text, with units."""
    said = _text(cards.drop(columns=["weights", "memory", "load_seconds", "seconds"]))
    said.insert(1, "size", cards["weights"].map(_size))
    known = {
        "loaded in s": ("load_seconds", 1.0),
        "cells took s": ("seconds", 1.0),
        "GB at most": ("memory", 1e9),
    }
    for name, (column, unit) in known.items():
        values = pd.to_numeric(cards[column]) / unit
        said.insert(list(said).index("done"), name, values.map("{:,.2f}".format))
    return said.replace("nan", "–").reset_index()


def _size(weights: Any) -> str:
    """A number of weights in short form.

    >>> _size(268_098_176), _size(None)
    ('268M', '–')
    """
    if weights is None or weights != weights:
        return "–"
    for unit, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if weights >= unit:
            return f"{weights / unit:.3g}{name}"
    return f"{weights:.0f}"


def _said(e: Estimate) -> str:
    return "–" if e.value != e.value else str(e)


def _with_intervals(frame: pd.DataFrame) -> pd.DataFrame:
    """Put each number and the ends of its interval into one column, as text."""
    said = frame.copy()
    for name in frame:
        ends = [f"{name}_low", f"{name}_high"]
        if all(end in frame for end in ends):
            columns = [_text(frame[[c]])[c] for c in (name, *ends)]
            said[name] = [
                value if "–" in (low, high) else f"{value} [{low}, {high}]"
                for value, low, high in zip(*columns, strict=True)
            ]
            said = said.drop(columns=ends)
    return said


def _text(frame: pd.DataFrame) -> pd.DataFrame:
    """A table as text: numbers are shortened, and unknown values are a dash."""

    def said(value: Any) -> str:
        if value is None or value != value:
            return "–"
        if isinstance(value, float):
            return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
        return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)

    return frame.astype(object).map(said)


def _write_tables(path: Path, name: str, full: pd.DataFrame, narrow: pd.DataFrame) -> list[Path]:
    """Write `full` as CSV (and Parquet, if pyarrow is there), `narrow` as LaTeX and Markdown."""
    if full.index.name is not None:
        full, narrow = full.reset_index(), narrow.reset_index()
    texts = _text(_with_intervals(narrow))
    texts = texts.set_index(texts.columns[0])
    writers: dict[str, Callable[[Path], object]] = {
        ".csv": lambda to: to.write_text(tables.csv(full), encoding="utf-8"),
        ".tex": lambda to: to.write_text(tables.latex(texts), encoding="utf-8"),
        ".md": lambda to: to.write_text(f"{tables.markdown(texts)}\n", encoding="utf-8"),
    }
    try:
        import pyarrow  # noqa: F401  # what pandas writes Parquet with
    except ImportError:
        pass
    else:
        plain = full.map(lambda v: str(v) if isinstance(v, list | tuple | dict) else v)
        writers[".parquet"] = plain.to_parquet
    stem = f"{path.stem}-{plain_name(name)}"
    return [write_whole(path.with_name(f"{stem}{s}"), write) for s, write in writers.items()]
