"""The command `icl-mech`: which subcommands there are, and how any of them is run."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib import import_module
from io import StringIO, TextIOWrapper
from typing import Annotated, Any, Union

import tyro

from icl_mech.cli.output import printing
from icl_mech.errors import IclMechError, InputError, choose
from icl_mech.interrupts import raise_again
from icl_mech.tasks.text import check_text

#: Every subcommand, and the class of its options in `icl_mech.cli`.
COMMANDS = {
    "scan": "patch.ScanCommand",
    "positions": "patch.PositionsCommand",
    "components": "patch.ComponentsCommand",
    "mean-patching": "patch.MeanPatchingCommand",
    "heads": "heads.HeadsCommand",
    "ablate": "heads.AblateCommand",
    "function-vectors": "heads.FunctionVectorsCommand",
    "lens": "lens.LensCommand",
    "vector-lens": "lens.VectorLensCommand",
    "patchscope": "patchscope.PatchscopeCommand",
    "decodability": "decodability.DecodabilityCommand",
    "masking": "masking.MaskingCommand",
    "localize": "localize.LocalizeCommand",
    "decoder": "decoder.DecoderCommand",
    "checkpoints": "checkpoints.CheckpointsCommand",
    "table": "table.TableCommand",
    "sweep": "sweep.SweepCommand",
    "answers": "answers.AnswersCommand",
    "conflict": "conflict.ConflictCommand",
    "variability": "variability.VariabilityCommand",
    "vectors": "vector_methods.VectorsCommand",
    "knowledge": "knowledge.KnowledgeCommand",
    "progressive": "progressive.ProgressiveCommand",
    "transfer": "transfer.TransferCommand",
    "classify": "classification.ClassifyCommand",
    "failures": "failures.FailuresCommand",
    "finetune": "finetune.FinetuneCommand",
    "train": "train.TrainCommand",
    "check": "check.CheckCommand",
}
#: The subcommands by room, for `python -m icl_mech.<room>`: the flag that selects a subcommand. The
#: empty flag stands for the subcommand that runs if no flag is given.
ROOMS = {
    "patch": {
        "--layer-scan": "scan",
        "--position-scan": "positions",
        "--component-scan": "components",
        "--mean-patching": "mean-patching",
    },
    "heads": {"": "heads", "--ablation": "ablate", "--function-vectors": "function-vectors"},
    "lens": {"": "lens", "--vectors": "vector-lens"},
    "patchscope": {"": "patchscope"},
    "decodability": {"": "decodability", "--mean-patching": "mean-patching"},
    "masking": {"": "masking"},
    "localize": {"": "localize"},
    "decoder": {"": "decoder"},
    "checkpoints": {"": "checkpoints"},
    "table": {"": "table"},
    "sweep": {"": "sweep"},
    "answers": {"": "answers"},
    "conflict": {"": "conflict"},
    "variability": {"": "variability"},
    "vector_methods": {"": "vectors"},
    "knowledge": {"": "knowledge"},
    "progressive": {"": "progressive"},
    "transfer": {"": "transfer"},
    "classification": {"": "classify"},
    "failures": {"": "failures"},
    "finetune": {"": "finetune"},
    "synthetic": {"": "train"},
    "check": {"": "check"},
    "model": {"--check": "check"},
}
_ABOUT = (
    "Where in a transformer does in-context learning form its task vector, and where is it decoded?"
)


def command(name: str) -> Any:
    """The class of a subcommand's options.

    Raises:
        InputError: where there is no such subcommand, with the nearest.
    """
    choose(name, COMMANDS, "command")
    module, _, cls = COMMANDS[name].partition(".")
    return getattr(import_module(f"icl_mech.cli.{module}"), cls)


def main(argv: Sequence[str] | None = None) -> None:
    """`icl-mech <command> [options]`.

    A user's mistake gives one line on stderr and exit code 2.

    Args:
        argv: the words after `icl-mech`; by default those of this process.

    Example:
        >>> main(["scan", "--n-shots", "0"])  # error: n_shots is 0; expected at least 1
        Traceback (most recent call last):
        SystemExit: 2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    name = words[0] if words and not words[0].startswith("-") else None

    def parse() -> Any:
        if name is not None:
            return tyro.cli(command(name), prog=f"icl-mech {name}", args=words[1:])
        every = tuple(Annotated[command(c), tyro.conf.subcommand(c)] for c in COMMANDS)
        return tyro.cli(Union[every], prog="icl-mech", description=_ABOUT, args=words)  # type: ignore[call-overload] # noqa: UP007

    _run(words, parse)


def room_main(room: str, argv: Sequence[str] | None = None) -> None:
    """`python -m icl_mech.<room> [flag] [options]`: run the subcommand that the flag selects.

    Args:
        room: a key of `ROOMS`.
        argv: the words after the room; by default those of this process.

    Example:
        >>> room_main("patch", ["--layer-scan", "--n-shots", "0"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    words = list(sys.argv[1:] if argv is None else argv)
    flags = ROOMS[room]
    given = [w for w in words if w.replace("_", "-") in flags]

    def parse() -> Any:
        program = f"python -m icl_mech.{room}"
        asked = list(dict.fromkeys(w.replace("_", "-") for w in given))
        if len(asked) > 1:
            raise InputError(f"{' and '.join(asked)} at once; expected one of them (see --help)")
        if not asked and "" not in flags:
            if {"-h", "--help"} & set(words):
                _print_flags(program, flags)
                raise SystemExit(0)
            *most, last = flags
            choices = f"{', '.join(most)} or {last}" if most else last
            raise InputError(f"nothing to do; expected {choices} (see --help)")
        flag = asked[0] if asked else ""
        rest = [w for w in words if w not in given]
        return tyro.cli(command(flags[flag]), prog=f"{program} {flag}".strip(), args=rest)

    _run(words, parse)


def _print_flags(program: str, flags: dict[str, str]) -> None:
    print(f"usage: {program} {{{'|'.join(flags)}}} [OPTIONS]\n")
    for flag, name in flags.items():
        print(f"  {flag}: {command(name).__doc__.splitlines()[0]}")
    print(f"\nThe options of one of them: {program} {next(iter(flags))} --help")


def _run(words: Sequence[str], parse: Callable[[], Any]) -> None:
    """Parse and run; errors become a line on stderr and an exit code."""
    _print_any_letter()
    try:
        raise_again()
        for word in words:
            check_text("option", word)
        with printing():
            chosen = _parsed(parse)
        _calm_libraries()
        chosen.run()
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


def _parsed(parse: Callable[[], Any]) -> Any:
    """What `parse` returns; if the options' own classes refuse a value, raise their error.

    tyro prints such an error in a frame and raises `SystemExit`; the error is in its context.
    """
    printed = StringIO()
    try:
        with redirect_stderr(printed):
            return parse()
    except SystemExit as end:
        cause: BaseException | None = end
        while cause is not None and not isinstance(cause, IclMechError):
            cause = cause.__context__
        if cause is not None:
            raise cause from None
        sys.stderr.write(printed.getvalue())
        raise


def _print_any_letter() -> None:
    """Print characters that the terminal's encoding lacks (θ in cp1252) as escapes."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _calm_libraries() -> None:
    """Hide notices of libraries that are meant for programmers."""
    for name in ("transformers", "transformer_lens", "huggingface_hub", None):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.showwarning = lambda message, *_, **__: print(f"note: {message}", file=sys.stderr)
