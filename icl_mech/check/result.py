"""Result of a check: facts about the model, and every number with its expected range."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape

import pandas as pd

from icl_mech.check.facts import Facts

#: How a row's result is written.
_VERDICTS: Mapping[bool | None, str] = {True: "pass", False: "FAIL", None: ""}


@dataclass(frozen=True)
class Row:
    """One number of a check.

    Attributes:
        check: the name of the check.
        site: of the edits; empty if there were none.
        value: what was found; NaN if the model or an engine failed.
        unit: of the value.
        least, most: the limits of the value; None for no limit.
        passed: whether the value is within its limits; None if it has none.
        note: the edit at which the value was found, or the error.
    """

    check: str
    site: str
    value: float
    unit: str = "nats"
    least: float | None = None
    most: float | None = None
    passed: bool | None = None
    note: str = ""

    @property
    def expected(self) -> str:
        """The limit of the value in words; empty if it has none."""
        if self.least is not None:
            return f"at least {self.least:g}"
        return "" if self.most is None else f"at most {self.most:g}"

    @property
    def found(self) -> str:
        """The value with its unit."""
        if math.isnan(self.value):
            return "none"
        digits = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.2g}"
        return f"{digits} {self.unit}"


@dataclass(frozen=True, repr=False)
class ModelSupport:
    """What `check_model_support` found.

    Attributes:
        facts: what kind of model it is, and how it is run.
        rows: every number, with what was expected of it.
    """

    facts: Facts
    rows: Sequence[Row]

    @property
    def passed(self) -> bool:
        """Whether every number is as expected."""
        return not self.failures

    @property
    def failures(self) -> list[Row]:
        """The rows that are not as expected."""
        return [row for row in self.rows if row.passed is False]

    def to_frame(self) -> pd.DataFrame:
        """One row per number, as they are."""
        return pd.DataFrame([asdict(row) for row in self.rows])

    def table(self) -> pd.DataFrame:
        """One row per number, as text for people."""
        cells = [
            (row.check, row.site, row.found, row.expected, _VERDICTS[row.passed], row.note)
            for row in self.rows
        ]
        return pd.DataFrame(cells, columns=["check", "site", "found", "expected", "result", "note"])

    def headline(self) -> str:
        """The verdict in one line."""
        tried = sum(row.passed is not None for row in self.rows)
        if self.passed:
            return f"{self.facts.model} is supported: all {tried} checks passed"
        return f"{self.facts.model} FAILED {len(self.failures)} of {tried} checks"

    def __repr__(self) -> str:
        lines = self.facts.lines()
        width = max(map(len, lines)) + 1
        said = [f"{name + ':':<{width}} {text}" for name, text in lines.items()]
        return "\n".join([*said, "", _aligned(self.table()), "", self.headline()])

    def _repr_html_(self) -> str:
        facts = "".join(
            f"<li>{escape(name)}: {escape(text)}</li>" for name, text in self.facts.lines().items()
        )
        table = self.table().to_html(escape=True, index=False)
        return f"<p>{escape(self.headline())}</p><ul>{facts}</ul>{table}"


def _aligned(table: pd.DataFrame) -> str:
    """A table of text, its columns flush left."""
    rows = [list(table.columns), *table.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(f"{c:<{w}}" for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)
