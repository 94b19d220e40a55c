"""What the README files show is there."""

import re
from pathlib import Path

import pytest
from pages import ROOT

import icl_mech
from icl_mech.cli.main import COMMANDS

PAGES = [ROOT / "README.md", ROOT / "analyses" / "README.md", *(ROOT / "icl_mech").rglob("*.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", text)
    assert all((page.parent / target).exists() for target in targets)
    assert all((ROOT / script).exists() for script in re.findall(r"analyses/\w+\.py", text))
    assert set(re.findall(r"icl_mech\.([a-z_]+)\(", text)) <= set(icl_mech.__all__)
    assert set(re.findall(r"`icl-mech ([a-z][a-z-]+)", text)) <= set(COMMANDS)
    rooms = re.findall(r"python -m icl_mech\.([a-z_]+)", text)
    assert all((ROOT / "icl_mech" / room / "__main__.py").exists() for room in rooms)


def test_the_table_of_questions_names_every_command_and_its_function() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    rows = [line.split("|")[2:4] for line in text.splitlines() if line.startswith("| ")][1:]
    functions, commands = (
        set(re.findall(r"`([^`]+)`", " ".join(c))) for c in zip(*rows, strict=True)
    )
    assert functions <= set(icl_mech.__all__)
    assert {name.removeprefix("icl-mech ") for name in commands} == set(COMMANDS)


def test_every_analysis_is_in_the_index() -> None:
    text = PAGES[1].read_text(encoding="utf-8")
    assert all(script.name in text for script in (ROOT / "analyses").glob("*.py"))
