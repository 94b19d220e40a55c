"""Sweeps: what is refused, what is run, what is kept, and what is run again."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commands import assert_refused, run_command
from sweep_measures import MARKS
from tiny_models import random_model, saved, tiny_model

import icl_mech
from icl_mech.errors import InputError
from icl_mech.sweep import (
    MEASURES,
    CellFolder,
    DamagedFileWarning,
    OtherVersionWarning,
    Sweep,
    plan_sweep,
    read_specification,
    sweep,
)
from icl_mech.sweep.estimate import estimate
from icl_mech.sweep.places import share_out

FEW: dict[str, Any] = {"n_prompts": 4, "n_shots": 2}
QUIET: dict[str, Any] = {"progress": False}


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in which the measure `marks` counts how often each cell runs."""
    monkeypatch.setitem(MEASURES, "marks", MARKS)
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def alone(code: str, folder: Path) -> str:
    """What a process that has the folder to itself says on stderr."""
    begin = f"from icl_mech.sweep.folder import CellFolder\nfolder = CellFolder({str(folder)!r})\n"
    words = [sys.executable, "-c", begin + code]
    return subprocess.run(words, capture_output=True, text=True).stderr


def runs(marks: Path) -> dict[str, int]:
    return {f.name: len(f.read_text().splitlines()) for f in marks.iterdir()}


# --- what is asked ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"measures": "sacn"}, "unknown measure 'sacn'; did you mean 'scan'?"),
        ({"measures": {"scan": {"n_promts": 3}}}, "unknown option 'n_promts' of scan; did you mea"),
        ({"measures": {"scan": {"k": 3}}}, "scan: k is no option of scan, but of decodability, lo"),
        ({"measures": {"scan": {"seed": 3}}}, "seed is no option of a measure; expected seeds"),
        ({"measures": {"scan": {"n_prompts": "many"}}}, "scan.n_prompts is 'many'; expected int"),
        ({"measures": {"scan": {"n_shots": 0}}}, "scan: n_shots is 0; expected at least 1"),
        ({"measures": {"localize": {"rule": {"fractoin": 1}}}}, "did you mean 'fraction'?"),
        ({"measures": []}, "no measure is named"),
        ({"settings": {"n_prompst": 3}}, "unknown setting 'n_prompst'; did you mean 'n_prompts'?"),
        ({"tasks": "antonym"}, "unknown task 'antonym'; did you mean 'antonyms'?"),
        ({"tasks": ["antonyms", "antonyms"]}, "task 'antonyms' is named twice"),
        ({"tasks": "letters", "settings": {"n_shots": 30}}, "scan: task 'letters/next' has 24 pai"),
        ({"tasks": "antonyms", "measures": "decodability"}, "expected two or more"),
        ({"seeds": [1, 1]}, "seeds [1, 1]; expected at least one, each once"),
        ({"load": {"dtyp": "float16"}}, "unknown option of loading 'dtyp'; did you mean 'dtype'?"),
        ({"load": {"dtype": "f16"}}, "load.dtype is 'f16'"),
        ({"models": ["org/a", "org/a"]}, "two models are called 'org/a' (org/a and org/a)"),
        ({"models": "/none/model"}, "/none/model: no such folder or file; expected a model"),
        ({"models": [{"source": "org/a", "dtpe": "auto"}]}, "unknown entry of a model 'dtpe'"),
        ({"models": [print]}, "a model is <built-in function print>; expected a name"),
        ({"models": []}, "no model is named"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_runs(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as refused:
        plan_sweep(**{"models": "org/name", "measures": "scan", "tasks": "to_upper", **given})
    assert message in str(refused.value)


def test_the_cells_of_a_grid() -> None:
    grid = plan_sweep(
        ["org/a", {"source": "org/a", "name": "half", "dtype": "float16"}],
        {"scan": None, "few": {"measure": "scan", "n_shots": 2}, "decodability": {"k": 3}},
        ["to_upper", "letters", "antonyms", ["to_upper", "to_lower"]],
        seeds=[0, 5],
        settings={"n_prompts": 6, "n_shots": 3},
    )
    names = [cell.name for cell in grid.cells]
    tasks = ["to_upper", "letters/next", "letters/previous", "letters/upper", "antonyms"]
    sets = ["to_upper+to_lower", "letters", "to_upper+antonyms"]
    assert names[:5] == [f"org/a/scan/{task}/seed0" for task in tasks]
    assert [n for n in names if "half/decodability" in n and "seed5" in n] == [
        f"half/decodability/{each}/seed5" for each in sets
    ]
    assert len(names) == len({c.made_of for c in grid.cells}) == 2 * 2 * (6 + 6 + 3)
    shots = {cell.asked.entry: cell.asked.settings.n_shots for cell in grid.cells}
    assert shots == {"scan": 3, "few": 2, "decodability": (3,)}


def test_every_measure_is_there_and_pickles() -> None:
    import pickle

    for name, of in MEASURES.items():
        tasks = ["lookup_once"] if name == "failures" else None
        grid = plan_sweep("org/a", name, tasks)
        assert callable(of.get("measure"))
        assert pickle.loads(pickle.dumps(grid.cells)) == grid.cells  # noqa: S301  # our own


def test_a_file_says_the_same_as_arguments(tmp_path: Path) -> None:
    yaml, toml = tmp_path / "s.yaml", tmp_path / "s.toml"
    yaml.write_text("""
models: [org/a, {source: org/b, name: b}]
measures: {scan: {n_shots: 2}, localize: }
tasks: [letters]
seeds: [0, 1]
settings: {n_prompts: 4}
""")
    toml.write_text("""
models = ["org/a", {source = "org/b", name = "b"}]
tasks = ["letters"]
seeds = [0, 1]
[measures]
scan = {n_shots = 2}
localize = {}
[settings]
n_prompts = 4
""")
    grids = [plan_sweep(**read_specification(file)) for file in (yaml, toml)]
    assert grids[0].cells == grids[1].cells
    assert len(grids[0].cells) == 2 * 2 * 4
    for text, message in (
        ("modles: [a]", "did you mean 'models'"),
        ("[", "cannot be read"),
        ("3", "holds 3"),
    ):
        yaml.write_text(text)
        with pytest.raises(InputError, match=message):
            read_specification(yaml)
    with pytest.raises(InputError, match="unknown kind of file for a sweep '.json'"):
        read_specification(tmp_path / "s.json")


def test_a_layer_that_a_model_lacks(tmp_path: Path) -> None:
    saved(random_model("llama"), tmp_path / "m")
    options: dict[str, Any] = {"folder": tmp_path / "out", **QUIET}
    for measure, named in (
        ("decodability", {"layers": [1, 9]}),
        ("patchscope", {"into": 9}),
        ("vectors", {"train_layers": [9]}),
    ):
        with pytest.raises(InputError, match=f"{measure} on m: .*9"):
            sweep(tmp_path / "m", {measure: named}, "letters", **options)
    assert not (tmp_path / "out").exists()  # refused before anything is written


def test_actors_find_room_on_a_cluster() -> None:
    small, large = {"CPU": 4.0, "memory": 8e9}, {"CPU": 16.0, "memory": 64e9, "GPU": 2.0}
    assert share_out([small, large], None, 0, 0) == (2, 8)
    assert share_out([small, large], 1, 0, 0) == (1, 16)  # no more than one machine has
    assert share_out([small, large], None, 1, 0) == (2, 8)
    assert share_out([small, large], None, 0, 20 * 10**9) == (1, 16)
    with pytest.raises(InputError, match="room for 3 workers with 0 GPUs and 20.0 GB each, and 4"):
        share_out([small, large], 4, 0, 20 * 10**9)
    with pytest.raises(InputError, match="room for 20 workers"):
        share_out([small, large], 21, 0, 0)


# --- what is run and kept ---------------------------------------------------------------------


def test_results_are_those_of_the_questions(tmp_path: Path) -> None:
    models = {"one": tiny_model("llama"), "two": tiny_model("gpt2")}
    done = sweep(
        models,
        {"scan": {"n_dev": 2}, "decodability": {"k": 2, "probe": False}},
        "letters",
        [3],
        folder=tmp_path / "out",
        settings=FEW,
        copy_to=f"file://{tmp_path / 'copies'}",
        **QUIET,
    )
    assert done.cells()["state"].tolist() == ["done"] * 8
    assert done.table().loc["two"].tolist() == ["3 of 3", "1 of 1"]
    few = {**FEW, **QUIET, "seed": 3}
    for name, model in models.items():
        alone = icl_mech.layer_scan(model, "letters/upper", n_dev=2, **few)
        (ours,) = (
            result
            for known, result in done.results("scan")
            if (known["model"], known["task"]) == (name, "letters/upper")
        )
        assert ours.summary().equals(alone.summary())
        found = icl_mech.task_decodability(model, "letters", k=2, probe=False, **few)
        (kept,) = (r for known, r in done.results("decodability") if known["model"] == name)
        assert kept.data.equals(found.data)
    assert set(done.summary("scan")["model"]) == {"one", "two"}
    files = sorted(p.name for p in (tmp_path / "out").glob("*.nc"))
    assert files == sorted(p.name for p in (tmp_path / "copies").iterdir())
    assert files[0].startswith("one-decodability-letters-seed3-")


def test_a_report_of_half_a_sweep(tmp_path: Path) -> None:
    models = {"org/m@step0": tiny_model("llama"), "org/m@step64": tiny_model("gpt2")}
    tasks = ["to_upper", "antonyms"]
    done = sweep(
        models, {"scan": {"n_dev": 2}}, tasks, folder=tmp_path, settings=FEW, **QUIET
    )  # fmt: skip
    journal = tmp_path / "journal.jsonl"
    *kept, _ = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(kept))
    page = Sweep(tmp_path).report(tmp_path / "r.html", "cdn").read_text()
    assert "Cells: 3 done, 1 missing." in page
    assert "What is missing" in page
    assert "What training teaches: org" in page
    # Numbers and their intervals stand together where people read, apart where programs do.
    rows = (tmp_path / "r-scan.md").read_text()
    (scan,) = (r for of, r in done.results("scan") if of["task"] == "antonyms"
               and of["model"].endswith("0"))  # fmt: skip
    first = scan.full_summary().iloc[0]
    ends = [f"{first[f'hypothesis{end}']:.3g}" for end in ("", "_low", "_high")]
    assert "| {} \\[{}, {}\\] |".format(*ends) in rows
    assert "hypothesis_low" in (tmp_path / "r-scan.csv").read_text().splitlines()[0]


def test_only_what_is_not_finished_is_run(marks: Path, tmp_path: Path) -> None:
    model = {"m": tiny_model("llama")}
    options: dict[str, Any] = {"folder": tmp_path / "out", **QUIET}
    measures = {"marks": {"marks": str(marks)}}
    sweep(model, measures, seeds=[0], **options)
    done = sweep(model, measures, seeds=[0, 1], **options)
    assert runs(marks) == {
        f"tiny-llama-{t}-{s}": 1 for t in ("antonyms", "to_upper") for s in (0, 1)
    }
    # A file that changed, one that is gone, and a journal whose last line a kill cut short.
    files = sorted((tmp_path / "out").glob("*.nc"))
    content = files[0].read_bytes()
    files[0].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    files[1].unlink()
    journal = tmp_path / "out" / "journal.jsonl"
    *whole, last = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(whole) + last[:40])
    with pytest.warns(DamagedFileWarning, match="is run again"):
        again = sweep(model, measures, seeds=[0, 1], **options)
    assert sorted(runs(marks).values()) == [1, 2, 2, 2]
    assert again.cells()["state"].tolist() == ["done"] * 4
    assert len(journal.read_text().splitlines()) == 7  # the cut one is none
    assert [r.data["mark"].item() for _, r in again.results("marks")] == [32, 32, 33, 33]
    assert done.path == again.path
    with pytest.raises(InputError, match="measures.marks.n_shots is 5, not 2"):
        sweep(model, {"marks": {"marks": str(marks), "n_shots": 2}}, **options)


def test_a_cell_that_fails_is_noted_and_the_others_go_on(
    marks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    saved(random_model("llama"), broken)
    (broken / "model.safetensors").write_bytes(b"none")
    models = {"broken": broken, "m": tiny_model("llama")}
    measures = {"marks": {"marks": str(marks), "raises": ["antonyms"]}}
    done = sweep(models, measures, folder=tmp_path / "out", retries=1)
    assert runs(marks) == {"tiny-llama-antonyms-0": 2, "tiny-llama-to_upper-0": 1}
    assert done.failed["m/marks/antonyms/seed0"] == "ValueError: no antonyms"
    assert done.failed["broken/marks/to_upper/seed0"].startswith("the model cannot be loaded: ")
    assert done.cells()["state"].tolist() == ["failed", "failed", "failed", "done"]
    assert "failed: m/marks/antonyms/seed0: ValueError: no antonyms" in capsys.readouterr().err
    assert "failed: m/marks/antonyms/seed0" in repr(done)


def test_a_model_with_other_weights_is_refused(marks: Path, tmp_path: Path) -> None:
    """Of a function only the weights tell."""
    options: dict[str, Any] = {"folder": tmp_path / "out", **QUIET}
    sweep({"m": lambda: tiny_model("llama")}, "marks", "antonyms", **options)
    found = sweep({"m": lambda: tiny_model("gpt2")}, "marks", "to_upper", **options)
    assert "m has other weights" in found.failed["m/marks/to_upper/seed0"]
    with pytest.raises(InputError, match="m is a model in memory, which only this process can use"):
        sweep({"m": lambda: tiny_model("gpt2")}, "marks", "to_upper", workers=1, **options)


def test_one_process_writes_at_a_time(tmp_path: Path) -> None:
    first = CellFolder(tmp_path)
    with (
        first.writing({}),
        pytest.raises(InputError, match=rf"another run is writing it \(process {os.getpid()} on "),
        CellFolder(tmp_path).writing({}),
    ):
        pass
    # A process that was killed holds nothing.
    alone("import os\nwith folder.writing({}): os._exit(9)", tmp_path)
    assert (tmp_path / ".lock.json").exists()
    with CellFolder(tmp_path).writing({}):
        pass


def test_cells_of_another_version_are_kept_and_said(marks: Path, tmp_path: Path) -> None:
    model, options = {"m": tiny_model("llama")}, {"folder": tmp_path / "out", **QUIET}
    measures = {"marks": {"marks": str(marks)}}
    sweep(model, measures, **options)
    journal = tmp_path / "out" / "journal.jsonl"
    journal.write_text(journal.read_text().replace(icl_mech.__version__, "0.0.1"))
    with pytest.warns(OtherVersionWarning, match="2 finished cells were made by icl-mech 0.0.1"):
        sweep(model, measures, **options)
    assert set(runs(marks).values()) == {1}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"icl_mech_cells": 2}'])
def test_a_manifest_that_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(InputError, match="not a manifest of icl-mech"):
        CellFolder(tmp_path)
    with pytest.raises(InputError, match="no sweep is there"):
        Sweep(tmp_path / "none")


def test_a_journal_that_was_edited_reaches_no_other_folder(marks: Path, tmp_path: Path) -> None:
    model, options = {"m": tiny_model("llama")}, {"folder": tmp_path / "out", **QUIET}
    done = sweep(model, {"marks": {"marks": str(marks)}}, "antonyms", **options)
    journal = done.path / "journal.jsonl"
    line = json.loads(journal.read_text())
    journal.write_text(json.dumps({**line, "file": "../outside.nc"}) + "\n3\n[]\nnull\n")
    assert Sweep(done.path).cells()["state"].tolist() == ["missing"]


def test_a_full_disk_stops_the_sweep_and_loses_nothing(marks: Path, tmp_path: Path) -> None:
    model, options = {"m": tiny_model("llama")}, {"folder": tmp_path / "out", **QUIET}
    measures = {"marks": {"marks": str(marks)}}
    done = sweep(model, measures, "antonyms", **options)
    journal, aside = done.path / "journal.jsonl", tmp_path / "aside"
    journal.rename(aside)
    journal.symlink_to("/dev/full")
    with pytest.raises(InputError, match="cannot write .*No space left"):
        sweep(model, measures, "to_upper", **options)
    journal.unlink()
    aside.rename(journal)
    again = sweep(model, measures, **options)
    assert again.cells()["state"].tolist() == ["done"] * 2
    assert runs(marks) == {"tiny-llama-antonyms-0": 1, "tiny-llama-to_upper-0": 2}
    # No file may grow beyond this: the manifest of more cells cannot be written.
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))"
    cells = {f"cell {i}": {} for i in range(300)}
    assert "cannot write" in alone(f"{limit}\nwith folder.writing({{}}, {cells}): pass", done.path)
    assert Sweep(done.path).cells()["state"].tolist() == ["done"] * 2


# --- the command ------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, small_model: list[str]) -> None:
    out = tmp_path / "out"
    words = ["--models", small_model[1], "--measures", "scan", "--tasks", "to_upper"]
    words += ["--set", "n_prompts=4", "scan.n_shots=2", "--folder", str(out)]
    done = run_command("sweep", *words, "--json")
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert [(c["task"], c["state"]) for c in printed["cells"]] == [("to_upper", "done")]
    page = Path(printed["report"]).read_text()
    assert "to_upper" in page
    assert 'src="http' not in page
    assert (out / "report-scan.csv").read_text().startswith("model,subject,seed")
    assert_refused(
        run_command("sweep", *words, "--set", "n_prompts=5", "scan.n_shots=2"),
        "measures.scan.n_prompts is 4, not 5",
    )
    again = run_command(
        "sweep", "--report-only", "--folder", str(out), "--out", str(tmp_path / "r.html")
    )
    assert "Sweep in" in again.stdout
    assert (tmp_path / "r.html").exists()


def test_the_command_ends_with_1_where_a_cell_failed(
    tmp_path: Path, small_model: list[str]
) -> None:
    pairs = tmp_path / "long.json"  # no prompt of these fits the model
    pairs.write_text(json.dumps({f"w{i}": "v" * 200 for i in range(12)}))
    words = ["--models", small_model[1], "--measures", "scan", "--tasks", str(pairs), "to_upper"]
    done = run_command("sweep", *words, "--set", "n_prompts=2", "--folder", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "1 cell failed:" in done.stderr
    assert "1 of 2" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no models are named; expected --models"),
        (["--models", "a/b"], "no measures are named"),
        (["--models", "a/b", "--measures", "scan", "--set", "n_prompts"], "expected option=value"),
        (
            ["--models", "a/b", "--measures", "scan", "--set", "lens.top_k=3"],
            "'lens' is no measure",
        ),
        (["--models", "a/b", "--measures", "scan", "--workers", "0"], "workers is 0"),
        (["--models", "a/b", "--measures", "scan", "--gpus-per-worker", "1"], "are for ray"),
        (["--models", "a/b", "--measures", "scan", "--out", "x.png"], "ends in .html"),
        (["--models", "a/b", "--measures", "scan", "--report-only"], "expected one of both"),
        (
            ["--ray", "local", "--max-memory", "20 cats", "--models", "a/b", "--measures", "scan"],
            "no size",
        ),
    ],
)
def test_the_command_refuses(words: list[str], message: str, tmp_path: Path) -> None:
    assert_refused(run_command("sweep", *words, "--folder", str(tmp_path / "out")), message)


# --- planning on paper ------------------------------------------------------------------------


def test_a_dry_run_needs_a_configuration_only(tmp_path: Path) -> None:
    folder = tmp_path / "large"
    folder.mkdir()
    sizes = {"num_hidden_layers": 32, "hidden_size": 4096, "num_attention_heads": 32}
    sizes |= {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256}
    (folder / "config.json").write_text(json.dumps({**sizes, "tie_word_embeddings": False}))
    load = {"dtype": "bfloat16", "device": "cuda"}
    grid = plan_sweep(folder, ["scan", "lens", "answers"], "all", [0, 1], load=load)
    found = estimate(grid, 3e14, 1e12)
    assert found.notes == [
        "large: its tokenizer is not at hand: five tokens are taken per demonstration"
    ]
    rows = found.rows.set_index("entry")
    one = icl_mech.expected_cost("scan", sizes | {"tie_word_embeddings": False}, 36, **load)
    assert rows.loc["scan", ["cells", "operations", "memory"]].tolist() == [
        36, one.operations, one.memory,
    ]  # fmt: skip
    assert rows.loc["scan", "hours"] == pytest.approx(one.seconds(3e14, 1e12) / 3600)
    assert list(found.too_large(16e9)) == ["large"]
    assert not found.too_large(80e9)
    assert rows.loc["answers", "operations"] > rows.loc["lens", "operations"]
    done = run_command(
        "sweep", "--models", str(folder), "--measures", "scan", "--dry-run", "--max-memory", "16GB",
        "--folder", str(tmp_path / "out"),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "does not fit 16GB" in done.stdout
    assert not (tmp_path / "out").exists()


def test_ray_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"Ray is not installed; .*icl-mech\[ray\]"):
        sweep("gemma-3-270m", "scan", "to_upper", folder=tmp_path, ray="local", **QUIET)
