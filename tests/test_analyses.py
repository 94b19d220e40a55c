"""The analyses run as scripts and open as notebooks."""

from pathlib import Path

import jupytext
import pytest
from commands import run_analysis
from pages import ROOT, plotly

from icl_mech.conflict import ConflictingTasks
from icl_mech.lens import VectorLens
from icl_mech.patch import LayerScan
from icl_mech.reference import hendel2023
from icl_mech.results import load_result

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
    said = run_analysis("hendel_figure2", f"--n-prompts 4 --task {' '.join(TASKS)}", out)
    assert str(out) in said
    return out


def test_figure_holds_the_published_curves(figure2: Path) -> None:
    traces, layout = plotly(figure2)
    labels = {"LLaMA-7B": "llama-7b", "GPT-J-6B": "gpt-j-6b", "Pythia-6.9B": "pythia-6.9b"}
    for label, key in labels.items():
        drawn = [t for t in traces if t["name"] == f"{label}, published"]
        expected = [hendel2023().scan(key, task).dev_accuracy_by_layer for task in TASKS]
        assert [t["y"] for t in drawn] == [pytest.approx(curve) for curve in expected]
        assert all(t["x"][0] == 0 and t["x"][-1] == 1 for t in drawn)
    assert "published: Hendel et al. 2023" in layout["title"]["subtitle"]["text"]


def test_figure_holds_the_measured_curves(figure2: Path) -> None:
    traces, layout = plotly(figure2)
    scan = load_result(figure2.with_suffix(".nc"))
    assert isinstance(scan, LayerScan)
    assert scan.tasks == TASKS
    drawn = [t for t in traces if t["name"] == "gemma-3-270m, measured here"]
    assert [t["y"] for t in drawn] == [[e.value for e in scan.curve(task)] for task in TASKS]
    assert all({point[3] for point in t["customdata"]} == {4} for t in drawn)
    assert len([t for t in traces if "interval" in t["name"]]) == len(TASKS)
    assert "measured here: gemma-3-270m, 4 test prompts" in layout["title"]["subtitle"]["text"]


def test_every_curve_is_named_once_in_the_legend(figure2: Path) -> None:
    traces, _ = plotly(figure2)
    named = [t["name"] for t in traces if t.get("showlegend", True)]
    assert len(named) == len(set(named)) == 5


def test_hendel_vocabulary(tmp_path: Path) -> None:
    out = tmp_path / "vocabulary.html"
    said = run_analysis(
        "hendel_vocabulary", "--task country_capital to_upper --n-prompts 2 --layer 10 11", out
    )
    assert "number of tokens among the top 10, mean over 2 tasks" in said
    lens = load_result(out.with_suffix(".nc"))
    assert isinstance(lens, VectorLens)
    assert lens.layers == [10, 11]
    assert lens.provenance["filters"].startswith("none")
    for layer in lens.layers:
        traces, layout = plotly(tmp_path / f"vocabulary-layer{layer}.html")
        assert f"after block {layer}" in layout["title"]["subtitle"]["text"]
        cells = [cell.replace("<br>", "") for cell in traces[0]["text"][0]]
        shown = [cell.strip("'").strip() for cell in cells]
        assert shown[0] == lens.top("country_capital", layer)[0].strip()


@pytest.mark.slow
def test_hendel_conflicting(tmp_path: Path) -> None:
    out = tmp_path / "conflicting.html"
    said = run_analysis(
        "hendel_conflicting", "--n-prompts 4 --n-dev 2 --pairs list_last:list_first", out
    )
    assert "0.20 / 0.78" in said  # published
    assert "pairs with few-shot accuracy of at least 0.5" in said
    result = load_result(out.with_suffix(".nc"))
    assert isinstance(result, ConflictingTasks)
    assert result.pairs == ["list_last:list_first"]
    traces, layout = plotly(out)
    assert "4 prompts per pair" in layout["title"]["subtitle"]["text"]
    published = [t for t in traces if t["name"].startswith("LLaMA-13B")]
    assert [t["y"] for t in published] == [[0.95, 0.2], [0.05, 0.78]]
