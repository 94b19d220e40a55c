"""The progress bar that all long questions show."""

import sys
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm

#: Called with how many steps have just been done.
Tick = Callable[[int], object]
#: How many edits of a last token take as long as a few-shot prompt that is read as a whole, about
#: (10 on two CPU cores with five shots): so that the time left can be told from a bar over both.
READING = 10
#: Seconds between two lines where a bar cannot be redrawn in place: in a file or pipe.
EVERY = 15


#: Whether bars are widgets: in a notebook with ipywidgets.
_WIDGETS = any(base.__module__ == "tqdm.notebook" for base in tqdm.__mro__)


class ProgressBar(tqdm):
    """A bar without a thread that watches it: that may hang a process without memory.

    In a notebook it leaves nothing behind, also not in the file, unless it ends in an error.
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
        """Say what is being done; into a file or pipe with the next line that is due."""
        if not self.disable:  # a bar that is not shown holds no numbers
            super().set_description(desc, bool(refresh) and self.mininterval < EVERY)


#: Moves a terminal's cursor one line up, which tqdm does to redraw a bar below another one.
_UP = "\x1b[A"


class _Lines:
    """A stream on which every redrawing of a bar is a line of its own."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        line = text.replace(_UP, "").strip("\r\n ")
        if line:
            self._stream.write(f"{line}\n")

    def flush(self) -> None:
        self._stream.flush()


def dear(tick: Tick, cost: int = READING) -> Tick:
    """Make a tick for steps that each take as long as `cost` usual ones."""
    return lambda n: tick(n * cost)


def silent(n: int) -> None:
    """Do nothing: the tick of a caller that shows no progress."""


def progress_bar(total: int, unit: str, shown: bool) -> ProgressBar:
    """A bar on stderr, gone when it is done; into a file or pipe, a line now and then.

    Args:
        total: how many steps there are; where their costs differ much, the caller counts a dear
            one as several.
        unit: what a step is, in the plural.
        shown: the caller's `progress`.
    """
    in_place: dict[str, Any] = {"file": sys.stderr}
    if not _redraws(sys.stderr):
        in_place = {"file": _Lines(sys.stderr), "mininterval": EVERY, "delay": EVERY, "ncols": 100}
    # Steps differ in cost (short prompts, long prompts): an estimate over all of them so far
    # misleads less than one over the last few.
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
    """Whether a line can be drawn over: on a terminal and in a notebook."""
    return bool(stream.isatty()) or "ipykernel" in type(stream).__module__


def say(line: str) -> None:
    """Write one line to stderr, without breaking a bar that is being drawn."""
    tqdm.write(line, file=sys.stderr)
