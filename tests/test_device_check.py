"""`make device-check`, as far as a machine without an accelerator can run it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from device import check
from device.check import STEPS, Clock, Options, machine, main
from device.record import Record, Row, Step
from device.steps import Check, Sizes
from pages import ROOT
from tiny_models import answering_model, answering_task, saved

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is an accelerator")
def test_without_an_accelerator_it_says_so_at_once(tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    program = (
        "import sys, runpy\n"
        f"sys.argv = ['check', '--out', {str(out)!r}]\n"
        "try: runpy.run_module('device.check', run_name='__main__')\n"
        "finally: assert not {'transformers', 'transformer_lens', 'xarray'} & set(sys.modules)\n"
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout.splitlines() == [
        "no accelerator: torch finds no GPU here, and there is nothing to check without one"
    ]
    assert done.stderr == ""
    assert not out.exists()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Sizes:
    """Every step with little to do, on tiny models."""
    return Sizes(
        families=("llama", "bloom"),
        source=saved(answering_model(), tmp_path_factory.mktemp("models") / "tiny"),
        scan_tasks=answering_task(),
        heads_task=answering_task(),
        map_tasks=["letters/next", "letters/upper"],
        n_prompts=4,
        heads_methods=("aie", "attribution"),  # its answers begin alike: nothing for "direct"
        n_heads_prompts=2,
        n_heads_shots=3,
        n_map_prompts=2,
        n_map_points=6,
        limits=[{"cpu": 90_000}],
        preset="tiny",
        n_steps_cpu=2,
        n_steps=2,
        most_steps=6,
    )


@pytest.mark.slow
def test_every_step(small: Sizes, tmp_path: Path) -> None:
    """Here the device is the CPU: both have the same numbers."""
    record = Record(tmp_path / "check.json", machine(CPU))
    Check(CPU, Clock(5), small).run(record, STEPS)
    found = json.loads(record.path.read_text())
    steps = {step["name"]: step for step in found["steps"]}
    assert list(steps) == list(STEPS)
    assert found["ok"], [
        (s["error"], [r for r in s["rows"] if not r["ok"]]) for s in steps.values()
    ]
    rows = {name: {row["what"]: row for row in step["rows"]} for name, step in steps.items()}

    engines = {family: row["numbers"] for family, row in rows["engines"].items()}
    assert {family: row["engine"] for family, row in engines.items()} == {
        "llama": "shared",
        "bloom": "plain",
    }
    assert engines["llama"]["edits_vs_cpu"] == 0 < engines["llama"]["between_engines"] < 1e-4
    for what in ("q", "aie", "attribution", "letters/next", "letters/upper"):
        numbers = rows["questions"][what]["numbers"]
        assert numbers["largest_difference"] == 0
    assert rows["questions"]["layer scan"]["numbers"]["ratio"] > 0
    (spread,) = (row for what, row in rows["placement"].items() if what != "on cpu")
    assert spread["numbers"]["places"] == "cpu+disk"
    assert 0 <= spread["numbers"]["largest_difference"] < 1e-4
    half = rows["bfloat16"]["q"]["numbers"]
    assert 0 < half["largest_difference"] < 1
    curve = rows["training"]["curve"]
    assert curve["numbers"]["updates"] == 6
    assert curve["more"]["curve"]["updates"] == [1, 2, 3, 4, 5, 6]
    assert len(curve["more"]["curve"]["basis_loss"][0]) == 2
    tables = record.markdown()
    assert "| llama | shared | 0 |" in tables
    assert tables.count("(passed, ") == len(STEPS)


def test_no_time_is_left(small: Sizes, tmp_path: Path) -> None:
    """What would begin too late is left out, and the file says so."""
    record = Record(tmp_path / "check.json", {})
    Check(CPU, Clock(0), small).run(record, ["engines"])
    assert [row.note for row in record.steps[0].rows] == ["left out: no time"] * 2
    assert record.ok


def test_a_failed_step_stops_no_other(tmp_path: Path) -> None:
    record = Record(tmp_path / "deep" / "check.json", {"device": "none"})

    def fails():
        yield Row("first", {"seconds": 1.0, "gone": float("nan")})
        seen.append(json.loads(record.path.read_text())["steps"][0]["rows"])
        raise RuntimeError("\n  two words|\nmore lines")

    seen: list = []
    record.run(Step("a", "A"), fails())
    record.run(Step("b", "B"), [Row("wrong", ok=False, note="why")])
    record.run(Step("c", "C"), [Row("right")])
    found = json.loads(record.path.read_text())
    assert seen[0][0]["numbers"] == {"seconds": 1.0, "gone": None}  # there before the step ended
    assert [step["ok"] for step in found["steps"]] == [False, False, True]
    assert found["steps"][0]["error"] == "RuntimeError: two words|"
    assert not found["ok"]
    assert [path.name for path in record.path.parent.iterdir()] == ["check.json"]
    assert "| wrong | FAILED why |" in record.markdown()


@pytest.mark.parametrize(("fails", "code"), [(False, 0), (True, 1)])
def test_exit_codes(
    fails: bool, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def engines(self: Check):
        yield Row("llama", ok=not fails)

    monkeypatch.setattr(Check, "engines", engines)
    monkeypatch.setattr(check, "accelerator", lambda: CPU)
    monkeypatch.setattr(check, "full_precision", lambda: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "1"))
    out = tmp_path / "check.json"
    assert main(Options(out=out, steps=("engines",))) == code
    assert json.loads(out.read_text())["ok"] == (code == 0)
    assert main(Options(out=out, steps=("engine",))) == 1
