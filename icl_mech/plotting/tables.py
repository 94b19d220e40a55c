"""Tables as text for other programs: CSV, LaTeX, Markdown. All text is escaped."""

from html import escape

import pandas as pd


def csv(frame: pd.DataFrame) -> str:
    """A table for spreadsheets, without its index."""
    frame = frame.copy()
    texts = frame.select_dtypes(exclude="number").columns
    frame[texts] = frame[texts].map(_no_formula)
    return str(frame.to_csv(index=False))


def _no_formula(value: object) -> object:
    """Quote text that a spreadsheet would read as a formula, such as a word that begins with =."""
    starts = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if starts else value


def latex(frame: pd.DataFrame) -> str:
    """A table for LaTeX with booktabs; every name and number is escaped."""
    style = frame.reset_index().style.hide(axis="index").format(_protect, escape="latex")
    style = style.format_index(escape="latex", axis="columns")
    columns = "l" * (frame.index.nlevels + len(frame.columns))
    return str(style.to_latex(hrules=True, column_format=columns))


def _protect(text: str) -> str:
    """Put a group before a bracket: LaTeX would read a bracket after a line break as an option."""
    return f"{{}}{text}" if text.startswith("[") else text


def markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown."""
    frame = frame.reset_index()
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(markdown_text(str(c)) for c in line) + " |" for line in lines
    )


def markdown_text(text: str) -> str:
    """Escape what Markdown would read as markup or as the end of a cell."""
    text = escape(" ".join(text.split()), quote=False)
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return text
