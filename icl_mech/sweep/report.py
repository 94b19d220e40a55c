"""A sweep as one page, and as tables beside it; also of a sweep that is half-finished."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from icl_mech.files import PlotlyJs
from icl_mech.plotting import tables
from icl_mech.plotting.page import html_table, write_page
from icl_mech.results import write_whole

if TYPE_CHECKING:
    from icl_mech.sweep.result import Sweep

_PAGE = """
<p>{{ states }}. A cell is one measure of one task, or of one set of tasks, on one model with one
seed.</p>
<div class="scroll">{{ status }}</div>
{% if not_done %}<h2>What is missing</h2>
<div class="scroll">{{ not_done }}</div>{% endif %}
<h2>Models</h2>
<div class="scroll">{{ models }}</div>
{% for part in parts %}
<h2>{{ part.entry }}</h2>
<div class="scroll">{{ part.table }}</div>
{% endfor %}
"""


def write_report(sweep: "Sweep", path: str | Path, plotlyjs: PlotlyJs = "inline") -> Path:
    """Write the page, whole or not at all, and a file of numbers for every measure beside it."""
    path = Path(path)
    cells = sweep.cells()
    states = ", ".join(f"{n} cells {s}" for s, n in cells["state"].value_counts().items())
    parts = []
    for entry in dict.fromkeys(cells["entry"]):
        summary = sweep.summary(entry)
        if len(summary):
            _write_tables(summary, path.with_name(f"{path.stem}-{entry}"))
            parts.append({"entry": entry, "table": html_table(summary.round(3))})
    open_cells = cells[cells["state"] != "done"]
    return write_page(
        _PAGE,
        path,
        plotlyjs,
        heading="One sweep",
        states=states,
        status=html_table(sweep.table()),
        not_done=html_table(open_cells) if len(open_cells) else "",
        models=html_table(model_cards(cells)),
        parts=parts,
    )


def model_cards(cells: pd.DataFrame) -> pd.DataFrame:
    """One row per model."""
    return cells.groupby("model", sort=False)["state"].value_counts().unstack(fill_value=0)


def _write_tables(frame: pd.DataFrame, stem: Path) -> None:
    text = tables.csv(frame)
    write_whole(stem.with_name(f"{stem.name}.csv"), lambda to: to.write_text(text, "utf-8"))
