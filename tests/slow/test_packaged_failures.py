"""What one task vector of the packaged model cannot do."""

import numpy as np
import pytest

from icl_mech.failures import TaskVectorFailures, task_vector_failures
from icl_mech.model import HookedModel


@pytest.fixture(scope="module")
def on_gemma(gemma: HookedModel) -> TaskVectorFailures:
    return task_vector_failures(
        gemma,
        ["lookup", "constant"],
        30,
        n_dev=12,
        repairs=["demonstrations"],
        repair_layers=[6],
        progress=False,
    )


def test_a_vector_cannot_look_up(on_gemma: TaskVectorFailures) -> None:
    assert on_gemma.accuracy("lookup", "few_shot").value >= 0.5
    vector, prior = on_gemma.accuracy("lookup"), on_gemma.prior("lookup").value
    assert prior == 0.25
    assert vector.low <= prior <= vector.high
    assert on_gemma.observed("lookup") == "label prior"
    assert on_gemma.explained("lookup").low <= 0
    # What the prompt shows, it knows; which of it belongs to the key, it does not.
    assert next(iter(on_gemma.errors("lookup"))) == "shown_answer"


def test_a_vector_can_hold_one_answer(on_gemma: TaskVectorFailures) -> None:
    assert on_gemma.accuracy("constant").value >= 0.9


def test_states_of_the_demonstrations_repair_the_lookup(on_gemma: TaskVectorFailures) -> None:
    repaired = on_gemma.recovered("lookup", "demonstrations")
    assert repaired.low > 0.3
    for control in ("_other_prompt", "_shuffled"):
        assert on_gemma.explained("lookup", f"demonstrations{control}").value <= 0.3


def test_errors_have_names_on_the_packaged_model(on_gemma: TaskVectorFailures) -> None:
    for task in on_gemma.tasks:
        for condition in ("theta", "few_shot", "demonstrations"):
            named = on_gemma.named(task, condition)
            assert np.isnan(named) or named >= 0.9
