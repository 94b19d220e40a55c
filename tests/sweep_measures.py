"""Measures for tests of sweeps: one that does nothing, and one that does what its tasks say.

A module of its own, so that other processes find it too.
"""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from icl_mech.model import HookedModel
from icl_mech.prompts import PromptSettings
from icl_mech.results import TaskResult
from icl_mech.sweep.measures import Measure
from icl_mech.tasks import load_tasks


@dataclass(frozen=True, kw_only=True)
class MarkSettings(PromptSettings):
    """Where the runs of every cell are counted, and which tasks go wrong, and how."""

    marks: str = ""
    raises: tuple[str, ...] = ()
    dies: tuple[str, ...] = ()
    always_dies: bool = False
    waits: float = 0


class Marks(TaskResult):
    """Numbers that the model and the seed decide."""

    def full_summary(self) -> pd.DataFrame:
        return self.data["mark"].to_series().to_frame()

    to_frame = table = full_summary

    def _draw(self) -> go.Figure:
        return go.Figure()


def plan(tasks: Any, settings: MarkSettings) -> tuple[list[str], MarkSettings]:
    """The names of the tasks."""
    return [task.name for task in load_tasks(tasks)], settings


def measure(model: HookedModel, planned: Any, progress: bool) -> Marks:
    """A number; what goes wrong does so once where `marks` counts runs, else always."""
    tasks, s = planned
    (task,) = tasks
    times = 1
    if s.marks:
        file = Path(s.marks) / f"{model.name}-{task}-{s.seed}".replace("/", "-")
        with file.open("a") as runs:
            runs.write(f"{os.getpid()}\n")
        times = len(file.read_text().splitlines())
    if s.waits:
        time.sleep(s.waits)
    if task in s.raises:
        raise ValueError(f"no {task}\nand more")
    if s.always_dies or (task in s.dies and times == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    data = xr.Dataset({"mark": ("task", np.array([model.d_model + s.seed]))}, {"task": tasks})
    return Marks(data, {"model": model.name, "weights": model.weight_hash})


MARKS = Measure(
    "sweep_measures", ":MarkSettings", ":plan", ":measure", tasks=("antonyms", "to_upper")
)
