"""Reading a user's pairs: JSON object, JSON list, JSON lines, CSV or TSV."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icl_mech.errors import InputError
from icl_mech.tasks.task import Pair, Task

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
COLUMNS = ("input", "output")


def read_task(path: Path) -> Task:
    """A task from a file of pairs, named after the file.

    Raises:
        InputError: naming the file, the row and what was expected there.
    """
    readers = {".json": _json, ".jsonl": _json_lines, ".csv": _table, ".tsv": _table}
    if path.suffix not in readers:
        raise InputError(f"{path}: unknown kind of file; expected one of {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a file of pairs")
    pairs: dict[str, Pair] = {}
    try:
        for where, x, y in readers[path.suffix](path):
            pair = _pair(path, where, x, y)
            known = pairs.setdefault(pair.x, pair)
            if known.answers != pair.answers:
                raise InputError(
                    f"{path}, {where}: input {pair.x!r} appears again with answer {_show(pair)}, "
                    f"before it had {_show(known)}; expected one answer per input "
                    "(several accepted answers go into one row)"
                )
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read the file") from None
    if not pairs:
        raise InputError(f"{path}: no pairs; expected at least one")
    return Task(path.stem, "user", f"pairs from {path.name}", tuple(pairs.values()))


def _show(pair: Pair) -> str:
    return "|".join(map(repr, pair.answers))


def _pair(path: Path, where: str, x: Any, y: Any) -> Pair:
    answers = y if isinstance(y, list) else [y]
    if not isinstance(x, str) or not all(isinstance(a, str) for a in answers):
        raise InputError(f"{path}, {where}: input and output must be text, got {x!r} -> {y!r}")
    for column, cell in ((COLUMNS[0], x), *((COLUMNS[1], a) for a in answers)):
        if not {"\n", "\r"}.isdisjoint(cell.strip()):
            raise InputError(
                f"{path}, {where}: a line break in {column} {cell.strip()!r}; expected one line "
                "(line breaks separate the demonstrations of a prompt)"
            )
    try:
        return Pair(x.strip(), tuple(a.strip() for a in answers))
    except InputError as error:
        raise InputError(f"{path}, {where}: {error}") from None


def _object(path: Path, where: str, row: Any) -> tuple[str, Any, Any]:
    missing = [c for c in COLUMNS if not isinstance(row, dict) or c not in row]
    if missing:
        raise InputError(
            f"{path}, {where}: no {' and no '.join(map(repr, missing))}; expected an object with "
            f'"input" and "output", got {json.dumps(row, ensure_ascii=False)[:80]}'
        )
    return where, row["input"], row["output"]


def _no_duplicates(items: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Keep an object's items as they stand, so that a repeated input is seen and not lost."""
    return items


def _json(path: Path) -> Iterator[tuple[str, Any, Any]]:
    text = path.read_text(encoding="utf-8-sig")
    try:
        data = json.loads(text)
        if isinstance(data, dict):
            top = json.loads(text, object_pairs_hook=_no_duplicates)
            for i, (x, y) in enumerate(top, 1):
                yield f"entry {i}", x, y
            return
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from None
    if not isinstance(data, list):
        raise InputError(f"{path}: expected a JSON object or a list, got {type(data).__name__}")
    for i, row in enumerate(data, 1):
        yield _object(path, f"row {i}", row)


def _json_lines(path: Path) -> Iterator[tuple[str, Any, Any]]:
    for i, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {i}: not JSON ({error.msg})") from None
        yield _object(path, f"line {i}", row)


def _table(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """CSV or TSV. A cell may list several accepted answers, split at `|`."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ",", strict=True)
        try:
            header = [name.strip() for name in reader.fieldnames or []]
        except csv.Error as error:
            raise InputError(f"{path}, line 1: {error}; a quote that opens must close") from None
        missing = [c for c in COLUMNS if c not in header]
        if missing:
            raise InputError(
                f"{path}, line 1: missing column {' and '.join(map(repr, missing))}; expected "
                f"columns 'input' and 'output', got {', '.join(map(repr, header)) or 'none'}"
            )
        reader.fieldnames = header
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise InputError(
                    f"{path}, line {reader.line_num + 1}: {error}; a quote that opens must close"
                ) from None
            if row is None:
                return
            where = f"line {reader.line_num}"
            if any(cell.strip() for cell in row.get(None, ())):
                raise InputError(
                    f"{path}, {where}: too many columns; expected {len(header)} "
                    "(quote a cell that holds the separator)"
                )
            if row["input"] is None or row["output"] is None:
                raise InputError(f"{path}, {where}: too few columns; expected {len(header)}")
            yield where, row["input"], row["output"].split("|")
