"""What all command lines share: options, errors as one line, exit code 2."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from icl_mech.errors import IclMechError, InputError
from icl_mech.interrupts import raise_again
from icl_mech.prompts import Template
from icl_mech.run_names import run_name
from icl_mech.tasks import Task, list_tasks, load_tasks
from icl_mech.tasks.text import check_text

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from icl_mech.model import HookedModel
    from icl_mech.results import Result

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which model, and where it runs."""

    model: str = "gemma-3-270m"
    """The packaged model, a hub name (org/name or org/name@revision), a folder, or a .gguf file."""
    device: str | None = None
    """cuda, mps or cpu; by default the first that is there."""
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = "float32"
    """Of weights and activations."""
    trust_remote_code: tyro.conf.FlagCreatePairsOff[bool] = False
    """Let a hub model run its own code. Only for sources that you trust."""
    sink: str | None = None
    """The token that every prompt begins with, such as "<|endoftext|>"; by default BOS where the
    tokenizer itself prepends it, else the end-of-text token."""


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written and shown."""

    out: Path | None = None
    """The figure: .html, or .png, .svg, .pdf (these need Chrome). The data go beside it as .nc.
    By default in figures/, named after the question, tasks, model and changed settings."""
    json: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print the summary as one JSON object on stdout, and nothing else there."""
    no_progress: tyro.conf.FlagCreatePairsOff[bool] = False
    """No progress bar."""


@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """What is asked, and how."""

    task: Annotated[tuple[str, ...], tyro.conf.arg(aliases=["--tasks"])] = ("country_capital",)
    """Tasks by name, files of pairs (.json, .jsonl, .csv, .tsv), families of tasks that share
    their inputs (verbs, english_words, countries, letters, pos, bitwise), or 'all'."""
    seed: int = 0
    """Of every random draw."""
    template: str = "{x}->{y}"
    r"""How a pair is written; \n is a line break."""

    def __post_init__(self) -> None:
        # A shell hands on "\n" as two characters, which no prompt is meant to hold.
        object.__setattr__(self, "template", self.template.replace("\\n", "\n"))

    @property
    def names(self) -> list[str]:
        """The names, with 'all' spelled out."""
        return [n for name in self.task for n in (list_tasks() if name == "all" else [name])]

    def load(self) -> list[Task]:
        """The tasks named."""
        Template(self.template)
        return load_tasks(self.names)


Flat = Annotated[T, tyro.conf.OmitArgPrefixes]


def run(program: str, options: type[T], main: Callable[[T], None], argv: list[str] | None) -> None:
    """Parse options and run; a user's mistake gives one line on stderr and exit code 2."""
    _print_any_letter()
    try:
        raise_again()
        for word in sys.argv[1:] if argv is None else argv:
            check_text("option", word)
        with printing():
            chosen = tyro.cli(options, prog=f"python -m {program}", args=argv)
        _calm_libraries()
        main(chosen)
        with printing():
            pass
    except IclMechError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        raise SystemExit(0) from None


def _print_any_letter() -> None:
    """Print what the terminal's encoding lacks (theta's letter in cp1252) as its number."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def printing() -> Iterator[None]:
    """Print within this, and what cannot be written fails here, not as the interpreter ends.

    Raises:
        BrokenPipeError: where the reader is gone.
        InputError: where it cannot be written, as on a full disk.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except OSError as error:
        # The interpreter would try once more as it ends, and show a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise
        raise InputError(
            f"cannot write to standard output ({error.strerror or error}); expected room for it"
        ) from None


def target(options: Any, what: str, mode: str | None = None) -> Path:
    """Where the figure goes; refused now if it could not be written later.

    By default it is named after the question, the tasks, the models and what else was changed
    from its default, so that another run does not write over it.

    Args:
        options: of the command, with `tasks`, `models` and `output`.
        what: the question.
        mode: the field of the flag that asks it, if it has one.
    """
    from icl_mech.plotting import check_target

    if options.output.out is None:
        out = Path("figures") / f"{run_name(options, what, mode)}.html"
    else:
        out = options.output.out
    check_target(out)
    if options.output.out is not None and out.exists():
        print(f"note: {out} exists and will be replaced", file=sys.stderr)
    return out


def load(options: ModelOptions) -> HookedModel:
    """The model that the options name."""
    from icl_mech.model import load_model

    print(f"loading {options.model}", file=sys.stderr, flush=True)
    return load_model(
        options.model,
        device=options.device,
        dtype=options.dtype,
        trust_remote_code=options.trust_remote_code,
        sink=options.sink,
    )


def check_models(options: ModelOptions, also: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of all models, refused now if one could not be loaded later.

    Raises:
        InputError: where one is not there, or is named twice.
    """
    from icl_mech.model import check_source

    names = (options.model, *also)
    for name in names:
        check_source(name)
        if names.count(name) > 1:
            raise InputError(f"model {name!r} is named twice; expected each once")
    return names


#: What is still to be written, by what it is: each writes a file and says which.
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
        InputError: where a file cannot be written, after everything else was, and was printed.
    """
    from icl_mech.plotting import export

    def draw() -> Path:
        return export(result.plot() if figure is None else figure, out, result.caveats())

    writers = {"figure": draw, "data": lambda: result.save(out.with_suffix(".nc"))}
    deliver_all([result], rows(result), {**writers, **(also or {})}, output)


def rows(result: Result) -> list[dict[str, Any]]:
    """The whole summary, a row each, as JSON takes it: NaN as None."""
    table = result.full_summary().reset_index().astype(object)
    return table.where(table.notna(), None).to_dict(orient="records")


def deliver_all(
    results: Sequence[Result],
    summary: Sequence[Mapping[str, Any]],
    writers: Writers,
    output: OutputOptions,
) -> None:
    """Write files, and print what was found and where it lies, for people or as a JSON object.

    Args:
        results: one or more; of several, the provenance in JSON is a list under `also` but for
            the first's.
        summary: the rows of all, for JSON.
        writers: of the files.
        output: what is printed.

    Raises:
        InputError: where a file cannot be written, after everything else was, and was printed.
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


def _calm_libraries() -> None:
    """Libraries' notices to programmers are not for the reader of a command's output."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
