"""Models that several tests share, each made once."""

import os
from functools import cache

# Two workers with two threads each would wait for one another most of the time. Commands that
# tests run inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
from commands import loaded
from tiny_models import FAMILIES, tiny_bridge

from icl_mech.model import HookedModel


@cache
def _tiny(family: str) -> HookedModel:
    return HookedModel(tiny_bridge(family), name=f"tiny-{family}")


@pytest.fixture(params=FAMILIES)
def tiny(request: pytest.FixtureRequest) -> HookedModel:
    """A tiny random model of each family in turn."""
    return _tiny(request.param)


@pytest.fixture
def tiny_llama() -> HookedModel:
    """One tiny random model, where one is enough."""
    return _tiny("llama")


@pytest.fixture(scope="session")
def gemma() -> HookedModel:
    """The packaged model."""
    return loaded(device="cpu")
