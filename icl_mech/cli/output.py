"""Writes the files and prints the summary of a command after it has measured."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from icl_mech.errors import IclMechError, InputError

if TYPE_CHECKING:
    import pandas as pd
    from plotly.graph_objects import Figure

    from icl_mech.cli.options import OutputOptions
    from icl_mech.results import Result


@contextmanager
def printing() -> Iterator[None]:
    """Flush standard output at the end of the block, so that errors are raised here.

    Otherwise they would appear as a traceback when the interpreter ends.

    Raises:
        BrokenPipeError: where the reader is gone.
        InputError: where the output cannot be written, as on a full disk.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        # The interpreter would try again as it ends, and show a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise InputError(
            f"cannot write to standard output ({error.strerror or error}); expected room for it"
        ) from None


#: Functions that write files, by the name of the file's kind; each returns the path.
Writers = Mapping[str, Callable[[], Path]]


def deliver(
    result: Result,
    out: Path,
    output: OutputOptions,
    figure: Figure | None = None,
    also: Writers | None = None,
) -> None:
    """Save the data, export the figure, and print the summary.

    Args:
        result: what was measured.
        out: of the figure; the data go beside it.
        output: what is printed.
        figure: by default the result's own.
        also: other files.

    Raises:
        InputError: where a file cannot be written. The other files are written, and the summary is
            printed, before it is raised.
    """
    from icl_mech.plotting import export

    def draw() -> Path:
        drawn = result.plot() if figure is None else figure
        return export(drawn, out, result.caveats(), output.plotlyjs)

    writers = {"figure": draw, "data": lambda: result.save(out.with_suffix(".nc"))}
    deliver_all([result], rows(result), {**writers, **(also or {})}, output)


def rows(result: Result) -> list[dict[str, Any]]:
    """The rows of the whole summary for JSON, with None instead of NaN."""
    return plain_rows(result.full_summary().reset_index())


def plain_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table for JSON, with None instead of NaN."""
    plain = table.astype(object)
    return plain.where(plain.notna(), None).to_dict(orient="records")


def deliver_all(
    results: Sequence[Result],
    summary: Sequence[Mapping[str, Any]],
    writers: Writers,
    output: OutputOptions,
) -> None:
    """Write files, and print the results and the files' paths, as text or as a JSON object.

    Args:
        results: one or more. In JSON, `provenance` is that of the first; those of the others are a
            list, `also`.
        summary: the rows of all, for JSON.
        writers: of the files.
        output: what is printed.

    Raises:
        InputError: where a file cannot be written. The other files are written, and the results are
            printed, before it is raised.
    """
    files: dict[str, Path] = {}
    failures: list[IclMechError] = []
    for name, write in writers.items():
        try:
            files[name] = write()
        except IclMechError as error:
            failures.append(error)
    with printing():
        _print_json(results, summary, files) if output.json else _print_text(results, files)
    if failures:
        raise failures[0]


def _print_json(
    results: Sequence[Result], summary: Sequence[Mapping[str, Any]], files: Mapping[str, Path]
) -> None:
    first, *more = (result.provenance for result in results)
    printed = {
        "summary": summary,
        "caveats": list(dict.fromkeys(note for r in results for note in r.caveats())),
        "provenance": first,
        **({"also": more} if more else {}),
    }
    print(json.dumps(printed | {name: str(path) for name, path in files.items()}))


def _print_text(results: Sequence[Result], files: Mapping[str, Path]) -> None:
    for result in results:
        print(result)
    print()
    width = max(map(len, files), default=0) + 1
    for name, path in files.items():
        print(f"{name + ':':<{width}} {path.resolve()}")
