"""What all HTML pages share: head, colours, figures. All text in them is escaped.

Pages and the figures in them follow the reader's theme: light, or dark.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import jinja2
import plotly.graph_objects as go
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from icl_mech.errors import choose
from icl_mech.files import PlotlyJs
from icl_mech.plotting.style import DARK, GRID, INK, PAPER, QUIET
from icl_mech.results import write_whole

if TYPE_CHECKING:
    import pandas as pd

#: The name of plotly.js if it lies beside the pages.
_FILE = "plotly.min.js"
_CONFIG = {"displaylogo": False, "responsive": True}
_HEAD = (
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ heading }}</title>
<style>
:root { color-scheme: light dark; --paper: $PAPER; --ink: $INK; --quiet: $QUIET; --rule: $GRID; }
@media (prefers-color-scheme: dark) {
  :root { --paper: $dPAPER; --ink: $dINK; --quiet: $dQUIET; --rule: $dGRID; }
}
html { scrollbar-gutter: stable; }
body { font: 16px/1.5 Helvetica, Arial, "DejaVu Sans", sans-serif;
       color: var(--ink); background: var(--paper); }
.report { max-width: 1150px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; }
table { border-collapse: collapse; font-size: .88em; }
th, td { padding: .25em .7em; border-bottom: 1px solid var(--rule); text-align: left; }
.scroll { overflow-x: auto; }
li { margin: .2em 0; } .quiet { color: var(--quiet); } .notes { margin: 1em 2em; }
</style>
</head>
""".replace("$dPAPER", DARK[PAPER])
    .replace("$dINK", DARK[INK])
    .replace("$dQUIET", DARK[QUIET])
    .replace("$dGRID", DARK[GRID])
    .replace("$PAPER", PAPER)
    .replace("$INK", INK)
    .replace("$QUIET", QUIET)
    .replace("$GRID", GRID)
)

#: The end of a page about one result: `caveats`, and the provenance `p`.
NOTES = """<h2>What to keep in mind</h2>
<ul>{% for note in caveats %}<li>{{ note }}</li>{% endfor %}</ul>
<h2>What was run</h2>
<div class="scroll"><table>
{% for name, value in p.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}
</table></div>
"""
_REPORT = """<body class="report">
<h1>{{ heading }}</h1>"""
_FIGURE = """<body>
{{ figure }}
{% if caveats %}<div class="notes"><b>What to keep in mind</b><ul>
{%- for note in caveats %}<li>{{ note }}</li>{% endfor %}</ul></div>{% endif %}"""
#: Replaces the colours of a figure when the page is dark, and restores them when it is light. Heat
#: maps, text in bars, and parts with a background of their own (menus, labels on maps) keep their
#: colours, because these do not stand on the page's background.
_FOLLOW = """
(() => {
  const figure = document.getElementById('{plot_id}'), toDark = $COLOURS;
  const toLight = Object.fromEntries(Object.entries(toDark).map(([light, dark]) => [dark, light]));
  const kept = new Set(['x', 'y', 'z', 'text', 'name', 'legendgroup', 'customdata', 'hovertext',
    'hovertemplate', 'ticktext', 'colorscale', 'label', 'args']);
  const exchange = (part, colours) => {
    for (const [key, value] of Object.entries(part)) {
      if (kept.has(key)) continue;
      if (typeof value === 'string') part[key] = colours[value.toUpperCase()] ?? value;
      else if (value && typeof value === 'object' && value.bgcolor === undefined)
        exchange(value, colours);
    }
  };
  const wear = (colours) => {
    const frames = figure._transitionData ? figure._transitionData._frames || [] : [];
    for (const trace of [figure.data, ...frames.map(frame => frame.data || [])].flat()) {
      if (trace.type === 'heatmap') continue;
      const {textfont, ...rest} = trace;
      exchange(rest, colours);
      if (textfont && trace.type !== 'bar') exchange(textfont, colours);
      Object.assign(trace, rest);
    }
    exchange(figure.layout, colours);
    Plotly.redraw(figure);
  };
  const dark = matchMedia('(prefers-color-scheme: dark)');
  if (dark.matches) wear(toDark);
  dark.addEventListener('change', () => wear(dark.matches ? toDark : toLight));
})();
""".replace("$COLOURS", json.dumps(DARK))


def write_page(body: str, path: str | Path, plotlyjs: PlotlyJs = "inline", **values: Any) -> Path:
    """Fill in a report and write it, whole or not at all.

    Args:
        body: a jinja2 template of the part under the heading.
        path: where to.
        plotlyjs: from where the page loads plotly.js; the same as its figures were `embedded` with.
        values: for the template, `heading` among them; strings are escaped.

    Raises:
        InputError: where the folder cannot be written.
    """
    return _written(f"{_REPORT}{body}", path, plotlyjs, **values)


def write_figure_page(
    figure: go.Figure, path: Path, caveats: Sequence[str], plotlyjs: PlotlyJs
) -> Path:
    """Write a page with one figure, as large as the page, and the caveats below it."""
    shown, height = fills_page(figure)
    drawn = embedded(shown, True, plotlyjs, height)
    heading = _plain_title(figure)
    return _written(_FIGURE, path, plotlyjs, heading=heading, figure=drawn, caveats=caveats)


def _written(body: str, path: str | Path, plotlyjs: PlotlyJs, **values: Any) -> Path:
    template = jinja2.Environment(autoescape=True).from_string(f"{_HEAD}{body}</body>\n</html>\n")
    page = template.render(**values)
    if plotlyjs == "directory":
        _add_library(Path(path).with_name(_FILE))
    return write_whole(path, lambda to: to.write_text(page, encoding="utf-8"))


def _plain_title(figure: go.Figure) -> str:
    """The figure's title as text."""
    text = (figure.layout.title.text or "Figure").replace("<br>", " ")
    return str(Markup(text).striptags())


def html_table(table: pd.DataFrame, index: bool = True) -> Markup:
    """A table as part of a page, escaped; with its index, or without."""
    return Markup(table.to_html(escape=True, border=0, na_rep="–", index=index))


def embedded(
    figure: go.Figure, first: bool, plotlyjs: PlotlyJs = "inline", height: str = "100%"
) -> Markup:
    """A figure as part of a page; the first figure of a page includes or loads plotly.js.

    Args:
        figure: what is drawn.
        first: whether it is the first of its page.
        plotlyjs: from where the page loads plotly.js.
        height: in CSS, for a figure without a height of its own.
    """
    choose(plotlyjs, get_args(PlotlyJs), "place of plotly.js")
    library = True if plotlyjs == "inline" else plotlyjs
    html = figure.to_html(
        full_html=False,
        include_plotlyjs=library if first else False,
        auto_play=False,
        config=_CONFIG,
        default_height=height,
        post_script=_FOLLOW,
    )
    return Markup(html)


def _add_library(path: Path) -> None:
    """Write plotly.js, unless the file exists with this version.

    Raises:
        InputError: where it cannot be written.
    """
    wanted = get_plotlyjs().encode()
    if not path.is_file() or path.read_bytes() != wanted:
        write_whole(path, lambda to: to.write_bytes(wanted))


def fills_page(figure: go.Figure) -> tuple[go.Figure, str]:
    """The figure without a height of its own, and the height that a page gives it (in CSS).

    The height is that of the page, but at least the figure's own height, and at most a height at
    which the panels are twice as tall.
    """
    own = figure.layout.height or 450  # plotly's
    most = 2 * own - (figure.layout.margin.t or 0) - (figure.layout.margin.b or 0)
    shown = go.Figure(figure).update_layout(height=None, autosize=True)
    return shown, f"max({own}px, min({most}px, 100vh - 24px))"
