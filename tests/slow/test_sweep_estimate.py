"""What a dry run expects of cells, beside what is counted while they run."""

from pathlib import Path
from typing import Any

import pytest
from counting import counted
from tiny_models import random_model, saved

from icl_mech.model import HookedModel
from icl_mech.sweep import plan_sweep
from icl_mech.sweep.estimate import estimate
from icl_mech.sweep.work import measured

pytestmark = pytest.mark.thorough
#: Random models on which no other test of costs looks; the tokenizer has a token per byte.
HELD_OUT = ("mistral", "qwen3", "olmo2", "gpt_neox")
#: What the expected cost is of; the other task of controls is as long as the task itself.
OPTIONS: dict[str, dict[str, Any]] = {
    "scan": {"other_task": "to_upper"},
    "lens": {"other_task": "to_upper"},
    "decodability": {"k": 2, "probe": False, "controls": False},
    "positions": {},
}


def compare(
    source: str | Path, model: HookedModel, measure: str, task: str, n_prompts: int = 8
) -> dict[str, float]:
    """Expected over counted: operations, bytes, and memory beside the weights."""
    grid = plan_sweep(
        source, {measure: OPTIONS[measure] | {"n_shots": 3, "n_prompts": n_prompts}}, task
    )
    (row,) = estimate(grid).rows.to_dict("records")
    model.windows(256)
    done = counted(lambda: [measured(model, cell) for cell in grid.cells])
    weights = sum(p.numel() * p.element_size() for p in model.bridge.original_model.parameters())
    return {
        "operations": row["operations"] / done.work.operations,
        "bytes": row["bytes"] / done.work.bytes,
        "memory": row["memory"] / (weights + done.peak),
    }


@pytest.mark.parametrize("measure", sorted(OPTIONS))
@pytest.mark.parametrize("family", HELD_OUT)
def test_cells_of_held_out_families(family: str, measure: str, tmp_path: Path) -> None:
    folder = saved(random_model(family), tmp_path / family)
    (entry,) = plan_sweep(folder, measure, "letters").models.values()
    found = compare(folder, entry.load(), measure, "letters")
    if measure == "positions":  # on weights this small, what is rounded up counts
        del found["memory"]
    assert all(1 / 1.5 < ratio < 1.5 for ratio in found.values()), found


@pytest.mark.parametrize(
    ("measure", "task"),
    [("scan", "person_language"), ("scan", "letters/next"), ("lens", "present_past")],
)
def test_cells_of_the_packaged_model(gemma: HookedModel, measure: str, task: str) -> None:
    """Tasks of long words and of letters."""
    found = compare("gemma-3-270m", gemma, measure, task, 4)
    assert all(1 / 1.5 < ratio < 1.5 for ratio in found.values()), found
