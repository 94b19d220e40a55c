"""Ctrl-C while a command is still importing: a word and exit code 130, no traceback.

The package imports it first; a command hands over to Python's own handler when it begins to work
(`cli.run`). An exception would not do: libraries catch what is raised while they are imported.
"""

import os
import signal
import sys


def _stop(number: int, frame: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)  # nothing was begun that would have to be tidied up


def end_quietly() -> None:
    """End the process at once on Ctrl-C, if it is `python -m icl_mech...`."""
    if sys.argv[:1] == ["-m"]:  # until the module that is run is found; then its path
        signal.signal(signal.SIGINT, _stop)


def raise_again() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` from now on, so that work in progress is tidied up."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
