"""The main table as a page, as data, and for papers."""

from collections.abc import Callable
from html import escape
from pathlib import Path

import pandas as pd

from icl_mech.errors import choose
from icl_mech.results import write_whole
from icl_mech.table.result import ACCURACIES, MEAN, TaskTable


def write_table(table: TaskTable, path: str | Path) -> Path:
    """Write the table in the format that the suffix names, whole or not at all.

    `.html`: a page with figure, tables and caveats that opens offline. `.csv`: all numbers.
    `.tex`: for LaTeX with booktabs. `.md`: Markdown.

    Raises:
        InputError: where the suffix is another, or the file cannot be written.
    """
    path = Path(path)
    choose(path.suffix, FORMATS, "kind of table")
    if path.suffix == ".html":
        from icl_mech.table.page import task_table_report

        return task_table_report(table, path)
    text = _WRITERS[path.suffix](table)
    return write_whole(path, lambda to: to.write_text(text, encoding="utf-8"))


def _csv(table: TaskTable) -> str:
    """The summary and, as a last row, the means over tasks."""
    last: dict[str, float] = {}
    for column in ACCURACIES:
        last |= table.mean(column).columns(column)
    last |= table.mean_ratio().columns("ratio")
    summary = table.full_summary()
    rows = pd.concat([summary, pd.DataFrame([last], index=[MEAN])]).rename_axis("task")
    counts = rows.columns[[kind.kind == "i" for kind in summary.dtypes]]
    # A mean over tasks has no layer and no prompts: these stay whole numbers where they are.
    rows = rows.astype(dict.fromkeys(counts, "Int64")).reset_index()
    texts = rows.select_dtypes(exclude="number").columns
    rows[texts] = rows[texts].map(_no_formula)
    return str(rows.to_csv(index=False))


def _no_formula(value: object) -> object:
    """Text that a spreadsheet would take for a formula (a task file's name, a word): quoted."""
    starts = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if starts else value


def _tex(table: TaskTable) -> str:
    return f"{_latex(table.table().rename_axis('task'))}\n{_latex(table.published_table())}"


def _latex(frame: pd.DataFrame) -> str:
    """Booktabs, every name and number escaped."""
    style = frame.reset_index().style.hide(axis="index").format(_protect, escape="latex")
    style = style.format_index(escape="latex", axis="columns")
    columns = "l" * (frame.index.nlevels + len(frame.columns))
    return str(style.to_latex(hrules=True, column_format=columns))


def _protect(text: str) -> str:
    """After a line break LaTeX takes a bracket for an option."""
    return f"{{}}{text}" if text.startswith("[") else text


def _markdown(table: TaskTable) -> str:
    p = table.provenance
    notes = [f"- {_cell(note)}" for note in table.caveats()]
    parts = [
        f"{p['n_prompts']} test prompts per task, {p['n_shots']} shots, seed {p['seed']}, "
        f"model {_cell(str(p['model']))}. Brackets: 95 % intervals.",
        _rows(table.table().rename_axis("task")),
        "Published (Hendel et al. 2023):",
        _rows(table.published_table()),
        "\n".join(notes),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(frame: pd.DataFrame) -> str:
    """A pipe table."""
    frame = frame.reset_index()
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(_cell(str(c)) for c in line) + " |" for line in lines)


def _cell(text: str) -> str:
    """Text that is no markup in Markdown, and stays in its cell."""
    text = escape(" ".join(text.split()), quote=False)
    for mark in "\\|*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return text


_WRITERS: dict[str, Callable[[TaskTable], str]] = {".csv": _csv, ".tex": _tex, ".md": _markdown}
FORMATS = (".html", *_WRITERS)
