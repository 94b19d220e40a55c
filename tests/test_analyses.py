"""The analyses run as scripts and open as notebooks."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import pytest

from icl_mech.decodability import TaskDecodability, td_predicts_accuracy
from icl_mech.patch import LayerScan
from icl_mech.reference import han2024, hendel2023
from icl_mech.results import load_result

ROOT = Path(__file__).parent.parent
ANALYSES = sorted((ROOT / "analyses").glob("*.py"))
TASKS = ["next_letter", "country_capital"]


@pytest.mark.parametrize("path", ANALYSES, ids=lambda path: path.stem)
def test_opens_as_a_notebook(path: Path) -> None:
    notebook = jupytext.read(path)
    assert {cell.cell_type for cell in notebook.cells} == {"markdown", "code"}
    assert notebook.metadata["jupytext"]["text_representation"]["format_name"] == "percent"
    assert notebook.metadata["kernelspec"]["language"] == "python"
    assert notebook.cells[0].cell_type == "markdown"


@pytest.fixture(scope="module")
def figure2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script writes, run once."""
    out = tmp_path_factory.mktemp("figures") / "figure2.html"
    command = [sys.executable, "analyses/hendel_figure2.py", "--n-prompts", "4", "--out", str(out)]
    done = subprocess.run(
        [*command, "--task", *TASKS], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    return out


def _plotly(page: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Traces and layout of a figure in a page."""
    text = page.read_text(encoding="utf-8")
    start = text.index("[", text.rindex("Plotly.newPlot("))
    decoder = json.JSONDecoder()
    traces, end = decoder.raw_decode(text, start)
    layout, _ = decoder.raw_decode(text, text.index("{", end))
    return traces, layout


def test_figure_holds_the_published_curves(figure2: Path) -> None:
    traces, layout = _plotly(figure2)
    labels = {"LLaMA-7B": "llama-7b", "GPT-J-6B": "gpt-j-6b", "Pythia-6.9B": "pythia-6.9b"}
    for label, key in labels.items():
        drawn = [t for t in traces if t["name"] == f"{label}, published"]
        expected = [hendel2023().scan(key, task).dev_accuracy_by_layer for task in TASKS]
        assert [t["y"] for t in drawn] == [pytest.approx(curve) for curve in expected]
        assert all(t["x"][0] == 0 and t["x"][-1] == 1 for t in drawn)
    assert "published: Hendel et al. 2023" in layout["title"]["subtitle"]["text"]


def test_figure_holds_the_measured_curves(figure2: Path) -> None:
    traces, layout = _plotly(figure2)
    scan = load_result(figure2.with_suffix(".nc"))
    assert isinstance(scan, LayerScan)
    assert scan.tasks == TASKS
    drawn = [t for t in traces if t["name"] == "gemma-3-270m, measured here"]
    assert [t["y"] for t in drawn] == [[e.value for e in scan.curve(task)] for task in TASKS]
    assert all({point[3] for point in t["customdata"]} == {4} for t in drawn)
    assert len([t for t in traces if "Wilson" in t["name"]]) == len(TASKS)
    assert "measured here: gemma-3-270m, 4 test prompts" in layout["title"]["subtitle"]["text"]


def test_every_curve_is_named_once_in_the_legend(figure2: Path) -> None:
    traces, _ = _plotly(figure2)
    named = [t["name"] for t in traces if t.get("showlegend", True)]
    assert len(named) == len(set(named)) == 5


# --- decodability and accuracy --------------------------------------------------------------


@pytest.fixture(scope="module")
def decodability(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What the script writes and prints, run once."""
    out = tmp_path_factory.mktemp("figures") / "td.html"
    options = ["--families", "verbs", "countries", "--n-points", "8", "--n-shots", "1", "2"]
    command = [sys.executable, "analyses/han_td_predicts_icl.py", *options, "--k", "3"]
    done = subprocess.run(
        [*command, "--out", str(out)],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_a_point_per_task_and_number_of_shots(decodability: tuple[Path, str]) -> None:
    out, _ = decodability
    traces, layout = _plotly(out)
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
