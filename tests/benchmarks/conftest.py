"""The packaged model, once for all comparisons."""

import pytest
from comparing import TASK

from icl_mech.model import HookedModel, load_model
from icl_mech.prompts import Encoder
from icl_mech.tasks import load_task


@pytest.fixture(scope="session")
def model() -> HookedModel:
    return load_model("gemma-3-270m", device="cpu")


@pytest.fixture(scope="session")
def encoder(model: HookedModel) -> Encoder:
    return model.encoder("{x}->{y}", [p.y for p in load_task(TASK).pairs])
