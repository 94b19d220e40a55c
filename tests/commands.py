"""Commands as a user types them, and the analyses, run in this process.

A process of their own would spend most of its time importing torch and loading the model again.
What only such a process shows (`--help` without torch, signals, exit by a pipe) has one.
"""

import io
import logging
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pages import ROOT

import icl_mech
from icl_mech.devices import pick_device
from icl_mech.model import HookedModel, load_model

Done = subprocess.CompletedProcess[str]
_LOGGERS = ("", "transformers", "transformer_lens", "huggingface_hub")


@cache
def _loaded(name: str | Path, options: tuple[tuple[str, Any], ...]) -> HookedModel:
    return load_model(name, **dict(options))


def loaded(name: str | Path = "gemma-3-270m", **options: Any) -> HookedModel:
    """`load_model`; models with the same name and options are loaded once."""
    usual = {
        "dtype": "float32",
        "trust_remote_code": False,
        "sink": None,
        "adapter": None,
        "engine": "auto",
    }
    device = {"device": str(pick_device(options.pop("device", None)))}
    return _loaded(name, tuple((usual | options | device).items()))


def run_room(room: str, *options: str) -> Done:
    """`python -m icl_mech.<room>` without a progress bar."""
    argv = ["--no-progress", *options]
    main: Callable[[list[str]], None] = import_module(f"icl_mech.{room}.__main__").main
    return _run(lambda: main(argv), argv)


def run_command(*words: str) -> Done:
    """`icl-mech <words>` without a progress bar."""
    argv = [*words, "--no-progress"]
    return _run(lambda: import_module("icl_mech.cli").main(argv), argv)


def run_analysis(name: str, options: str, out: Path) -> str:
    """`python analyses/<name>.py <options> --out <out>`, which must succeed: what it prints."""
    script = str(ROOT / "analyses" / f"{name}.py")
    argv = [script, *options.split(), "--out", str(out)]
    done = _run(lambda: runpy.run_path(script, run_name="__main__"), argv)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _run(program: Callable[[], object], argv: list[str]) -> Done:
    """What it prints, and the exit code that it ends with."""
    said, complained = io.StringIO(), io.StringIO()
    code = 0
    with redirect_stdout(said), redirect_stderr(complained), _a_users_process(argv):
        try:
            program()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess(argv, code, said.getvalue(), complained.getvalue())


@contextmanager
def _a_users_process(argv: list[str]) -> Iterator[None]:
    """Arguments, folder, warnings and loggers as in a process of its own, and back."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    with (
        patch.object(sys, "argv", argv),
        patch.object(icl_mech, "load_model", loaded),
        patch("icl_mech.model.load_model", loaded),
        patch.dict(os.environ),
        chdir(ROOT),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("default")
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)


def assert_refused(done: Done, message: str) -> None:
    """A user's mistake: exit code 2, the reason on stderr, nothing else."""
    assert done.returncode == 2, done.stderr
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def assert_quick_help(room: str, *unwanted: str) -> None:
    """`--help` succeeds without loading these libraries."""
    program = (
        f"import sys; from icl_mech.{room}.__main__ import main\n"
        "try: main(['--help'])\n"
        f"except SystemExit as e: print(e.code, [m for m in {unwanted!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("0 []\n")
