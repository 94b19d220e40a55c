"""Programs in a process of their own that need not import the libraries again.

One process imports them, without the tests' checks of types and shapes, and is copied for every
program. A copy has its own limits, signals, folder and environment, and can be killed. What
happens while libraries are imported, and what memory they map, only a new process shows.
"""

import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from dataclasses import dataclass
from functools import cache
from typing import IO, Any, NoReturn


@dataclass
class Running:
    """A program that was started."""

    pid: int
    argv: list[str]
    _status: IO[bytes]
    _out: IO[bytes]
    _err: IO[bytes]

    def kill(self) -> None:
        """End it at once, as the system does where memory is short."""
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """What it printed, and its exit code; below 0, the signal that ended it."""
        code = int(self._status.readline())
        said, complained = (_all_of(file) for file in (self._out, self._err))
        self._status.close()
        return subprocess.CompletedProcess(self.argv, code, said, complained)


def _all_of(file: IO[bytes]) -> str:
    with file:
        file.seek(0)
        return file.read().decode("utf-8")


def start(
    program: str, *argv: str, environment: dict[str, str] | None = None, file_limit: int = -1
) -> Running:
    """`python -c <program> <argv>`, or `python -m` if it is the name of a module.

    No file may grow beyond `file_limit` bytes, if it is not negative: as on a full disk.
    """
    ask = {
        "program": program,
        "argv": list(argv),
        "environment": os.environ | (environment or {}),
        "folder": os.getcwd(),
        "file_limit": file_limit,
    }
    with tempfile.TemporaryFile() as text:
        text.write(json.dumps(ask).encode())
        text.seek(0)
        read, write = os.pipe()
        out, err = (tempfile.TemporaryFile() for _ in range(2))  # noqa: SIM115  `wait` closes them
        fds = [text.fileno(), out.fileno(), err.fileno(), write]
        socket.send_fds(_server()[0], [b"x"], fds)
    os.close(write)
    status = os.fdopen(read, "rb")
    return Running(int(status.readline()), list(argv), status, out, err)


def run(program: str, *argv: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """The same, waited for."""
    return start(program, *argv, **options).wait()


@cache
def _server() -> tuple[socket.socket, subprocess.Popen]:
    """Where to ask, and the process that is asked; it ends when this one does."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, __file__, str(theirs.fileno())]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    return ours, process


# --- in the process that is copied ----------------------------------------------------------


def _serve(asked: socket.socket) -> None:
    """Until nobody can ask any more."""
    import plain  # noqa: F401
    import tiny_models  # noqa: F401

    import icl_mech.patch
    import icl_mech.plotting
    import icl_mech.synthetic

    for room in (icl_mech, icl_mech.plotting, icl_mech.patch, icl_mech.synthetic):
        for name in room.__all__:  # what is imported when it is first used
            getattr(room, name)

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        _, fds, _, _ = socket.recv_fds(asked, 1, 4)
        if not fds:
            return
        if os.fork() == 0:
            asked.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _watch(*fds)
        for fd in fds:
            os.close(fd)


def _watch(text: int, out: int, err: int, status: int) -> NoReturn:
    """Start the program, and say how it ended: its parent cannot be the one that serves."""
    with os.fdopen(text, "rb") as file:
        ask = json.load(file)
    pid = os.fork()
    if pid == 0:
        os.close(status)
        os.dup2(out, 1)
        os.dup2(err, 2)
        _be(ask)
    os.write(status, b"%d\n" % pid)
    _, ended = os.waitpid(pid, 0)
    os.write(status, b"%d\n" % os.waitstatus_to_exitcode(ended))
    os._exit(0)


def _be(ask: dict[str, Any]) -> NoReturn:
    """The program, as Python runs it."""
    import resource

    os.environ.clear()
    os.environ.update(ask["environment"])
    os.chdir(ask["folder"])
    if ask["file_limit"] >= 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (ask["file_limit"], ask["file_limit"]))
    code = 0
    try:
        sys.argv = ["-c", *ask["argv"]]
        if ask["program"].replace(".", "").isidentifier():
            runpy.run_module(ask["program"], run_name="__main__", alter_sys=True)
        else:
            exec(ask["program"], {"__name__": "__main__"})
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
