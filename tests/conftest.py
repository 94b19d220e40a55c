"""Models that several tests share, each made once."""

import gc
import os
from pathlib import Path

# Two workers with two threads each would wait for one another most of the time. Commands that
# tests run inherit it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"


import pytest
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "icl_mech"


def modules_with_shapes() -> list[str]:
    """Modules outside `model/` that name shapes of arrays; checks would slow others down too."""
    return [
        ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != "model" and "jaxtyping" in path.read_text("utf-8")
    ]


# Shapes are checked at every call, in `model/` only by `make test-tl3`, whose files run all of it.
CHECKED = {"model": ["icl_mech.model"], "nothing": [], "rooms": modules_with_shapes()}
install_import_hook(CHECKED[os.environ.get("CHECK_SHAPES_IN", "rooms")], "beartype.beartype")

from commands import loaded
from tiny_models import FAMILIES, answering_model, answering_task, saved, tiny_model

from icl_mech.model import HookedModel

SLOW = Path(__file__).parent / "slow"

# What is imported while tests are collected is no garbage, and stays: the collector need not look
# through it again and again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of `slow/` is slow. Files with the packaged model come first: none is left for the end.

    A file's tests stay in one process (`loadfile`), for what they share is made once.
    """
    for item in items:
        if SLOW in item.path.parents:
            item.add_marker("slow")
    long = {item.path for item in items if "gemma" in getattr(item, "fixturenames", ())}
    items.sort(key=lambda item: item.path not in long)


@pytest.fixture(params=FAMILIES)
def tiny(request: pytest.FixtureRequest) -> HookedModel:
    """A tiny random model of each family in turn."""
    return tiny_model(request.param)


@pytest.fixture
def tiny_llama() -> HookedModel:
    """One tiny random model, where one is enough."""
    return tiny_model("llama")


@pytest.fixture(scope="session")
def gemma() -> HookedModel:
    """The packaged model."""
    return loaded(device="cpu")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """`--model` for commands: a tiny one in a folder, loaded once."""
    return ["--model", str(saved(answering_model(), tmp_path_factory.mktemp("models") / "small"))]


@pytest.fixture(scope="session")
def small(small_model: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The same, and `--task` with a task that it can do."""
    task = tmp_path_factory.mktemp("tasks") / "q.csv"
    rows = [f"{pair.x},{pair.y}" for pair in answering_task().pairs]
    task.write_text("\n".join(["input,output", *rows]))
    return [*small_model, "--task", str(task)]
