"""The main table as files: a page, numbers, LaTeX and Markdown."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from icl_mech.errors import choose
from icl_mech.files import PlotlyJs
from icl_mech.plotting import tables
from icl_mech.reference import hendel2023
from icl_mech.results import write_whole
from icl_mech.table.plan import MEAN
from icl_mech.table.result import ACCURACIES, TaskTable

_PAGE = """
<p><b>Baseline</b> is the query alone, <b>regular</b> the query after {{ p["n_shots"] }}
demonstrations, <b>hypothesis</b> the query alone with the task vector of the demonstrations
written over the residual stream of its last token, after the block (<i>layer</i>, counted from 0)
that is best on {{ p["n_dev"] }} dev prompts. {{ p["n_prompts"] }} test prompts per task; right is
the first token of an accepted answer. Brackets are 95 % intervals: over prompts, and in the last
row over tasks. Beside it, at the same layer: always the most frequent answer, and vectors from
shuffled labels, of another task, and random ones of the same norm.</p>
<div class="scroll">{{ table }}</div>
{{ figure }}
<h2>Published</h2>
<p class="quiet">{{ source }}. Means over 18 tasks, then single tasks where they are published.</p>
<div class="scroll">{{ published }}</div>
"""


def write_table(table: TaskTable, path: str | Path, plotlyjs: PlotlyJs = "inline") -> Path:
    """Write the table in the format that the suffix names, whole or not at all.

    `.html`: a page with figure, tables and caveats that opens offline. `.csv`: all numbers.
    `.tex`: for LaTeX with booktabs. `.md`: Markdown.

    Args:
        table: what was measured.
        path: where to.
        plotlyjs: where a page has plotly.js from, see `icl_mech.plotting.export`.

    Raises:
        InputError: where the suffix is another, or the file cannot be written.

    Example:
        >>> import tempfile
        >>> table = icl_mech.task_table(
        ...     model, "antonyms", n_prompts=4, n_shots=2, progress=False
        ... )
        >>> write_table(table, f"{tempfile.mkdtemp()}/table.csv").name
        'table.csv'
    """
    path = Path(path)
    choose(path.suffix, FORMATS, "kind of table")
    if path.suffix == ".html":
        return _page(table, path, plotlyjs)
    text = _WRITERS[path.suffix](table)
    return write_whole(path, lambda to: to.write_text(text, encoding="utf-8"))


def _page(table: TaskTable, path: Path, plotlyjs: PlotlyJs) -> Path:
    from icl_mech.plotting.page import NOTES, embedded, html_table, write_page

    return write_page(
        _PAGE + NOTES,
        path,
        plotlyjs,
        heading=f"What does a task vector keep? {table.provenance['model']}",
        p=table.provenance,
        table=html_table(table.table()),
        figure=embedded(table.plot(), first=True, plotlyjs=plotlyjs),
        source=hendel2023().source,
        published=html_table(table.published_table()),
        caveats=table.caveats(),
    )


def _csv(table: TaskTable) -> str:
    """The summary and, as a last row, the means over tasks."""
    last: dict[str, float] = {}
    for column in ACCURACIES:
        last |= table.mean(column).columns(column)
    last |= table.mean_ratio().columns("ratio")
    summary = table.full_summary()
    rows = pd.concat([summary, pd.DataFrame([last], index=[MEAN])]).rename_axis("task")
    counts = rows.columns[[kind.kind == "i" for kind in summary.dtypes]]
    # The row of means has no layer and no number of prompts; Int64 keeps the others whole numbers.
    return tables.csv(rows.astype(dict.fromkeys(counts, "Int64")).reset_index())


def _tex(table: TaskTable) -> str:
    ours = tables.latex(table.table().rename_axis("task"))
    return f"{ours}\n{tables.latex(table.published_table())}"


def _markdown(table: TaskTable) -> str:
    p = table.provenance
    notes = [f"- {tables.markdown_text(note)}" for note in table.caveats()]
    parts = [
        f"{p['n_prompts']} test prompts per task, {p['n_shots']} shots, seed {p['seed']}, "
        f"model {tables.markdown_text(str(p['model']))}. Brackets: 95 % intervals.",
        tables.markdown(table.table().rename_axis("task")),
        "Published (Hendel et al. 2023):",
        tables.markdown(table.published_table()),
        "\n".join(notes),
    ]
    return "\n\n".join(parts) + "\n"


_WRITERS: dict[str, Callable[[TaskTable], str]] = {".csv": _csv, ".tex": _tex, ".md": _markdown}
FORMATS = (".html", *_WRITERS)
