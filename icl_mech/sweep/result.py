"""`Sweep`: the finished, failed and missing cells in a sweep's folder."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from icl_mech.errors import InputError, choose
from icl_mech.files import PlotlyJs
from icl_mech.results import Result
from icl_mech.sweep.folder import CellFolder

#: The first columns of a table of cells.
COLUMNS = ("model", "entry", "measure", "task", "seed", "state", "seconds", "error")


class Sweep:
    """A view of a sweep's folder, which may be unfinished or still being written.

    Args:
        folder: of the sweep.

    Raises:
        InputError: where there is no sweep.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = CellFolder(folder)
        if not self.folder.manifest:
            raise InputError(f"{folder}: no sweep is there; expected the folder of one")

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    def cells(self) -> pd.DataFrame:
        """A table with one row per cell: `state` is done, failed or missing; `error` says why."""
        rows = []
        for name, known in self.folder.manifest["cells"].items():
            done = self.folder.done.get(name)
            error = self.folder.errors.get(name, "")
            state = "done" if done else "failed" if error else "missing"
            rows.append({**known, "state": state, "error": error, **_told(done or {})})
        frame = pd.DataFrame(rows)
        return frame.reindex(columns=[*COLUMNS, *(c for c in frame if c not in COLUMNS)])

    @property
    def failed(self) -> dict[str, str]:
        """The errors of the cells that failed and have not been finished since, by name."""
        cells = self.folder.manifest["cells"]
        return {name: error for name, error in self.folder.errors.items() if name in cells}

    def results(self, entry: str) -> Iterator[tuple[dict[str, Any], Result]]:
        """Yield the finished cells of a measure: a description of each cell, and its result.

        Args:
            entry: the measure's name in the sweep.

        Raises:
            InputError: where there is no such measure (the message gives the nearest), or a file
                is damaged.
        """
        cells = self.folder.manifest["cells"]
        choose(entry, dict.fromkeys(c["entry"] for c in cells.values()), "measure of the sweep")
        for name, known in cells.items():
            if known["entry"] == entry and name in self.folder.done:
                yield known, self.folder.result(name)

    def table(self) -> pd.DataFrame:
        """A table, as text, of how many cells of each model and measure are finished."""
        cells = self.cells()
        done = cells.assign(done=cells["state"] == "done")
        counts = done.groupby(["model", "entry"], sort=False)["done"].agg(["sum", "size"])
        text = counts["sum"].astype(str) + " of " + counts["size"].astype(str)
        return text.unstack("entry").fillna("")

    def summary(self, entry: str) -> pd.DataFrame:
        """The summaries of all finished cells of a measure, one below the other.

        Raises:
            InputError: as `results`.
        """
        parts = [with_cell(known, result.full_summary()) for known, result in self.results(entry)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def report(self, path: str | Path, plotlyjs: PlotlyJs = "inline") -> Path:
        """Write one page that compares the models; it opens offline. The sweep may be unfinished.

        Args:
            path: of the page.
            plotlyjs: where the page gets plotly.js from, see `icl_mech.plotting.export`.

        Raises:
            InputError: where the folder cannot be written.
        """
        from icl_mech.sweep.report import write_report

        return write_report(self, path, plotlyjs)

    def __repr__(self) -> str:
        states = self.cells()["state"].value_counts()
        counts = ", ".join(f"{n} {state}" for state, n in states.items())
        lines = [f"Sweep in {self.path}: {counts}", self.table().to_string()]
        return "\n".join([*lines, *(f"failed: {n}: {e}" for n, e in self.failed.items())])


def with_cell(known: Mapping[str, Any], summary: pd.DataFrame) -> pd.DataFrame:
    """A result's summary, with its cell's model, subject and seed in every row."""
    cell = {"model": known["model"], "subject": known["task"], "seed": known["seed"]}
    rows = summary.reset_index()
    return pd.concat([pd.DataFrame([cell] * len(rows)), rows], axis=1)


def _told(line: dict[str, Any]) -> dict[str, Any]:
    """The entries of a journal's line that are only known after the cell has run."""
    inner = ("cell", "made_of", "sha256", "model", "entry", "measure", "task", "seed")
    return {name: value for name, value in line.items() if name not in inner}
