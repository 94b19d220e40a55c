"""The progress bar that all long questions show."""

import sys
from collections.abc import Callable

from tqdm.auto import tqdm

#: Called with how many steps have just been done.
Tick = Callable[[int], object]


def silent(n: int) -> None:
    """A tick that nobody looks at."""


class _Bar(tqdm):
    """A bar without tqdm's second thread, which wakes up bars that have not moved for a while.

    A process without memory left waits for ever for a thread to start; and these bars look at the
    clock at every step.
    """

    monitor_interval = 0


def progress_bar(total: int, unit: str, shown: bool) -> tqdm:
    """A bar on stderr, gone when it is done.

    Args:
        total: how many steps there are.
        unit: what a step is, in the plural.
        shown: the caller's `progress`.
    """
    # Steps differ in cost (short prompts, long prompts): an estimate over all of them so far
    # misleads less than one over the last few.
    return _Bar(
        total=total,
        unit=f" {unit}",
        disable=not shown,
        file=sys.stderr,
        smoothing=0.05,
        miniters=1,
        leave=False,
    )
