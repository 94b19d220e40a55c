"""The progress bar that all long questions show."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

#: Called with the number of steps that were just finished.
Tick = Callable[[int], object]
#: The approximate cost of reading a whole few-shot prompt, in edits of a last token (10 on two CPU
#: cores with five shots). It keeps the estimate of the time left right if a bar counts both.
READING = 10
#: Seconds between two lines if a bar cannot be redrawn in place (in a file or pipe).
EVERY = 15


#: Whether bars are widgets, as in a notebook with ipywidgets.
_WIDGETS = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


class ProgressBar(tqdm):
    """A bar without tqdm's monitor thread, which may hang a process that is out of memory.

    In a notebook it leaves nothing behind, not even in the file, unless it ends in an error.
    """

    monitor_interval = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._cell: Any = None
        if _WIDGETS:
            kwargs["display"] = False
        super().__init__(*args, **kwargs)
        if _WIDGETS and not self.disable:
            from IPython.display import display

            self._cell = display(vars(self)["container"], display_id=True)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if self._cell is not None and kind is None:
            self._cell.update({"text/html": "", "text/plain": ""}, raw=True)

    def set_description(self, desc: str | None = None, refresh: bool | None = True) -> None:
        """Set the description; in a file or pipe it appears with the next line that is due."""
        if not self.disable:  # a disabled bar has no counters
            super().set_description(desc, bool(refresh) and self.mininterval < EVERY)


#: The escape code that moves a terminal's cursor one line up; tqdm writes it for nested bars.
_UP = "\x1b[A"


class _Lines:
    """A stream on which every update of a bar is a line of its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.replace(_UP, "").strip("\r\n ")
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


def dear(tick: Tick, cost: int = READING) -> Tick:
    """Make a tick for steps that each count as `cost` usual ones."""
    return lambda n: tick(n * cost)


def silent(n: int) -> None:
    """Do nothing; the tick of a caller that shows no progress."""


def progress_bar(total: int, unit: str, shown: bool) -> ProgressBar:
    """A bar on stderr that disappears when it is done; a file or pipe gets lines instead.

    Args:
        total: number of steps; if their costs differ much, the caller counts an expensive step as
            several.
        unit: the name of a step, in the plural.
        shown: the caller's `progress`.
    """
    in_place: dict[str, Any] = {"file": sys.stderr}
    if not _redraws(sys.stderr):
        in_place = {"file": _Lines(sys.stderr), "mininterval": EVERY, "delay": EVERY, "ncols": 100}
    # Steps differ in cost (short prompts, long prompts), so a speed averaged over many steps gives
    # a better estimate than one over the last few.
    return ProgressBar(
        total=total,
        unit=f" {unit}",
        disable=not shown,
        smoothing=0.05,
        miniters=1,
        leave=False,
        **in_place,
    )


def _redraws(stream: Any) -> bool:
    """Whether a stream can redraw a line, as terminals and notebooks can."""
    return bool(stream.isatty()) or "ipykernel" in type(stream).__module__


def say(line: str) -> None:
    """Write one line to stderr, without breaking a bar that is being drawn."""
    tqdm.write(line, file=sys.stderr)
