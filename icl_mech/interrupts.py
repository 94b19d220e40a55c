"""Ends a command on Ctrl-C during imports with one word and exit code 130, without a traceback.

The package imports this module first. A command switches back to Python's own handler when it
begins to work (`raise_again`). Raising an exception would not end the process, because libraries
catch exceptions that are raised while they are imported.
"""

import os
import signal
import sys


def _stop(number: int, frame: object) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)  # nothing needs to be cleaned up yet


def end_quietly() -> None:
    """End the process at once on Ctrl-C, if it is `python -m icl_mech...`."""
    if sys.argv[:1] == ["-m"]:  # Python replaces it by the module's path once that is found
        signal.signal(signal.SIGINT, _stop)


def raise_again() -> None:
    """Let Ctrl-C raise `KeyboardInterrupt` from now on, so that work in progress is cleaned up."""
    if signal.getsignal(signal.SIGINT) is _stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
