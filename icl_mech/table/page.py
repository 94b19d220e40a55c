"""The main table as one HTML page: figure, tables, caveats, what was run. It opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from icl_mech.plotting.page import NOTES, embedded, html_table, write_page

if TYPE_CHECKING:
    from icl_mech.table import TaskTable

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


def task_table_report(table: TaskTable, path: str | Path) -> Path:
    """Write the page, whole or not at all.

    Raises:
        InputError: where the folder cannot be written.
    """
    from icl_mech.reference import hendel2023

    return write_page(
        _PAGE + NOTES,
        path,
        heading=f"What does a task vector keep? {table.provenance['model']}",
        p=table.provenance,
        table=html_table(table.table()),
        figure=embedded(table.plot(), first=True),
        source=hendel2023().source,
        published=html_table(table.published_table()),
        caveats=table.caveats(),
    )
