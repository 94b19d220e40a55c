"""Sweeps in other processes and on Ray: the same results, and nothing lost or done twice."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sweep_measures import MARKS
from tiny_models import random_model, saved

from icl_mech.errors import InputError
from icl_mech.sweep import MEASURES, Sweep, places, sweep
from icl_mech.sweep.places import OnRay

MODELS = ("llama", "gpt2", "qwen2")
TASKS = ["to_upper", "antonyms", "letters/next", "letters/upper"]
MEASURED = ["scan", "lens", "vector-lens"]
OPTIONS: dict[str, Any] = {
    "settings": {"n_prompts": 2, "n_shots": 1, "control_layers": "chosen"},
    "load": {"device": "cpu"},
    "progress": False,
}
#: Ray's workers import this folder's modules too.
PATH = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, sys.path)])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [saved(random_model(name), folder / name) for name in MODELS]


@pytest.fixture(scope="module")
def here(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """3 models x 3 measures x 4 tasks, in this process."""
    return sweep(models, MEASURED, TASKS, folder=folder_of(tmp_path_factory), **OPTIONS)


def folder_of(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("sweep") / "out"


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    """A cluster of this machine, for all tests here."""
    module = pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        module.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )
        yield "local"
        module.shutdown()


@pytest.fixture
def marks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setitem(MEASURES, "marks", MARKS)
    monkeypatch.setenv("PYTHONPATH", PATH)
    (tmp_path / "marks").mkdir()
    return tmp_path / "marks"


def counted(marks: Path) -> dict[str, int]:
    return {f.name: len(f.read_text().splitlines()) for f in marks.iterdir()}


def place(name: str, request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"workers": 2, **({"ray": request.getfixturevalue("ray")} if name == "ray" else {})}


@pytest.mark.parametrize("where", ["processes", "ray"])
def test_results_are_those_of_one_process(
    where: str, models: list[Path], here: Sweep, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    there = sweep(
        models,
        MEASURED,
        TASKS,
        folder=tmp_path,
        **OPTIONS,
        **place(where, request),
    )
    assert there.cells()["state"].tolist() == ["done"] * 36
    assert there.cells()["worker"].nunique() >= 3  # each has one model
    for entry in MEASURED:
        for (one, ours), (two, theirs) in zip(
            here.results(entry), there.results(entry), strict=True
        ):
            assert one == two
            for name, array in ours.data.items():
                if array.dtype.kind == "f":  # another number of threads sums in another order
                    assert abs(array - theirs.data[name]).max() < 1e-4 or array.equals(
                        theirs.data[name]
                    )
                else:
                    assert array.equals(theirs.data[name]), (one, name)


@pytest.mark.parametrize("where", ["processes", "ray"])
def test_a_worker_that_is_killed_costs_its_cell_only(
    where: str, models: list[Path], marks: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The measure kills its own process in the middle of one cell, once."""
    options = {"folder": tmp_path / "out", **OPTIONS, "settings": {}, **place(where, request)}
    options["workers"] = 1
    measures = {"marks": {"marks": str(marks), "dies": ["antonyms"]}}
    done = sweep(models[:1], measures, TASKS, **options)
    assert list(done.failed) == [f"{MODELS[0]}/marks/antonyms/seed0"]
    assert "the worker died" in next(iter(done.failed.values()))
    again = sweep(models[:1], measures, TASKS, **options)
    assert again.cells()["state"].tolist() == ["done"] * 4
    assert sorted(counted(marks).values()) == [1, 1, 1, 2]
    if where == "ray":
        return
    # Tried again at once, if asked.
    for file in marks.iterdir():
        file.unlink()
    options |= {"folder": tmp_path / "other", "retries": 1}
    assert not sweep(models[:1], measures, TASKS, **options).failed


def test_a_model_whose_workers_die_is_given_up(
    models: list[Path], marks: Path, tmp_path: Path
) -> None:
    """As one does that has no room in memory: it must not be loaded anew for every cell."""
    options = {"folder": tmp_path / "out", **OPTIONS, "settings": {}, "workers": 1}
    measures = {"marks": {"marks": str(marks), "always_dies": True}}
    done = sweep(models[:1], measures, TASKS, **options)
    assert len(done.failed) == 4
    assert sum(counted(marks).values()) == 2


@pytest.mark.parametrize("where", [pytest.param("processes", marks=pytest.mark.thorough), "ray"])
def test_a_driver_that_is_killed_goes_on_where_it_stopped(
    where: str, models: list[Path], marks: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "out"
    options = "workers=2"
    if where == "ray":  # the cluster outlives the driver
        request.getfixturevalue("ray")
        import ray

        options = f"workers=1, ray={ray.get_runtime_context().gcs_address!r}"
    asked = {"marks": {"marks": str(marks), "waits": 0.2}}
    code = f"""
from sweep_measures import MARKS
from icl_mech.sweep import MEASURES, sweep

if __name__ == "__main__":
    MEASURES["marks"] = MARKS
    models = {[str(m) for m in models[: 1 if where == "ray" else 2]]}
    load = {{"device": "cpu"}}
    sweep(models, {asked}, {TASKS}, [0, 1], folder={str(out)!r}, load=load, {options})
"""
    script = tmp_path / "driver.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": PATH}
    driver = subprocess.Popen(
        [sys.executable, str(script)], env=environment, stderr=subprocess.PIPE
    )
    try:
        until(lambda: len(list(out.glob("*.nc"))) >= 3)
    finally:
        driver.send_signal(signal.SIGKILL)
        _, said = driver.communicate()
    finished = {p.name: p.read_bytes() for p in out.glob("*.nc")}
    n = 8 if where == "ray" else 16
    assert 3 <= len(finished) < n, said
    time.sleep(1.5)  # workers end with their driver
    before = counted(marks)
    assert subprocess.run([sys.executable, str(script)], env=environment).returncode == 0
    assert Sweep(out).cells()["state"].tolist() == ["done"] * n
    assert {name: (out / name).read_bytes() for name in finished} == finished
    after = counted(marks)
    assert sum(after.values()) - sum(before.values()) in (n - len(finished), n + 1 - len(finished))


def until(true: Any) -> None:
    for _ in range(600):
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("nothing happened for a minute")


def test_a_worker_with_another_version_is_refused(
    models: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray: str
) -> None:
    monkeypatch.setattr(places, "__version__", "9.9.9")
    with pytest.raises(InputError, match=r"has icl-mech .*, the sweep 9.9.9; expected the same"):
        sweep(models[0], "scan", "to_upper", folder=tmp_path, ray=ray, **OPTIONS)


def test_a_cluster_that_cannot_be_reached() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra `ray`)")
    code = """
import socket
from icl_mech.errors import InputError
from icl_mech.sweep import places

places.LONGER = 3
silent = socket.create_server(("127.0.0.1", 0))  # something else that listens
there = f"127.0.0.1:{silent.getsockname()[1]}"
for address in ("127.0.0.1:1", "ray://127.0.0.1:1", "nowhere", there):
    try:
        places.OnRay(address)
    except InputError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    assert all("cannot be reached" in line for line in lines)
    assert "no cluster answers there" in lines[-1]


def test_more_gpus_than_there_are(ray: str) -> None:
    with pytest.raises(InputError, match=r"room for 0 workers with 64 GPUs .*2 cores, 0 GPUs"):
        OnRay(ray, gpus=64)
