"""Reading what the analyses write."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def plotly(page: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces and layout of a figure in a page."""
    text = page.read_text(encoding="utf-8")
    start = text.index("[", text.rindex("Plotly.newPlot("))
    decoder = json.JSONDecoder()
    traces, end = decoder.raw_decode(text, start)
    layout, _ = decoder.raw_decode(text, text.index("{", end))
    return traces, layout
