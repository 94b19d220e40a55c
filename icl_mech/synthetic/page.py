"""A training run as one HTML page that opens offline: figures, tables, caveats, provenance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from icl_mech.files import PlotlyJs
from icl_mech.plotting.page import NOTES, embedded, html_table, write_page

if TYPE_CHECKING:
    from icl_mech.synthetic import Emergence

_PAGE = """
<p>{% if kind == "basis" %}Sequences are linear regressions whose weights W lie on one of several
<b>bases</b> (sets of coordinates){% else %}Sequences are regressions of one of several
<b>families</b> of functions ({{ names }}){% endif %}: which one is the task. <b>Encoding</b> is
task decodability (TD): how often the {{ p["k"] }} nearest neighbours of an activation vote for its
{{ kind }}. <b>Performance</b> is the mean squared error of the query's prediction. Brackets are
95 % intervals over {{ p["n_per_basis"] }} held-out sequences per {{ kind }}.</p>
{% for figure in figures %}{{ figure }}{% endfor %}
<h2>When do encoding and performance emerge?</h2>
<p class="quiet">The number of updates after which a curve has made half of its whole change, for
good; use: after which the error is below that of ridge regression, which does not know the
tasks. Encoding leads where it comes first, and lags where it comes later.</p>
<div class="scroll">{{ onsets }}</div>
<h2>After training, {{ kind }} by {{ kind }}</h2>
<div class="scroll">{{ tasks }}</div>
<h2>Which heads do two of them share?</h2>
<p class="quiet">Heads without which the error is more than {{ cost }} times as large (the lower
end of its interval), and the rank correlation of that cost over all heads.</p>
<div class="scroll">{{ shared }}</div>
<h2>Checkpoint by checkpoint</h2>
<div class="scroll">{{ table }}</div>
"""


def emergence_report(run: Emergence, path: str | Path, plotlyjs: PlotlyJs = "inline") -> Path:
    """Write the page, whole or not at all.

    Args:
        run: what was measured.
        path: where to.
        plotlyjs: where the page has plotly.js from, see `export`.

    Raises:
        InputError: where the folder cannot be written.
    """
    from icl_mech.stats.onset import lead_in_words
    from icl_mech.synthetic import onsets
    from icl_mech.synthetic.emergence import NEEDED

    when = onsets(run).round(0)
    over = {"lead": "encoding over performance", "lead_of_use": "encoding over use"}
    for column in over:
        when[column] = when[column].map(lead_in_words)
    figures = [
        run.plot(),
        run.plot_points(),
        run.plot_perturbation(),
        run.plot_algorithms(),
        run.plot_heads(),
    ]
    return write_page(
        _PAGE + NOTES,
        path,
        plotlyjs,
        heading=f"What training taught {run.provenance['model']}",
        p=run.provenance,
        figures=[embedded(figure, i == 0, plotlyjs) for i, figure in enumerate(figures)],
        kind=run.kind,
        names=", ".join(run.names),
        onsets=html_table(when.rename(columns=over).set_axis(run.names)),
        tasks=html_table(run.by_task().round(3)),
        shared=html_table(run.shared_heads().round(2)),
        cost=NEEDED,
        table=html_table(run.table()),
        caveats=run.caveats(),
    )
