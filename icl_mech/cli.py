"""What all command lines share: options, errors as one line, exit code 2."""

import logging
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import tyro

from icl_mech.errors import IclMechError

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


Flat = Annotated[T, tyro.conf.OmitArgPrefixes]


def run(program: str, options: type[T], main: Callable[[T], None], argv: list[str] | None) -> None:
    """Parse options and run; a user's mistake gives one line on stderr and exit code 2."""
    chosen = tyro.cli(options, prog=f"python -m {program}", args=argv)
    _calm_libraries()
    try:
        main(chosen)
    except IclMechError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _calm_libraries() -> None:
    """Libraries' notices to programmers are not for the reader of a command's output."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
