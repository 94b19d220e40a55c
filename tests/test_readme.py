"""What README shows is there."""

import re

import pytest
from pages import ROOT

import icl_mech

TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("image", re.findall(r"!\[[^\]]*\]\(([^)]+)\)", TEXT))
def test_images_exist(image: str) -> None:
    assert (ROOT / image).stat().st_size > 10_000


def test_names_exist() -> None:
    names = set(re.findall(r"icl_mech\.([a-z_]+)\(", TEXT))
    assert {"load_model", "layer_scan", "task_decodability"} <= names
    assert names <= set(icl_mech.__all__)


def test_commands_exist() -> None:
    rooms = set(re.findall(r"python -m icl_mech\.([a-z_]+)", TEXT))
    assert {"patch", "heads", "lens", "decodability", "localize"} <= rooms
    assert all((ROOT / "icl_mech" / room / "__main__.py").exists() for room in rooms)
    assert all((ROOT / path).exists() for path in re.findall(r"analyses/\w+\.py", TEXT))
