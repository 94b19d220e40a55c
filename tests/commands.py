"""Commands as a user runs them, in processes of their own."""

import subprocess
import sys
from pathlib import Path

from pages import ROOT

Done = subprocess.CompletedProcess[str]


def run_room(room: str, *options: str) -> Done:
    """`python -m icl_mech.<room>` without a progress bar."""
    command = [sys.executable, "-m", f"icl_mech.{room}", "--no-progress", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def run_analysis(name: str, options: str, out: Path) -> str:
    """`python analyses/<name>.py <options> --out <out>`, which must succeed: what it prints."""
    command = [sys.executable, f"analyses/{name}.py", *options.split(), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


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
