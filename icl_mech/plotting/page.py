"""What the HTML pages share. They open offline, and all text in them is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from icl_mech.results import write_whole

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

_HEAD = """<!doctype html>
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
<h1>{{ heading }}</h1>"""

#: How a page about one result ends: `caveats`, and the provenance `p`.
NOTES = """<h2>What to keep in mind</h2>
<ul>{% for note in caveats %}<li>{{ note }}</li>{% endfor %}</ul>
<h2>What was run</h2>
<div class="scroll"><table>
{% for name, value in p.items() %}<tr><th>{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}
</table></div>
"""


def write_page(body: str, path: str | Path, **values: Any) -> Path:
    """Fill in a page and write it, whole or not at all.

    Args:
        body: a jinja2 template of what stands under the heading.
        path: where to.
        values: for the template, `heading` among them; strings are escaped.

    Raises:
        InputError: where the folder cannot be written.
    """
    template = jinja2.Environment(autoescape=True).from_string(f"{_HEAD}{body}</body>\n</html>\n")
    page = template.render(**values)
    return write_whole(path, lambda to: to.write_text(page, encoding="utf-8"))


def html_table(table: pd.DataFrame) -> Markup:
    """A table as part of a page, escaped."""
    return Markup(table.to_html(escape=True, border=0, na_rep="–"))


def embedded(figure: go.Figure, first: bool) -> Markup:
    """A figure as part of a page; the first brings plotly.js with it."""
    html = figure.to_html(full_html=False, include_plotlyjs=first, auto_play=False)
    return Markup(html)
