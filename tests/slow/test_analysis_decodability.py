"""The analysis of decodability and accuracy, run small."""

from pathlib import Path

import pytest
from commands import run_analysis
from pages import plotly

from icl_mech.decodability import TaskDecodability, td_predicts_accuracy
from icl_mech.reference import han2024
from icl_mech.results import load_result


@pytest.fixture(scope="module")
def decodability(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the script writes and prints, run once."""
    out = tmp_path_factory.mktemp("figures") / "td.html"
    options = "--families verbs countries --n-prompts 8 --n-shots 1 2 --k 3"
    said = run_analysis("han_td_predicts_icl", options, out)
    return out, said


def test_a_point_per_task_and_number_of_shots(decodability: tuple[Path, str]) -> None:
    out, _ = decodability
    traces, layout = plotly(out)
    assert [t["name"] for t in traces] == ["1 shot", "2 shots"] * 2
    for i, family in enumerate(("verbs", "countries")):
        run = load_result(out.with_name(f"td-{family}.nc"))
        assert isinstance(run, TaskDecodability)
        for j, shots in enumerate((1, 2)):
            drawn = traces[2 * i + j]
            assert drawn["x"] == [run.held_out(shots, t).value for t in run.tasks]
            assert drawn["y"] == [run.accuracy(shots, t).value for t in run.tasks]
        r2 = td_predicts_accuracy(run).loc["overall", "r2"]
        assert f"R² {r2:.2f}; within task" in layout["annotations"][i]["text"]
    assert [t.get("showlegend", True) for t in traces] == [True, True, False, False]


def test_published_fits_are_printed_beside_ours(decodability: tuple[Path, str]) -> None:
    out, said = decodability
    assert "arXiv 2412.12276" in said
    for model, fits in han2024().r_squared.items():
        assert model in said
        assert str(fits["pos"]) in said
    assert "within shots" in said
    assert str(out) in said
