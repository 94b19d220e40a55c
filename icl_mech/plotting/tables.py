"""Tables as text that other programs read: CSV, LaTeX, Markdown. Every word is escaped."""

from html import escape

import pandas as pd


def csv(frame: pd.DataFrame) -> str:
    """A table for spreadsheets, without its index."""
    frame = frame.copy()
    texts = frame.select_dtypes(exclude="number").columns
    frame[texts] = frame[texts].map(_no_formula)
    return str(frame.to_csv(index=False))


def _no_formula(value: object) -> object:
    """Quote text that a spreadsheet would take for a formula, as a word or task's name may be."""
    starts = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if starts else value


def latex(frame: pd.DataFrame) -> str:
    """A table for LaTeX with booktabs; every name and number is escaped."""
    style = frame.reset_index().style.hide(axis="index").format(_protect, escape="latex")
    style = style.format_index(escape="latex", axis="columns")
    columns = "l" * (frame.index.nlevels + len(frame.columns))
    return str(style.to_latex(hrules=True, column_format=columns))


def _protect(text: str) -> str:
    """LaTeX takes a bracket after a line break for an option; a group before it prevents that."""
    return f"{{}}{text}" if text.startswith("[") else text


def markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown."""
    frame = frame.reset_index()
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join(
        "| " + " | ".join(markdown_text(str(c)) for c in line) + " |" for line in lines
    )


def markdown_text(text: str) -> str:
    """Escape what Markdown would take for markup or for the end of a cell."""
    text = escape(" ".join(text.split()), quote=False)
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return text
