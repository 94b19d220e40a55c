"""What a device check measured: rows, their file, and tables of them."""

import json
import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

Value = float | int | str | bool | None


@dataclass(frozen=True)
class Row:
    """One thing that was measured.

    Attributes:
        what: its name.
        numbers: by name; those of rows with the same names stand in one table.
        ok: whether it is as it should be.
        note: what else there is to say, in one line.
        more: what stands in the file only, such as curves.
    """

    what: str
    numbers: dict[str, Value] = field(default_factory=dict)
    ok: bool = True
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The row as it is printed while the check runs."""
        cells = [f"{name} {shown(value)}" for name, value in self.numbers.items()]
        return "  ".join(["  " + ("ok  " if self.ok else "FAIL"), self.what, *cells, self.note])


@dataclass
class Step:
    """One step of the check.

    Attributes:
        name: of the step.
        title: what it measures.
        rows: what it found, in the order in which it did.
        seconds: that it took; None while it runs.
        error: why it ended early, in one line.
    """

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    seconds: float | None = None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether it ran to its end and all rows are as they should be."""
        return not self.error and all(row.ok for row in self.rows)

    def heading(self) -> str:
        """Its title, outcome and time."""
        time_taken = "" if self.seconds is None else f", {self.seconds:.0f} s"
        return f"{self.title} ({'passed' if self.ok else 'FAILED'}{time_taken})"


class Record:
    """All steps of a check, and the file in which they are kept."""

    def __init__(self, path: Path, machine: dict[str, Any]) -> None:
        self.path = path
        self.machine = machine
        self.steps: list[Step] = []
        self._begun = time.perf_counter()

    @property
    def ok(self) -> bool:
        """Whether no step failed."""
        return all(step.ok for step in self.steps)

    def run(self, step: Step, rows: Iterable[Row]) -> None:
        """Take the rows of a step as they come; an error ends this step and no other."""
        self.steps.append(step)
        print(f"\n{step.title}", flush=True)
        begun = time.perf_counter()
        try:
            for row in rows:
                step.rows.append(row)
                print(row.line(), flush=True)
                self.save()
        except Exception as error:  # any library's: the other steps are still worth running
            step.error = one_line(error)
            print(f"  FAIL  {step.error}", flush=True)
        step.seconds = time.perf_counter() - begun
        print(f"  {step.heading()}", flush=True)
        self.save()

    def save(self) -> None:
        """Write the file whole, or leave the last one as it is."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            partial.write_text(json.dumps(self.content(), indent=1, allow_nan=False) + "\n")
            partial.replace(self.path)
        finally:
            with suppress(OSError):
                partial.unlink(missing_ok=True)

    def content(self) -> dict[str, Any]:
        """What the file holds."""
        content: dict[str, Any] = _finite(
            {
                "machine": self.machine,
                "seconds": time.perf_counter() - self._begun,
                "ok": self.ok,
                "steps": [{**asdict(step), "ok": step.ok} for step in self.steps],
            }
        )
        return content

    def markdown(self) -> str:
        """Every step as a table."""
        lines = [", ".join(f"{name} {value}" for name, value in self.machine.items())]
        for step in self.steps:
            lines += [*([""] if lines[-1] else []), f"**{step.heading()}**", ""]
            for _, rows in groupby(step.rows, key=lambda row: tuple(row.numbers)):
                lines += [*_table(list(rows)), ""]
            if step.error:
                lines += [f"Ended early: {step.error}", ""]
        return "\n".join(lines).rstrip() + "\n"


def one_line(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said}"[:500]


def shown(value: Value) -> str:
    """A number with three digits.

    >>> shown(0.00012345), shown(17), shown(None), shown(123456.0)
    ('0.000123', '17', '', '123456')
    """
    if value is None:
        return ""
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:.0f}" if 1000 <= abs(value) < 1e9 else f"{value:.3g}"
    return str(value)


def _table(rows: list[Row]) -> Iterator[str]:
    names = [name.replace("_", " ") for name in rows[0].numbers]
    noted = any(row.note or not row.ok for row in rows)
    yield _line(["", *names, *(["note"] if noted else [])])
    yield "|---" * (1 + len(names) + noted) + "|"
    for row in rows:
        note = row.note if row.ok else f"FAILED {row.note}".strip()
        cells = [row.what, *map(shown, row.numbers.values())]
        yield _line([*cells, *([note] if noted else [])])


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
