"""A task map as one HTML page that opens offline: what was run, figures, tables, caveats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from icl_mech.files import PlotlyJs
from icl_mech.localize.plot import task_curves_figure, task_map_figure
from icl_mech.plotting.page import embedded, html_table, write_page

if TYPE_CHECKING:
    from icl_mech.decoder import Decoder
    from icl_mech.localize import TaskMap

#: Components of a task that a page names.
_MOST = 12
_PAGE = """
<p>A task is <b>formed</b> where its vector can first be told apart and, injected into a prompt
without demonstrations, brings the answer, where half of the heads' effect has been added, and
where the demonstrations have been read, so that they may be hidden from there on (masking); it is
<b>decoded</b> where an injected vector has stopped working and the answer can be read from the
residual stream. A curve counts as risen at
{{ "%.0f"|format(100 * rule["fraction"]) }} % of the way from its floor to its peak, where these
are at least {{ rule["min_rise"] }} apart. A layer is named where at least
{{ "%.0f"|format(100 * rule["min_found"]) }} % of resamples have one, and noise alone rises as far
in at most the remaining share; where no layer is named, the notes below say why. Layer <i>l</i> is
the residual stream after block <i>l</i>, counted from 0. Brackets and bars are 95 % intervals over
queries.</p>
{% for part in decoders %}
<h2>From the demonstrations to the answer{{ part.model }}</h2>
<p>Heads that write the vector, and heads and MLPs of later blocks that read it. They were found on
the odd prompts; the shares come from the even ones. <i>Gone without</i>: the share of the vector's
effect that is lost where those found are set back to what they are without it (beside as many at
random); <i>left with only these</i>: the share that is there where all others are set back.</p>
<div class="scroll">{{ part.table }}</div>
{{ part.picture }}
{% for task, table in part.components %}
<h3>{{ task }}: components, most needed first</h3>
<p class="quiet">Nats of the answer's log probability: lost without the component (necessity),
brought where it alone sees the vector (sufficiency), brought by its own change where nothing later
reacts (direct). Brackets are 95 % intervals over queries.</p>
<div class="scroll">{{ table }}</div>
{% endfor %}
<ul>{% for note in part.caveats %}<li>{{ note }}</li>{% endfor %}</ul>
{% endfor %}
{{ overview }}
{% for part in parts %}
<h2>{{ part.model }}</h2>
<div class="scroll">{{ part.table }}</div>
{{ part.curves }}
<h3>Do the read-outs agree?</h3>
<p class="quiet">The layer of the second minus that of the first, with 95 % intervals over resampled
queries, and the share of resamples in which the two are at most one layer apart. Both are read on
the same prompts; encoding, which has more prompts, is read on those of the others.</p>
<div class="scroll">{{ part.agreement }}</div>
<h3>What to keep in mind</h3>
{% if part.caveats %}<ul>{% for note in part.caveats %}<li>{{ note }}</li>{% endfor %}</ul>
{% else %}<p>Nothing that the checks know of.</p>{% endif %}
<h3>What was run</h3>
<div class="scroll"><table>
{% for name, value in part.provenance %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}
</table></div>
{% endfor %}
"""


def task_map_report(
    maps: list[TaskMap],
    path: str | Path,
    plotlyjs: PlotlyJs = "inline",
    decoders: Sequence[Decoder | None] = (),
) -> Path:
    """Write the page; a failure leaves no partial file.

    Args:
        maps: one per model, of the same tasks.
        path: the file to write.
        plotlyjs: where the page loads plotly.js from, see `export`.
        decoders: for every model, a result of `find_decoder`, or None.

    Raises:
        InputError: if the maps cannot be compared, or the folder cannot be written.
    """
    from icl_mech.localize.result import check_comparable

    check_comparable(maps)
    models = ", ".join(str(m.provenance["model"]) for m in maps)
    shown = [found for found in decoders if found is not None]
    overview = embedded(task_map_figure(maps), first=not shown, plotlyjs=plotlyjs)
    return write_page(
        _PAGE,
        path,
        plotlyjs,
        heading=f"Where is the task formed, and where is it decoded? {models}",
        rule=vars(maps[0].rule),
        decoders=[_decoder(found, i == 0, plotlyjs) for i, found in enumerate(shown)],
        overview=overview,
        parts=[_part(m) for m in maps],
    )


def _decoder(found: Decoder, first: bool, plotlyjs: PlotlyJs) -> dict[str, Any]:
    return {
        "model": f", {found.provenance['model']}",
        "table": html_table(found.table()),
        "picture": embedded(found.plot(), first=first, plotlyjs=plotlyjs),
        "components": [(task, html_table(_components(found, task))) for task in found.tasks],
        "caveats": found.caveats(),
    }


def _components(found: Decoder, task: str) -> pd.DataFrame:
    """The components that matter most, as text."""
    table = found.components(task).head(_MOST)
    shown = {
        name: [
            f"{value:.2f} [{low:.2f}, {high:.2f}]"
            for value, low, high in zip(
                table[name], table[f"{name}_low"], table[f"{name}_high"], strict=True
            )
        ]
        for name in ("necessity", "sufficiency", "direct")
    }
    return pd.DataFrame({**shown, "share": table["share"].map("{:.0%}".format)}, table.index)


def _part(task_map: TaskMap) -> dict[str, Any]:
    agreement = {task: task_map.agreement(task) for task in task_map.tasks}
    return {
        "model": task_map.provenance["model"],
        "table": html_table(task_map.table()),
        "curves": embedded(task_curves_figure(task_map), first=False),
        "agreement": html_table(pd.concat(agreement, names=["task"]).round(2)),
        "caveats": task_map.caveats(),
        "provenance": [
            (name, value)
            for name, value in task_map.provenance.items()
            if name not in ("notes", "rule")
        ],
    }
