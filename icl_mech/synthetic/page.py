"""A training run as one HTML page that opens offline: figures, tables, caveats, provenance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from icl_mech.plotting.page import NOTES, embedded, html_table, write_page

if TYPE_CHECKING:
    from icl_mech.synthetic import Emergence

_PAGE = """
<p>Sequences are linear regressions whose weights W lie on one of several <b>bases</b> (sets of
coordinates): which one is the task. <b>Encoding</b> is task decodability (TD): how often the
{{ p["k"] }} nearest neighbours of an activation vote for its basis. <b>Performance</b> is the mean
squared error of the query's prediction. Brackets are 95 % intervals over {{ p["n_per_basis"] }}
held-out sequences per basis.</p>
{% for figure in figures %}{{ figure }}{% endfor %}
<h2>When do encoding and performance emerge?</h2>
<p class="quiet">The number of updates after which a curve has made half of its whole change, for
good; use: after which the error is below that of ridge regression, which does not know the bases.
Encoding leads where it comes first, and lags where it comes later.</p>
<div class="scroll">{{ onsets }}</div>
<h2>Checkpoint by checkpoint</h2>
<div class="scroll">{{ table }}</div>
"""


def emergence_report(run: Emergence, path: str | Path) -> Path:
    """Write the page, whole or not at all.

    Raises:
        InputError: where the folder cannot be written.
    """
    from icl_mech.stats.onset import lead_in_words
    from icl_mech.synthetic import onsets

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
        heading=f"What training taught {run.provenance['model']}",
        p=run.provenance,
        figures=[embedded(figure, first=i == 0) for i, figure in enumerate(figures)],
        onsets=html_table(when.rename(columns=over)),
        table=html_table(run.table()),
        caveats=run.caveats(),
    )
