"""A task map as one HTML page: what was run, figures, tables, caveats. It opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd
from markupsafe import Markup

from icl_mech.figures.task_map import task_curves_figure, task_map_figure
from icl_mech.results import write_whole

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from icl_mech.localize import TaskMap

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ heading }}</title>
<style>
body { font: 16px/1.5 Helvetica, Arial, "DejaVu Sans", sans-serif; color: #222;
       max-width: 1150px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; }
table { border-collapse: collapse; font-size: .88em; }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: left; }
.scroll { overflow-x: auto; }
li { margin: .2em 0; } .quiet { color: #666; }
</style>
</head>
<body>
<h1>{{ heading }}</h1>
<p>A task is <b>formed</b> where its vector can first be told apart and, injected into a prompt
without demonstrations, brings the answer; it is <b>decoded</b> where an injected vector has
stopped working and the answer can be read from the residual stream. A curve counts as risen at
{{ "%.0f"|format(100 * rule["fraction"]) }} % of the way from its floor to its peak, where these
are at least {{ rule["min_rise"] }} apart. Layer <i>l</i> is the residual stream after block
<i>l</i>, counted from 0. Brackets and bars are 95 % intervals over prompts.</p>
{{ overview }}
{% for part in parts %}
<h2>{{ part.model }}</h2>
<div class="scroll">{{ part.table }}</div>
{{ part.curves }}
<h3>Do the read-outs agree?</h3>
<p class="quiet">Layers of the second minus the first, with 95 % intervals over resampled
prompts, and the share of resamples in which they are at most one layer apart.</p>
<div class="scroll">{{ part.agreement }}</div>
<h3>What to keep in mind</h3>
{% if part.caveats %}<ul>{% for note in part.caveats %}<li>{{ note }}</li>{% endfor %}</ul>
{% else %}<p>Nothing that the checks know of.</p>{% endif %}
<h3>What was run</h3>
<div class="scroll"><table>
{% for name, value in part.provenance %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}
</table></div>
{% endfor %}
</body>
</html>
"""


def task_map_report(maps: list[TaskMap], path: str | Path) -> Path:
    """Write the page, whole or not at all.

    Args:
        maps: one per model, of the same tasks.
        path: where to.

    Raises:
        InputError: where the maps cannot be compared, or the folder cannot be written.
    """
    from icl_mech.localize.result import check_comparable

    check_comparable(maps)
    models = ", ".join(str(m.provenance["model"]) for m in maps)
    page = (
        jinja2.Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            heading=f"Where is the task formed, and where is it decoded? {models}",
            rule=maps[0].provenance["rule"],
            overview=_embedded(task_map_figure(maps), first=True),
            parts=[_part(m) for m in maps],
        )
    )
    return write_whole(path, lambda to: to.write_text(page, encoding="utf-8"))


def _part(task_map: TaskMap) -> dict[str, Any]:
    agreement = {task: task_map.agreement(task) for task in task_map.tasks}

    return {
        "model": task_map.provenance["model"],
        "table": _html(task_map.table()),
        "curves": _embedded(task_curves_figure(task_map), first=False),
        "agreement": _html(pd.concat(agreement, names=["task"]).round(2)),
        "caveats": task_map.caveats(),
        "provenance": [
            (name, value)
            for name, value in task_map.provenance.items()
            if name not in ("notes", "rule")
        ],
    }


def _html(table: pd.DataFrame) -> Markup:
    return Markup(table.to_html(escape=True, border=0, na_rep="–"))


def _embedded(figure: go.Figure, first: bool) -> Markup:
    """A figure as part of a page; the first brings plotly.js with it."""
    return Markup(figure.to_html(full_html=False, include_plotlyjs=first))
