"""Progress bars: they end where they should, are quiet where nobody looks, and start no thread."""

import io
import subprocess
import sys
import threading
from importlib import import_module
from typing import Any

import pytest

from icl_mech import (
    answer_scores,
    layer_scan,
    localize,
    patch_positions,
    vector_variability,
)
from icl_mech.model import HookedModel
from icl_mech.progress import EVERY, ProgressBar, dear, progress_bar

FEW = {"n_prompts": 4, "n_shots": 2}


@pytest.mark.parametrize(
    ("room", "question", "tasks", "settings"),
    [
        ("answers.run", answer_scores, "to_upper", FEW),
        ("answers.run", answer_scores, ["to_upper", "to_lower"], {**FEW, "layer": 1}),
        ("patch.scan", layer_scan, "to_upper", FEW),
        ("patch.positions", patch_positions, "to_upper", FEW),
        ("localize.run", localize, "letters", {**FEW, "n_points": 12}),
        ("variability.run", vector_variability, ["to_upper", "to_lower"],
         {"n_prompts": 3, "n_shots": (1, 2), "n_dev": 2}),
    ],
)  # fmt: skip
def test_a_bar_ends_at_its_total_after_many_steps(
    room: str, question: Any, tasks: Any, settings: dict[str, Any], tiny_llama: HookedModel,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    bars: list[ProgressBar] = []

    def shown(total: int, unit: str, _: bool) -> ProgressBar:
        bars.append(progress_bar(total, unit, True))
        return bars[-1]

    monkeypatch.setattr(import_module(f"icl_mech.{room}"), "progress_bar", shown)
    question(tiny_llama, tasks, **settings)
    (bar,) = bars
    assert bar.n == bar.total > 10


def test_into_a_pipe_goes_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress_bar(1000, "runs", True) as bar:
        for i in range(1000):
            bar.set_description(f"step {i}")
            bar.update()
    assert pipe.getvalue() == ""
    with progress_bar(10, "runs", True) as bar:
        bar.start_t -= 2 * EVERY  # as if it had begun so long ago
        bar.last_print_t -= 2 * EVERY
        bar.set_description("to_upper")
        bar.update(5)
    (line,) = pipe.getvalue().splitlines()
    assert line.startswith("to_upper:  50%")
    assert "\r" not in line


def test_no_bar_is_drawn_for_who_wants_none(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    terminal.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress_bar(10, "runs", False) as bar:
        bar.update(10)
    assert terminal.getvalue() == ""
    with progress_bar(10, "runs", True) as bar:
        bar.update(10)
    assert "runs" in terminal.getvalue()


def test_no_thread_watches_a_bar() -> None:
    before = threading.active_count()
    with progress_bar(10, "runs", True), progress_bar(10, "runs", False):
        assert threading.active_count() == before


def test_a_dear_step_counts_as_several() -> None:
    counted: list[int] = []
    dear(counted.append, 7)(3)
    assert counted == [21]


def test_a_notebook_without_ipywidgets_is_told_nothing() -> None:
    """tqdm warns where it is imported in a notebook that cannot show its own bars."""
    program = """
import sys, types, warnings
warnings.simplefilter("error")
kernel = types.SimpleNamespace(config={"IPKernelApp": {}}, parent_header={})
sys.modules["IPython"] = ipython = types.ModuleType("IPython")
ipython.get_ipython = lambda: kernel
ipython.version_info = (9, 0)
sys.modules["ipywidgets"] = None
import icl_mech.progress
from tqdm.auto import tqdm
print(tqdm.__module__)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "tqdm.asyncio\n"


def test_a_bar_below_another_one_moves_no_cursor_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress_bar(10, "tasks", True) as outer, progress_bar(10, "runs", True) as inner:
        for bar in (outer, inner):
            bar.start_t -= 2 * EVERY
            bar.last_print_t -= 2 * EVERY
            bar.update(5)
    assert len(pipe.getvalue().splitlines()) == 2
    assert "\x1b" not in pipe.getvalue()
