"""Reads a user's pairs: JSON object, JSON list, JSON lines, CSV or TSV."""

import csv
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from icl_mech.errors import InputError, shown
from icl_mech.tasks.task import Pair, Task, as_typed
from icl_mech.tasks.text import check_text, look

SUFFIXES = (".json", ".jsonl", ".csv", ".tsv")
COLUMNS = ("input", "output")
#: The most bytes of a file's name without suffix: it names the task, and so result files too.
LONGEST_NAME = 100

#: The most columns that a message names.
SHOWN = 10
#: For each row: where it is (for messages), its input, and its answers.
Rows = Iterator[tuple[str, Any, Any]]


def read_task(path: Path) -> Task:
    """A task from a file of pairs, named after the file.

    Raises:
        InputError: naming the file, the row and what was expected there.
    """
    readers = {".json": _json, ".jsonl": _json_lines, ".csv": _table, ".tsv": _table}
    _check_name(path)
    kind = path.suffix.lower()
    if kind not in readers:
        raise InputError(f"{path}: unknown kind of file; expected one of {', '.join(SUFFIXES)}")
    if not os.path.isfile(path):  # unlike Path.is_file, False for a name that is too long
        raise InputError(f"{path}: no such file; expected a file of pairs")
    pairs: dict[str, Pair] = {}
    try:
        for where, x, y in readers[kind](path):
            pair = _pair(path, where, x, y)
            known = pairs.setdefault(look(pair.x), pair)
            if known.answers != pair.answers:
                raise InputError(
                    f"{path}, {where}: input {pair.x!r} appears again{as_typed(known, pair)} with "
                    f"answer {_show(pair)}, before it had {_show(known)}; expected one answer per "
                    "input (several accepted answers go into one row)"
                )
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except PermissionError:
        raise InputError(f"{path}: no permission to read the file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not pairs:
        raise InputError(f"{path}: no pairs; expected at least one")
    return Task(path.stem, "user", f"pairs from {path.name}", tuple(pairs.values()))


def _check_name(path: Path) -> None:
    check_text("the name of a file of pairs", str(path))
    size = len(path.stem.encode())
    if size > LONGEST_NAME:
        raise InputError(
            f"{shown(path.name)}: the name of a file of pairs names the task, and has {size} "
            f"bytes; expected at most {LONGEST_NAME}: rename the file"
        )


def _show(pair: Pair) -> str:
    return "|".join(map(repr, pair.answers))


def _pair(path: Path, where: str, x: Any, y: Any) -> Pair:
    answers = y if isinstance(y, list) else [y]
    if not isinstance(x, str) or not all(isinstance(a, str) for a in answers):
        raise InputError(
            f"{path}, {where}: input and output must be text, got {shown(x)} -> {shown(y)}"
        )
    for column, cell in ((COLUMNS[0], x), *((COLUMNS[1], a) for a in answers)):
        if not {"\n", "\r"}.isdisjoint(cell.strip()):
            raise InputError(
                f"{path}, {where}: a line break in {column} {shown(cell.strip())}; expected one "
                "line (line breaks separate the demonstrations of a prompt)"
            )
    try:
        return Pair(x.strip(), tuple(a.strip() for a in answers))
    except InputError as error:
        raise InputError(f"{path}, {where}: {error}") from None


# --- JSON -----------------------------------------------------------------------------------


class _Object(tuple):
    """The items of a JSON object in order, so that a repeated key can be refused."""

    __slots__ = ()


def _parse(path: Path, text: str, line: int | None = None) -> Any:
    """JSON with objects as `_Object`; `line` is the number of a single line, for messages."""
    where = f"{path}, line {line}" if line else f"{path}"
    try:
        return json.loads(text, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}, line {line or error.lineno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise InputError(f"{where}: nested too deeply; expected pairs of text") from None
    except ValueError:  # Python refuses numbers with more digits
        raise InputError(
            f"{where}: a number of more than {sys.get_int_max_str_digits():,} digits; expected "
            "pairs of text"
        ) from None


def _row(path: Path, where: str, row: Any) -> tuple[str, Any, Any]:
    """A row as an object with the keys "input" and "output", in upper or lower case."""
    items = row if isinstance(row, _Object) else ()
    names = [name.strip().lower() for name, _ in items]
    if isinstance(row, _Object):
        _refuse_twice(f"{path}, {where}", "key", names)
    missing = [c for c in COLUMNS if c not in names]
    if missing:
        said = shown(dict(row) if isinstance(row, _Object) else row)
        raise InputError(
            f"{path}, {where}: no {' and no '.join(map(repr, missing))}; expected an object with "
            f'"input" and "output", got {said}'
        )
    found = dict(zip(names, (value for _, value in items), strict=True))
    return where, found["input"], found["output"]


def _refuse_twice(where: str, what: str, names: list[str]) -> None:
    for name in COLUMNS:
        if names.count(name) > 1:
            raise InputError(f"{where}: two {what}s {name!r}; expected each once")


def _json(path: Path) -> Rows:
    data = _parse(path, path.read_text(encoding="utf-8-sig"))
    if isinstance(data, _Object):
        for i, (x, y) in enumerate(data, 1):
            yield f"entry {i}", x, y
        return
    if not isinstance(data, list):
        raise InputError(f"{path}: expected a JSON object or a list, got {type(data).__name__}")
    for i, row in enumerate(data, 1):
        yield _row(path, f"row {i}", row)


def _json_lines(path: Path) -> Rows:
    for i, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if line.strip():
            yield _row(path, f"line {i}", _parse(path, line, i))


# --- tables ---------------------------------------------------------------------------------


def _table(path: Path) -> Rows:
    """CSV or TSV with a header. A cell may list several accepted answers, split at `|`."""
    lines = _cells(path)
    _, header = next(lines, ("", []))
    names = [name.strip().lower() for name in header]
    missing = [c for c in COLUMNS if c not in names]
    if missing:
        raise InputError(
            f"{path}, line 1: missing column {' and '.join(map(repr, missing))}; expected "
            f"columns 'input' and 'output', got {', '.join(map(shown, header[:SHOWN])) or 'none'}"
        )
    _refuse_twice(f"{path}, line 1", "column", names)
    x, y = map(names.index, COLUMNS)
    for where, row in lines:
        if any(cell.strip() for cell in row[len(names) :]):
            raise InputError(
                f"{path}, {where}: too many columns; expected {len(names)} "
                "(quote a cell that holds the separator)"
            )
        if len(row) <= max(x, y):
            raise InputError(f"{path}, {where}: too few columns; expected {len(names)}")
        answers = row[y].split("|")
        if len(answers) > 1 and not all(answer.strip() for answer in answers):
            raise InputError(
                f"{path}, {where}: an empty answer for input {shown(row[x].strip())}: "
                f"{shown(row[y])} has nothing on one side of '|', which separates accepted "
                "answers in a table; expected text (in JSON '|' is a character like others)"
            )
        yield where, row[x], answers


def _cells(path: Path) -> Iterator[tuple[str, list[str]]]:
    """The non-empty rows of a table, each with its line number for messages."""
    tab = path.suffix.lower() == ".tsv"
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, delimiter="\t" if tab else ",", strict=True)
        line = 1
        try:
            for row in reader:
                if row:
                    yield f"line {reader.line_num}", row
                line = reader.line_num + 1
        except csv.Error as error:
            if "field limit" in str(error):
                reason = (
                    f"a cell of more than {csv.field_size_limit():,} characters; expected a word "
                    "or a few (a quote that opens and does not close makes one cell of all after)"
                )
            else:
                reason = f"{error}; a quote that opens must close"
            raise InputError(f"{path}, line {line}: {reason}") from None
