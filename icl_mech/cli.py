"""What all command lines share: options, errors as one line, exit code 2."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from zlib import crc32

import tyro

from icl_mech.errors import IclMechError
from icl_mech.prompts import Template
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


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written and shown."""

    out: Path | None = None
    """The figure: .html, or .png, .svg, .pdf (these need Chrome). The data go beside it as .nc."""
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

#: Bytes of tasks' names in the name of a file.
_LONGEST = 100


def run(program: str, options: type[T], main: Callable[[T], None], argv: list[str] | None) -> None:
    """Parse options and run; a user's mistake gives one line on stderr and exit code 2."""
    try:
        for word in sys.argv[1:] if argv is None else argv:
            check_text("option", word)
        chosen = tyro.cli(options, prog=f"python -m {program}", args=argv)
        _calm_libraries()
        main(chosen)
    except IclMechError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None


def target(
    output: OutputOptions, what: str, tasks: TaskOptions, model: str, *, spelled: bool = False
) -> Path:
    """Where the figure goes; refused now if it could not be written later.

    It is named after the one task, family or file, or after how many there are; with `spelled`
    after all of them, so that another list of as many does not write over it.
    """
    from icl_mech.figures import check_target

    # A file by its stem; a task of a family is named family/task, which would be a folder here.
    names = [Path(name).stem if Path(name).suffix else name for name in tasks.names]
    subject = names[0] if len(names) == 1 else f"{len(names)}_tasks"
    if spelled and len(names) > 1:
        every = "-".join(names)
        # File systems take names of 255 bytes; a longer list is told apart by its checksum.
        fits = len(every.encode()) <= _LONGEST
        subject = every if fits else f"{subject}-{crc32(every.encode()):08x}"
    name = f"{what}-{subject}-{Path(model).name}.html".replace("/", "-").replace("@", "-")
    out = output.out or Path("figures") / name
    check_target(out)
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
    )


def deliver(
    result: Result,
    out: Path,
    output: OutputOptions,
    figure: Figure | None = None,
    also: Mapping[str, Path] | None = None,
) -> None:
    """Save the data, export the figure, and print the summary.

    Args:
        result: what was measured.
        out: of the figure; the data go beside it.
        output: what is printed.
        figure: by default the result's own.
        also: other files that were written, by what they are.
    """
    from icl_mech.figures import export

    data = result.save(out.with_suffix(".nc"))
    written = export(result.plot() if figure is None else figure, out)
    files = {"figure": written, "data": data, **(also or {})}
    show([result], rows(result), files, output)


def rows(result: Result) -> list[dict[str, Any]]:
    """The summary, a row each, as JSON takes it: NaN as None."""
    table = result.summary().reset_index().astype(object)
    return table.where(table.notna(), None).to_dict(orient="records")


def show(
    results: Sequence[Result],
    summary: Sequence[Mapping[str, Any]],
    files: Mapping[str, Path],
    output: OutputOptions,
) -> None:
    """Print what was found and where it lies, for people or as one JSON object.

    Args:
        results: one or more; of several, the provenance in JSON is a list under `also` but for
            the first's.
        summary: the rows of all, for JSON.
        files: what was written, by what it is.
        output: what is printed.
    """
    if output.json:
        first, *more = (result.provenance for result in results)
        printed = {"summary": summary, "provenance": first, **({"also": more} if more else {})}
        print(json.dumps(printed | {name: str(path) for name, path in files.items()}))
        return
    for result in results:
        print(result)
        for caveat in result.caveats():
            print(f"note: {caveat}")
    print()
    width = max(map(len, files)) + 1
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
