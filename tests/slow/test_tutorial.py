"""The tutorial runs, and what its text says comes out."""

from pathlib import Path

from commands import run_analysis


def test_tutorial(tmp_path: Path) -> None:
    said = run_analysis("tutorial", "--n-prompts 8", tmp_path / "scan.html")
    lines = said.splitlines()
    assert "final_arrow    '->'" in lines
    assert "Lima" in lines  # with examples
    assert " Lima" in lines  # with the vector
    assert "TaskVector('country_capital', after block 9" in said
    assert "Egypt-> Cairo" in said
    assert lines[-2] == "7"  # seven
    assert (tmp_path / "scan.html").exists()
