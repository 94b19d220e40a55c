"""Where the packaged model forms and reads its task vectors."""

import pytest

from icl_mech.localize import TaskMap, localize
from icl_mech.model import HookedModel

TASKS = ["countries/capital", "countries/language"]


@pytest.fixture(scope="module")
def found(gemma: HookedModel) -> TaskMap:
    return localize(gemma, TASKS, 12, 5, n_points=24, progress=False)


def test_layers_of_country_capital(found: TaskMap) -> None:
    """The vector forms in blocks 7 to 10, and is consumed in 10 to 13; the lens agrees."""
    formed = found.formation(TASKS[0], "transfer").estimate
    assert 7 <= formed.value <= 10
    for readout in ("transfer", "lens"):
        assert 10 <= found.decoding(TASKS[0], readout).estimate.value <= 13
    assert found.learns(TASKS[0])
    assert found.data["query"].dims == ("task", "point")
    assert set(found.provenance["seconds"]) == {
        "reading",
        "lens",
        "transfer",
        "encoding",
        "heads",
        "masking",
    }
