"""Summaries are narrow enough to be read: every kind of result names the columns to quote."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from tiny_models import answering_bridge, answering_task, random_model, saved

import icl_mech as im
from icl_mech.model import HookedModel
from icl_mech.results import ROOMS, Result, load_result
from icl_mech.synthetic import Emergence, emergence_over_seeds

#: A table of more columns is not read in a terminal.
MOST = 12
SHIPPED = sorted((Path(__file__).parents[1] / "analyses" / "data").glob("small-seed*.nc"))
VERBS = ["to_upper", "to_lower"]
FEW: dict[str, Any] = {"n_prompts": 4, "n_shots": 2, "progress": False}

#: How each kind is made on a model that does `answering_task`.
MADE: dict[str, Callable[[HookedModel], Result]] = {
    "AnswerScores": partial(im.answer_scores, tasks="to_upper", **FEW),
    "Checkpoints": lambda model: im.over_checkpoints(
        {1: lambda: model, 2: lambda: model}, VERBS, n_points=12, **FEW
    ),
    "ConflictingTasks": partial(im.conflicting_tasks, tasks=[("to_upper", "next_letter")], **FEW),
    "Emergence": lambda _: _last_steps(SHIPPED[0]),
    "EmergenceOverSeeds": lambda _: emergence_over_seeds(map(_last_steps, SHIPPED[:2])),
    "Finetuning": lambda _: _finetuned(),
    "FunctionVectors": partial(im.function_vectors, tasks=answering_task(), n_heads=(1, 2), **FEW),
    "HeadAblation": partial(im.head_ablation, tasks=answering_task(), n_draws=2, **FEW),
    "HeadAttribution": partial(
        im.head_attribution,
        tasks=answering_task(),
        n_clean=2,
        methods=("aie", "attribution"),
        **FEW,
    ),
    "LayerScan": partial(im.layer_scan, tasks="to_upper", **FEW),
    "LogitLens": partial(im.logit_lens, tasks="to_upper", **FEW),
    "MeanPatching": partial(im.mean_patching, n_mean=4, **FEW),
    "PositionScan": partial(im.patch_positions, tasks="to_upper", **FEW),
    "TaskDecodability": partial(im.task_decodability, n_prompts=12, n_shots=2, k=3, progress=False),
    "TaskMap": partial(im.localize, tasks=answering_task(), n_points=12, **FEW),
    "TaskTable": partial(im.task_table, tasks=VERBS, **FEW),
    "TaskVectorFailures": partial(
        im.task_vector_failures, tasks="lookup_once", repair_layers=[1], **FEW
    ),
    "VectorLens": partial(im.vector_lens, tasks="to_upper", **FEW),
    "VectorVariability": partial(im.vector_variability, tasks=VERBS, **FEW),
}
#: Quoted where a run has them: these have not.
MISSING = {"MeanPatching": {"null"}}


def _last_steps(path: Path) -> Emergence:
    """The last two checkpoints: every one takes seconds."""
    run = load_result(path)
    assert isinstance(run, Emergence)
    return Emergence(run.data.isel(step=slice(-2, None)), run.provenance)


def _finetuned() -> Result:
    """Of a model that is saved first: what is trained is read from a folder."""
    with TemporaryDirectory() as folder:
        base = saved(random_model("llama"), Path(folder) / "base")
        run: dict[str, Any] = {"n_steps": 2, "batch_size": 3, "n_checkpoints": 2}
        return im.finetune(base, "letters", folder=Path(folder) / "run", **run, **FEW)


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return HookedModel(answering_bridge(), name="answering")


def test_no_kind_is_forgotten() -> None:
    assert set(MADE) == set(ROOMS)


@pytest.mark.parametrize("kind", MADE)
def test_a_summary_can_be_read(kind: str, answering: HookedModel) -> None:
    result = MADE[kind](answering)
    assert type(result).__name__ == kind
    narrow, full = result.summary(), result.full_summary()
    assert 4 <= len(narrow.columns) <= MOST
    assert narrow.equals(full[list(narrow.columns)])
    # A name that no run has would never be missed.
    assert set(result.QUOTED) - set(full.columns) == MISSING.get(kind, set())
