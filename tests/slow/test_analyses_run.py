"""The analyses that run the packaged model at length or train, run small."""

from base64 import b64decode
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from commands import run_analysis
from pages import plotly

from icl_mech.answers import AnswerScores
from icl_mech.decoder import Decoder
from icl_mech.failures import TaskVectorFailures
from icl_mech.heads import FunctionVectors, HeadAblation, HeadAttribution
from icl_mech.localize import TaskMap
from icl_mech.masking import ContextMasking
from icl_mech.patch import PositionScan
from icl_mech.progressive import ProgressiveGeneration
from icl_mech.results import load_result
from icl_mech.table import TaskTable
from icl_mech.transfer import VectorTransfer
from icl_mech.variability import VectorVariability
from icl_mech.vector_methods import VectorComparison


def test_position_scan(tmp_path: Path) -> None:
    out = tmp_path / "scan.html"
    said = run_analysis("position_scan", "--task country_capital --n-prompts 2 --n-shots 2", out)
    assert "final arrow leads from layer" in said
    for corruption, n_roles in (("labels", 8), ("query", 2)):
        traces, layout = plotly(tmp_path / f"scan-{corruption}.html")
        scan = load_result(tmp_path / f"scan-{corruption}.nc")
        assert isinstance(scan, PositionScan)
        assert scan.provenance["corruption"] == corruption
        assert scan.data.sizes["role"] == n_roles
        assert (
            "2 pairs of prompts; 2 shots; seed 0; corrupted: "
            in layout["title"]["subtitle"]["text"]
        )
        assert [t["name"] for t in traces] == ["resid_pre, denoise", "resid_pre, noise"]
        # What differs is held by the final arrow in the end.
        for direction in scan.directions:
            effect = scan.effect("country_capital", "resid_pre", direction)["value"]
            assert float(effect.sel(role="final_arrow", layer=17)) == pytest.approx(1, abs=0.2)


def test_todd_heads(tmp_path: Path) -> None:
    out = tmp_path / "heads.html"
    said = run_analysis(
        "todd_heads",
        "--task country_capital to_upper --held-out present_past --n-prompts 2 --n-shots 3 "
        "--n-heads 1",
        out,
    )
    assert "heads by mean AIE: 9.3" in said
    for name, kind in (
        ("map", HeadAttribution),
        ("ablation", HeadAblation),
        ("vectors", FunctionVectors),
    ):
        result = load_result(tmp_path / f"heads-{name}.nc")
        assert isinstance(result, kind)
        traces, _ = plotly(tmp_path / f"heads-{name}.html")
        assert traces
    assert result.tasks == ["present_past"]


def test_encoder_decoder_map(tmp_path: Path) -> None:
    out = tmp_path / "map.html"
    said = run_analysis("encoder_decoder_map", "--family letters --n-prompts 4 --n-points 12", out)
    found = load_result(tmp_path / "map-letters.nc")
    assert isinstance(found, TaskMap)
    assert found.provenance["shared_inputs"]
    assert "letters/upper" in (tmp_path / "map-letters.html").read_text(encoding="utf-8")
    assert "share of tasks in which the two are at most one layer apart" in said


def test_hendel_table(tmp_path: Path) -> None:
    out = tmp_path / "table.html"
    said = run_analysis(
        "hendel_table", "--task country_capital to_upper --scored present_past --n-prompts 2", out
    )
    table = load_result(out.with_suffix(".nc"))
    assert isinstance(table, TaskTable)
    assert table.tasks == ["country_capital", "to_upper"]
    assert f"mean over 2 tasks: {table.mean_ratio()}" in said
    traces, layout = plotly(out)
    dots = [t for t in traces if "hypothesis" in t["name"]]
    assert dots[0]["x"][:2] == [table.estimate(t, "hypothesis").value for t in table.tasks]
    assert "2 test prompts per task" in layout["title"]["subtitle"]["text"]
    scores = load_result(tmp_path / "table-scores.nc")
    assert isinstance(scores, AnswerScores)
    assert scores.tasks == ["present_past"]
    assert plotly(tmp_path / "table-scores.html")[0]
    kept = sorted(p.name for p in (tmp_path / "table-runs").glob("[!.]*"))
    assert len([name for name in kept if name.endswith(".nc")]) == 2
    assert "manifest.json" in kept
    for suffix in ("html", "csv", "tex", "md"):
        assert (tmp_path / f"table-table.{suffix}").stat().st_size > 500


def test_hendel_variability(tmp_path: Path) -> None:
    out = tmp_path / "variability.html"
    said = run_analysis(
        "hendel_variability", "--tasks to_upper antonyms --n-prompts 3 --n-shots 1 3", out
    )
    assert "centred_within" in said
    result = load_result(out.with_suffix(".nc"))
    assert isinstance(result, VectorVariability)
    assert result.shots == [1, 3]
    for path, form in ((out, "centred"), (tmp_path / "variability-raw.html", "raw")):
        traces, _ = plotly(path)
        within, _ = (t for t in traces if t["type"] == "histogram")
        assert within["name"] == "within a task"
        at = {"layers": [result.best_layer()], "form": form}
        values = np.frombuffer(b64decode(within["x"]["bdata"]), within["x"]["dtype"])
        assert len(values) == 6  # two tasks, three vectors each
        assert values.mean() == pytest.approx(result.distances(**at).value[0])


@pytest.mark.thorough
def test_decoder(tmp_path: Path) -> None:
    out = tmp_path / "decoder.html"
    said = run_analysis("decoder", "--task country_capital antonyms --n-prompts 8 --n-shots 3", out)
    found = load_result(tmp_path / "decoder-country_capital.nc")
    assert isinstance(found, Decoder)
    assert found.theta_layer("country_capital") in range(7, 13)
    masking = load_result(tmp_path / "decoder-masking.nc")
    assert isinstance(masking, ContextMasking)
    assert "rank correlation" in said
    table = pd.read_csv(out.with_suffix(".csv"), index_col=0)
    assert "country_capital" in table.index


@pytest.mark.thorough
def test_planted(tmp_path: Path) -> None:
    out = tmp_path / "planted.html"
    said = run_analysis("planted", "--n-plants 2", out)
    assert "share of 2 models" in said
    found = pd.read_csv(out.with_suffix(".csv"))
    assert found[found.readout == "formed, by transfer"].right.all()
    traces, _ = plotly(out)
    assert [t["name"] for t in traces] == ["without decoys", "with decoys", "no circuit"]


def test_where_task_vectors_fail(tmp_path: Path) -> None:
    out = tmp_path / "fail.html"
    said = run_analysis(
        "where_task_vectors_fail", "--task lookup constant --n-prompts 4 --repairs arrows", out
    )
    result = load_result(out.with_suffix(".nc"))
    assert isinstance(result, TaskVectorFailures)
    assert (result.tasks, result.repairs) == (["lookup", "constant"], ["arrows"])
    assert "lookup, arrows: " in said
    traces, layout = plotly(out)
    assert "What can one task vector not do?" in layout["title"]["subtitle"]["text"]
    (bar,) = [t for t in traces if t["name"] == "θ, one vector"]
    assert all(x is None or 0 <= x <= 1 for x in bar["x"])
    # Two panels of answers: the shares of all kinds sum to 1.
    for axis in ("x2", "x3"):
        parts = [t["x"] for t in traces if t.get("xaxis") == axis]
        assert [sum(shares) for shares in zip(*parts, strict=True)] == pytest.approx([1, 1])


def test_han_emergence_trains(tmp_path: Path) -> None:
    said = run_analysis(
        "han_emergence",
        "--preset tiny --seeds 0 1 --train --n-per-basis 12 --n-probe 20 --device cpu "
        f"--data {tmp_path} --checkpoints {tmp_path}",
        tmp_path / "emergence.html",
    )
    assert "mean over seeds" in said
    again = load_result(tmp_path / "tiny-seed1.nc")
    assert again.provenance["settings"]["seed"] == 1


@pytest.mark.thorough
def test_progressive_generation(tmp_path: Path) -> None:
    out = tmp_path / "progressive.html"
    said = run_analysis(
        "progressive_generation",
        "--task present_past --n-prompts 3 --methods theta --n-sets 2 --first-tokens 0 1 "
        "--many-shots 0",
        out,
    )
    assert "times as many" in said
    result = load_result(out.with_suffix(".nc"))
    assert isinstance(result, ProgressiveGeneration)
    assert result.kept == ["nothing", "states", "theta"]
    traces, _ = plotly(out)
    assert "demonstrations throughout" in [t.get("name") for t in traces]


@pytest.mark.thorough
def test_vector_transfer(tmp_path: Path) -> None:
    out = tmp_path / "transfer.html"
    said = run_analysis(
        "vector_transfer",
        "--task letters/next letters/upper --formats arrow qa --n-prompts 4 --n-shots 2 --k 2",
        out,
    )
    assert "own minus others" in said
    result = load_result(out.with_suffix(".nc"))
    assert isinstance(result, VectorTransfer)
    traces, _ = plotly(out)
    assert len([t for t in traces if t["type"] == "heatmap"]) == 6


@pytest.mark.thorough
def test_vector_methods(tmp_path: Path) -> None:
    out = tmp_path / "methods.html"
    options = (
        "--task to_upper present_past --methods theta learned --n-prompts 3 --n-shots 2 --n-sets 2 "
        "--n-steps 2 --batch-size 2"
    )
    said = run_analysis("vector_methods", options, out)
    assert "pairs that are told apart" in said
    result = load_result(out.with_suffix(".nc"))
    assert isinstance(result, VectorComparison)
    assert (result.tasks, result.methods) == (["to_upper", "present_past"], ["theta", "learned"])
    # Finished tasks are kept: the same settings do not run them again.
    kept = sorted(p.name for p in (tmp_path / "methods-runs").rglob("*.nc"))
    assert len(kept) == 2
