"""The main table: its numbers, going on after an interrupt, and what it is written as."""

import csv
import io
import json
import re
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import Done, run_room
from made_results import scan_of
from tiny_models import tiny_model

from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.patch import LayerScan, layer_scan, scan as scan_room
from icl_mech.patch.scan import measure_scan
from icl_mech.patch.scan_plan import ScanPlan
from icl_mech.reference import hendel2023
from icl_mech.results import load_result
from icl_mech.scores import SCORES
from icl_mech.stats import share
from icl_mech.table import (
    ACCURACIES,
    CONTROLS,
    FORMATS,
    TaskTable,
    read_table,
    task_table,
    write_table,
)
from icl_mech.tasks import Pair, Task

TASKS = ["to_upper", "country_capital", "next_letter"]
N = {"n_prompts": 4, "n_shots": 2, "seed": 1, "progress": False}


class Counting:
    """Stands before `measure_scan`: notes which tasks run, and is interrupted in one of them."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.interrupted_in: str | None = None

    def __call__(self, model: HookedModel, plan: ScanPlan, progress: bool) -> LayerScan:
        (name,) = (of.task.name for of in plan.tasks)
        if name == self.interrupted_in:
            raise KeyboardInterrupt
        self.ran.append(name)
        return measure_scan(model, plan, progress)


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setattr(scan_room, "measure_scan", counting)
    return counting


@pytest.fixture(scope="module")
def run_once() -> TaskTable:
    return task_table(tiny_model("llama"), TASKS, **N)


@pytest.fixture
def table(run_once: TaskTable) -> TaskTable:
    """A table that a test may change."""
    return TaskTable(run_once.data.copy(deep=True), deepcopy(run_once.provenance))


def test_numbers_are_those_of_layer_scans(table: TaskTable, tiny_llama: HookedModel) -> None:
    together = layer_scan(tiny_llama, TASKS, **N)
    assert table.tasks == TASKS
    measured = table.data["measured"]
    assert measured.sel(vector="theta").all()
    for name, array in together.data.drop_vars("measured").items():
        ours, theirs = table.data[name], array
        if "vector" in array.dims:
            # Controls stand only where theta is best on dev, by either score.
            ours, theirs = (a.transpose(*array.dims).where(measured) for a in (ours, theirs))
        if ours.dtype.kind == "f":
            np.testing.assert_allclose(ours, theirs, rtol=1e-5)
        else:
            np.testing.assert_array_equal(ours, theirs)
    summary, expected = table.full_summary(), together.full_summary()
    pd.testing.assert_frame_equal(summary[expected.columns], expected)
    assert summary["category"].tolist() == ["algorithmic", "knowledge", "algorithmic"]


def test_controls_only_where_theta_is_best(table: TaskTable, tiny_llama: HookedModel) -> None:
    scan = table.scan
    for task in TASKS:
        best = {scan.read_at(task, score) for score in SCORES}
        assert scan.layers(task) == list(range(tiny_llama.n_layers))
        for control in ("shuffled", "other_task", "random"):
            assert scan.layers(task, control) == sorted(best)
            assert len(scan.curve(task, control)) == len(best)
    rows = scan.to_frame()
    assert len(rows.query("vector == 'theta'")) == len(TASKS) * 4 * tiny_llama.n_layers
    alone = rows.query("vector == 'random' and task == @TASKS[0]")
    assert set(alone["layer"]) == set(scan.layers(TASKS[0], "random"))
    marks = {t.name: t for t in scan.plot().data if t.visible}
    assert list(marks["random vector, same norm"].x) == scan.layers(TASKS[0], "random")
    everywhere = task_table(tiny_llama, TASKS[:1], control_layers="all", **N)
    assert bool(everywhere.data["measured"].all())


def drawn(*names: str) -> TaskTable:
    """A table with drawn numbers: theta right in layers 3 and 4, half of regular right."""
    scan = scan_of(*names)
    right = np.arange(scan.data.sizes["prompt"]) < 10
    scan.data["reference_first_token"].loc[{"reference": "regular"}] = right
    scan.data["reference_first_token"].loc[{"reference": "baseline"}] = False
    provenance = {
        **scan.provenance,
        "n_prompts": 20,
        "n_dev": 10,
        "tasks": {name: {"category": "user"} for name in names},
    }
    return TaskTable(scan.data, provenance)


def test_ratio_and_means() -> None:
    table = drawn("first", "second")
    layer = table.scan.best_layer("first")
    assert layer == 3
    ratio = table.ratio("first")
    assert ratio.value == 2
    assert 1 < ratio.low < 2 < ratio.high
    table.data["first_token"].loc[{"task": "second", "layer": 3, "vector": "theta"}] = False
    assert table.mean("hypothesis").value == 0.5
    assert table.mean_ratio().value == 1
    assert table.mean("hypothesis") == share(np.array([1.0, 0.0]), None)
    assert table.table().loc["mean", "n"] == "2 tasks"
    with pytest.raises(InputError, match="did you mean 'second'"):
        table.ratio("secnd")


def test_nothing_right_in_any_task_is_no_certainty() -> None:
    none = drawn("first", "second", "third").mean("baseline")
    assert none.value == none.low == 0
    assert 0.5 < none.high < 0.6  # Wilson's of three trials


def test_published_numbers_stand_beside(table: TaskTable) -> None:
    means = table.means()
    published = means[means["source"] == "published"]
    assert len(published) == 7
    for name, row in published.iterrows():
        three = hendel2023().means[name]
        assert row[list(ACCURACIES)].tolist() == [three.baseline, three.hypothesis, three.regular]
        assert row["ratio"] == pytest.approx(three.hypothesis / three.regular)
        assert row["n_tasks"] == 18
    assert means.iloc[0]["hypothesis"] == table.mean("hypothesis").value
    of_tasks = table.published()
    assert len(of_tasks) == len(TASKS) * 3
    scan = hendel2023().scan("gpt-j-6b", "country_capital")
    assert of_tasks.loc[("country_capital", "gpt-j-6b"), "regular"] == scan.regular
    assert any("means are over 18 tasks; these 3 are not" in c for c in table.caveats())


def test_an_interrupted_run_goes_on(
    tiny_llama: HookedModel, scans: Counting, table: TaskTable, tmp_path: Path
) -> None:
    scans.ran.clear()
    scans.interrupted_in = "country_capital"
    with pytest.raises(KeyboardInterrupt):
        task_table(tiny_llama, TASKS, folder=tmp_path, **N)
    assert scans.ran == ["to_upper"]
    scans.interrupted_in = None
    resumed = task_table(tiny_llama, TASKS, folder=tmp_path, **N)
    assert scans.ran == TASKS
    assert resumed.provenance["resumed"] == ["to_upper"]
    for name, array in table.data.items():
        np.testing.assert_array_equal(array, resumed.data[name], err_msg=name)
    again = task_table(tiny_llama, TASKS[::-1], folder=tmp_path, **N)
    assert scans.ran == TASKS
    assert again.summary().loc[TASKS].equals(table.summary())
    more = task_table(tiny_llama, [*TASKS, "to_lower"], folder=tmp_path, **N)
    assert scans.ran == [*TASKS, "to_lower"]
    assert more.tasks == [*TASKS, "to_lower"]
    # Any sweep's folder with scans can be read as a table.
    read = read_table(tmp_path, "tiny-llama")
    assert read.summary().equals(more.summary())
    with pytest.raises(InputError, match="unknown model of the sweep 'tiny-lama'; did you mean"):
        read_table(tmp_path, "tiny-lama")


def test_other_settings_another_model_or_other_pairs_are_refused(
    tiny_llama: HookedModel, tmp_path: Path
) -> None:
    few = {**N, "n_prompts": 2}
    task_table(tiny_llama, "to_upper", folder=tmp_path, **few)
    before = {p.name: p.read_bytes() for p in tmp_path.glob("[!.]*")}
    pairs = tuple(Pair(f"w{i}", (f"v{i}",)) for i in range(20))
    other = Task("to_upper", "user", "", pairs)
    for model, task, settings, message in (
        (tiny_llama, "to_upper", {"n_prompts": 5}, "n_prompts is 2, not 5"),
        (tiny_llama, "to_upper", {"n_dev": 3}, "n_dev is 1, not 3"),
        (tiny_llama, "to_upper", {"template": "{x}: {y}"}, "template is '{x}->{y}', not '{x}: {"),
        (HookedModel(tiny_model("gpt2").bridge, "tiny-llama"), "to_upper", {}, "weights_sha256 is"),
        (tiny_llama, other, {}, "tasks.to_upper.pairs_sha256 is"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            task_table(model, task, folder=tmp_path, **{**few, **settings})
    assert {p.name: p.read_bytes() for p in tmp_path.glob("[!.]*")} == before


@pytest.mark.parametrize("name", ["=1+1", "@sum", "-x", "+x"])
def test_a_task_is_no_formula_in_a_spreadsheet(tmp_path: Path, name: str) -> None:
    tasks = {"tasks": {name: {"category": "user"}}}
    table = TaskTable(scan_of(name).data, scan_of(name).provenance | tasks)
    path = write_table(table, tmp_path / "t.csv")
    cells = [cell for row in csv.reader(io.StringIO(path.read_text())) for cell in row]
    assert f"'{name}" in cells
    numbers = [cell for cell in cells if cell.startswith("-")]
    assert all(float(number) < 0 for number in numbers)


def test_tasks_of_any_name_get_files_of_their_own(tiny_llama: HookedModel, tmp_path: Path) -> None:
    pairs = tuple(Pair(f"w{i}", (f"v{i % 5}",)) for i in range(20))
    names = ["../a/b", "A", "a", "<b>&|%_$", "[x]"]
    tasks = [Task(name, "user", "", pairs) for name in names]
    found = task_table(tiny_llama, tasks, folder=tmp_path / "runs", **N)
    assert len(list((tmp_path / "runs").glob("*.nc"))) == len(names)
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]
    assert found.tasks == names
    assert (
        task_table(tiny_llama, tasks, folder=tmp_path / "runs", **N).provenance["resumed"] == names
    )


def test_what_cannot_be_run(tiny_llama: HookedModel, scans: Counting) -> None:
    """Nothing runs before everything is checked."""
    short = Task("short", "user", "", tuple(Pair(f"w{i}", ("v",)) for i in range(3)))
    with pytest.raises(InputError, match="'short' has 3 pairs, too few"):
        task_table(tiny_llama, ["to_upper", short], **N)
    pairs = tuple(Pair(f"w{i}", (f"v{i}",)) for i in range(20))
    with pytest.raises(InputError, match="a task is named 'mean'"):
        task_table(tiny_llama, ["to_upper", Task("mean", "user", "", pairs)], **N)
    assert scans.ran == []


def test_it_comes_back_as_it_was(table: TaskTable, tmp_path: Path) -> None:
    back = load_result(table.save(tmp_path / "t.nc"))
    assert isinstance(back, TaskTable)
    assert back.summary().equals(table.summary())
    assert repr(back) == repr(table)
    assert back.to_frame().equals(table.to_frame())


# --- what it is written as ----------------------------------------------------------------------

NAMES = ("<b>&|%_$", "[x]", "plain")


def test_csv_holds_all_numbers(tmp_path: Path) -> None:
    table = drawn(*NAMES)
    text = write_table(table, tmp_path / "t.csv").read_text()
    rows = {row["task"]: row for row in csv.DictReader(io.StringIO(text))}
    assert list(rows) == [*NAMES, "mean"]
    for name in NAMES:
        for column in (*ACCURACIES, *CONTROLS):
            assert float(rows[name][column]) == table.estimate(name, column).value
        assert rows[name]["best_layer"] == "3"
        assert float(rows[name]["ratio"]) == 2
    assert float(rows["mean"]["hypothesis"]) == table.mean("hypothesis").value
    assert rows["mean"]["best_layer"] == ""


def test_latex_is_escaped(tmp_path: Path) -> None:
    text = write_table(drawn(*NAMES), tmp_path / "t.tex").read_text()
    assert r"<b>\&|\%\_\$ & " in text
    assert "\n{}[x] & " in text
    assert text.count(r"\toprule") == text.count(r"\bottomrule") == 2
    bare = text.replace(r"\_", "").replace(r"\%", "").replace(r"\$", "").replace(r"\&", "")
    assert not set("%$_") & set(bare)
    # As many columns in every row as the head declares.
    for part in text.split(r"\begin{tabular}{")[1:]:
        n = len(part[: part.index("}")])
        rows = [line for line in part.splitlines() if line.endswith(r"\\")]
        assert {row.replace(r"\&", "").count("&") for row in rows} == {n - 1}


def test_markdown_is_escaped(tmp_path: Path) -> None:
    text = write_table(drawn(*NAMES), tmp_path / "t.md").read_text()
    assert r"| &lt;b&gt;&amp;\|%\_$ | " in text
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    counts = {line.replace(r"\|", "").count("|") for line in rows}
    assert len(counts) == 2  # the table and the published one
    assert "| mean | " in text


def test_page_is_escaped_and_opens_offline(tmp_path: Path) -> None:
    text = write_table(drawn(*NAMES), tmp_path / "t.html").read_text()
    assert "<b>&|" not in text
    assert "&lt;b&gt;&amp;|%_$" in text
    assert "<b>m</b>" not in text  # the model's name
    assert 'src="http' not in text
    assert text.count("<html") == text.count("</html>") == 1
    assert "arXiv" in text


def test_other_formats(tmp_path: Path) -> None:
    assert FORMATS == (".html", ".csv", ".tex", ".md")
    with pytest.raises(InputError, match="unknown kind of table '.xls'"):
        write_table(drawn("a"), tmp_path / "t.xls")


def test_the_figure() -> None:
    table = drawn("<b>x", "second")
    figure = table.plot()
    dots = {t.name: t for t in figure.data}
    theta = dots["zero-shot + task vector θ (hypothesis)"]
    assert list(theta.x) == [1, 1, 1]
    assert theta.customdata[0][:3] == pytest.approx([0.8389, 1.0, 20], abs=1e-4)
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;x"
    assert figure.layout.yaxis.ticktext[-1] == "<b>mean over tasks</b>"
    shaded = [(s.x0, s.x1) for s in figure.layout.shapes if s.type == "rect"]
    means = hendel2023().means.values()
    for column, (low, high) in zip(ACCURACIES, shaded, strict=True):
        values = [getattr(m, column) for m in means]
        assert (low, high) == (min(values), max(values))


# --- the command --------------------------------------------------------------------------------


def run(*options: str) -> Done:
    return run_room("table", *options)


def test_command_writes_resumes_and_refuses(small_model: list[str], tmp_path: Path) -> None:
    out = tmp_path / "table.html"
    small = (*small_model, "--task", "to_upper", "--n-shots", "4", "--out", str(out))
    done = run(*small, "--n-prompts", "2", "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [row["task"] for row in printed["summary"]] == ["to_upper"]
    assert printed["provenance"]["resumed"] == []
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "table-runs", "table-table.csv", "table-table.html", "table-table.md", "table-table.tex",
        "table.html", "table.nc",
    ]  # fmt: skip
    assert Path(printed["table_csv"]).read_text().startswith("task,category,baseline")
    refused = run(*small, "--n-prompts", "3")
    assert refused.returncode == 2
    assert "measures.scan.n_prompts is 2, not 3" in refused.stderr
    assert "Traceback" not in refused.stderr
