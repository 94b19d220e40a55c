"""Training: right losses, exact resume, and every way in which it can stop."""

import json
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import icl_mech.synthetic.checkpoints as checkpoints
from icl_mech.errors import InputError, ModelError, NotFiniteError
from icl_mech.synthetic import list_checkpoints, load_checkpoint, preset, train
from icl_mech.synthetic.__main__ import main
from icl_mech.synthetic.checkpoints import LAST, checkpoint_steps, make_model
from icl_mech.synthetic.data import draw_batch, make_mixture
from icl_mech.synthetic.settings import from_json, to_json

TINY = preset("tiny")
COMMAND = ("icl_mech.synthetic", "--preset", "tiny", "--no-progress")


def run(*options: str, **limits: int) -> subprocess.CompletedProcess[str]:
    """The command."""
    return forked.run(*COMMAND, *options, **limits)


def test_training_is_the_plain_loop(tmp_path: Path) -> None:
    """The same losses and weights as ten lines of PyTorch."""
    settings = replace(TINY, n_steps=12, warmup_steps=5, schedule="cosine", betas=(0.8, 0.99))
    trained = train(settings, tmp_path, device="cpu", progress=False)
    model = make_model(settings)
    adam = torch.optim.Adam(model.parameters(), betas=(0.8, 0.99))
    for step in range(12):
        batch = draw_batch(settings.mixture, settings.batch_size, settings.seed, step)
        errors = (model.predict(batch.xs, batch.ys) - batch.ys) ** 2
        assert trained.loss[step].item() == pytest.approx(errors.mean().item(), rel=1e-4)
        of_first = errors[batch.basis == 0].mean().item()
        assert trained.basis_loss[step, 0].item() == pytest.approx(of_first, rel=1e-4)
        decay = (1 + np.cos(np.pi * step / 12)) / 2
        adam.param_groups[0]["lr"] = settings.learning_rate * min(1, (step + 1) / 5) * decay
        adam.zero_grad()
        errors.mean().backward()
        adam.step()
    fresh = draw_batch(settings.mixture, 8, seed=99)
    torch.testing.assert_close(
        trained.model.predict(fresh.xs, fresh.ys), model.predict(fresh.xs, fresh.ys),
        atol=1e-4, rtol=1e-3,
    )  # fmt: skip


def test_a_short_run_learns(tmp_path: Path) -> None:
    """Something that needs the examples: below the variance of y, which is the rank."""
    settings = replace(
        TINY, mixture=make_mixture(1, 1, 1, n_examples=3), n_steps=300, batch_size=64
    )
    trained = train(settings, tmp_path, device="cpu", n_regular=0, n_log=0, progress=False)
    batch = draw_batch(settings.mixture, 500, seed=77)
    last = (trained.model.predict(batch.xs, batch.ys) - batch.ys)[:, -1].square().mean()
    assert last < 0.75


def test_checkpoints_are_what_training_passed_through(tmp_path: Path) -> None:
    trained = train(TINY, tmp_path, device="cpu", n_log=4, n_regular=4, progress=False)
    files = list_checkpoints(tmp_path)
    steps = [load_checkpoint(file).step for file in files]
    assert steps == checkpoint_steps(40, 4, 4) == [0, 1, 3, 10, 12, 20, 30, 40]
    first, last = load_checkpoint(files[0]), load_checkpoint(files[-1])
    assert last.settings == TINY
    batch = draw_batch(TINY.mixture, 8, seed=9)
    assert torch.equal(
        last.model().predict(batch.xs, batch.ys), trained.model.predict(batch.xs, batch.ys)
    )
    assert torch.equal(first.weights["position"], make_model(TINY).position)
    # The weights after 10 updates give the loss that was noted for the next one.
    drawn = draw_batch(TINY.mixture, TINY.batch_size, TINY.seed, 10)
    tenth = load_checkpoint(files[3]).model()
    loss = (tenth.predict(drawn.xs, drawn.ys) - drawn.ys).square().mean()
    assert loss.item() == pytest.approx(trained.loss[10].item(), rel=1e-5)
    assert not [f for f in tmp_path.iterdir() if f.suffix != ".safetensors"]


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """A real kill: losses and weights end up as those of a run that nothing happened to."""
    options = ["--n-steps", "400", "--device", "cpu"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert run(*options, "--folder", str(whole)).returncode == 0
    process = forked.start(*COMMAND, *options, "--folder", str(killed))
    deadline = time.monotonic() + 120
    while not (killed / "step_0000100.safetensors").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    process.wait()
    at = load_checkpoint(killed / LAST).step
    assert 80 <= at < 400, "killed too early or too late to show anything"
    done = run(*options, "--folder", str(killed), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n_steps"] == 400
    expected, found = load_file(whole / LAST), load_file(killed / LAST)
    assert len(found["extra/loss"]) == 400
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor.nan_to_num(-1), found[name].nan_to_num(-1)), name
    kept = [{f.name for f in list_checkpoints(folder)} for folder in (whole, killed)]
    assert kept[0] == kept[1]
    # A finished run is not trained again.
    before = (killed / LAST).stat().st_mtime_ns
    assert run(*options, "--folder", str(killed)).returncode == 0
    assert (killed / LAST).stat().st_mtime_ns == before


def test_a_run_of_other_settings_is_refused_and_the_difference_named(tmp_path: Path) -> None:
    train(TINY, tmp_path, device="cpu", n_log=0, n_regular=0, progress=False)
    other = replace(
        TINY, learning_rate=0.1, seed=3, mixture=make_mixture(4, 2, 2, n_examples=3)
    )  # fmt: skip
    with pytest.raises(InputError) as caught:
        train(other, tmp_path, device="cpu", progress=False)
    said = str(caught.value)
    assert "mixture.noise_variance is 0.05, not 0.01" in said
    assert "learning_rate is 0.003, not 0.1" in said
    assert "seed is 0, not 3" in said
    assert "n_steps" not in said
    (tmp_path / LAST).unlink()  # also where only weights are left
    with pytest.raises(InputError, match="seed is 0, not 3"):
        train(other, tmp_path, device="cpu", progress=False)


def test_a_checkpoint_of_another_format_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "FORMAT", 99)
        train(TINY, tmp_path, device="cpu", n_log=0, n_regular=0, progress=False)
    with pytest.raises(InputError, match="in format 99, written by icl-mech .*reads format 1"):
        train(TINY, tmp_path, device="cpu", progress=False)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    train(TINY, tmp_path, device="cpu", n_log=0, n_regular=0, progress=False)
    last = tmp_path / LAST
    whole = last.read_bytes()
    last.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="damaged"):
        train(TINY, tmp_path, device="cpu", progress=False)
    save_file({"x": torch.zeros(1)}, last)
    with pytest.raises(InputError, match="not a checkpoint of icl_mech.synthetic"):
        load_checkpoint(last)
    for header in ("{", '{"format": 1, "step": 0, "settings": {"unheard": 1}}'):
        save_file({"x": torch.zeros(1)}, last, metadata={"icl_mech": header})
        with pytest.raises(ModelError, match="its header cannot be read"):
            load_checkpoint(last)
    with pytest.raises(InputError, match="no such file"):
        load_checkpoint(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="no checkpoints"):
        list_checkpoints(tmp_path / "none")


def test_a_last_file_from_which_training_cannot_go_on_is_refused(tmp_path: Path) -> None:
    """Not counted as a finished run: a step's weights, and steps that the run does not have."""
    train(TINY, tmp_path, device="cpu", n_log=0, n_regular=0, progress=False)
    last = tmp_path / LAST
    step_file = tmp_path / "step_0000040.safetensors"
    # Copies: the file that they are mapped from is written over.
    whole = {name: tensor.clone() for name, tensor in load_file(last).items()}
    shutil.copy(step_file, last)
    with pytest.raises(ModelError, match="'loss' after 40 updates is missing"):
        train(TINY, tmp_path, device="cpu", progress=False)
    header = {"format": 1, "version": "", "settings": to_json(TINY)}

    def write(path: Path, tensors: dict[str, torch.Tensor], **changed: object) -> None:
        save_file(tensors, path, metadata={"icl_mech": json.dumps(header | changed)})

    for step in (-5, 41, 10**9, True, 1.5, None, "40"):
        write(last, whole, step=step)
        with pytest.raises(ModelError, match="expected 0 to 40"):
            train(TINY, tmp_path, device="cpu", progress=False)
    write(last, whole, step=39)  # the losses of 40 updates
    with pytest.raises(ModelError, match="'loss' after 39 updates"):
        train(TINY, tmp_path, device="cpu", progress=False)
    write(last, {k: v for k, v in whole.items() if k != "extra/exp_avg/position"}, step=40)
    with pytest.raises(ModelError, match="'exp_avg/position' after 40 updates"):
        train(TINY, tmp_path, device="cpu", progress=False)
    write(last, {**whole, "extra/exp_avg/position": torch.zeros(1)}, step=40)
    with pytest.raises(ModelError, match="another shape"):
        train(TINY, tmp_path, device="cpu", progress=False)
    write(last, {**whole, "foreign": torch.zeros(1)}, step=40)
    with pytest.raises(ModelError, match="not those of its settings"):
        load_checkpoint(last)
    huge = to_json(TINY)
    huge["model"]["n_layers"] = 10**7
    write(last, whole, step=40, settings=huge)
    with pytest.raises(ModelError, match="not those of its settings"):
        load_checkpoint(last)
    write(last, whole, step=40)
    assert train(TINY, tmp_path, device="cpu", progress=False).loss.isfinite().all()
    shutil.copy(step_file, tmp_path / "step_0000007.safetensors")
    with pytest.raises(ModelError, match="step is 40; expected 7, as in the file's name"):
        load_checkpoint(tmp_path / "step_0000007.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n_layers", "batch_size"), [("paper", 4, 40)])
def test_the_memory_asked_for_is_what_training_takes(
    tmp_path: Path, name: str, n_layers: int, batch_size: int
) -> None:
    """The peak of a process that does three updates, beyond what it takes before them."""
    program = (
        "import re, sys, tempfile\n"
        "from dataclasses import replace\n"
        "from pathlib import Path\n"
        "from icl_mech.synthetic import preset, train\n"
        "from icl_mech.synthetic.memory import training_bytes\n"
        "name, n_layers, batch_size, folder = sys.argv[1:]\n"
        "def go(s):\n"
        "    train(s, tempfile.mkdtemp(dir=folder), device='cpu', progress=False)\n"
        # Not ru_maxrss, which a process inherits from its parent.
        "def taken(what):\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    return int(re.search(rf'{what}:\\s+(\\d+)', status)[1]) * 1024\n"
        "go(preset('tiny', n_steps=3))\n"  # what is imported and prepared once
        "s = preset(name, n_steps=3, batch_size=int(batch_size))\n"
        "s = replace(s, model=replace(s.model, n_layers=int(n_layers)))\n"
        "before = taken('VmRSS')\n"
        "go(s)\n"
        "fixed, each = training_bytes(s)\n"
        "print((fixed + s.batch_size * each) / (taken('VmHWM') - before))\n"
    )
    command = [sys.executable, "-c", program, name, str(n_layers), str(batch_size), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.85 < float(done.stdout) < 1.15


def test_a_diverged_run_stops_and_keeps_the_last_good_checkpoint(tmp_path: Path) -> None:
    """A learning rate at which weights overflow."""
    wild = replace(TINY, learning_rate=1e30, n_steps=100, warmup_steps=100)
    with pytest.raises(NotFiniteError) as caught:
        train(wild, tmp_path, device="cpu", progress=False)
    said = str(caught.value)
    assert "not finite at step" in said
    last = load_checkpoint(tmp_path / LAST)
    assert f"step {last.step}," in said
    assert all(weight.isfinite().all() for weight in last.weights.values())
    assert all(load_checkpoint(f).step <= last.step for f in list_checkpoints(tmp_path))


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path) -> None:
    """The weights fit, the optimiser's state does not."""
    folder = tmp_path / "run"
    done = run("--folder", str(folder), "--device", "cpu", file_limit=50_000)
    assert done.returncode == 2, done.stderr
    assert f"cannot write {folder}" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    for file in folder.iterdir():
        load_checkpoint(file)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "smal"], "unknown preset 'smal'; did you mean 'small'"),
        (["--variant", "orthogonal5"], "unknown variant 'orthogonal5'; did you mean 'orthogonal"),
        (["--n-steps", "0"], "n_steps is 0; expected at least 1"),
        (["--batch-size", "-1"], "batch_size is -1"),
        (["--learning-rate", "nan"], "learning_rate is nan; expected above 0"),
        (["--seed", "-1"], "seed is -1; expected at least 0"),
        (["--device", "cuda:77"], "device 'cuda:77' is not usable here"),
        (["--folder", "/proc/none"], "cannot write /proc/none"),
        (["--precision", "float7"], "float7"),
        (["--seed", str(2**32)], "seed is 4294967296; expected at most 4294967295"),
        (["--seed", "9" * 4000], "expected at most 4294967295"),
        (["--n-steps", "10000000000"], "n_steps is 10000000000; expected at most 10,000,000"),
        (["--batch-size", "1000000000"], "of memory; cpu has"),
        (["--batch-size", "9" * 30], "Expected a batch_size of at most"),
        (["--out", "x.html"], "--out without --measure"),
        (["--n-per-basis", "50", "--n-probe", "50"], "--n-per-basis, --n-probe without --measure"),
        (["--measure", "--n-per-basis", "0"], "n_per_basis 0, k 10; expected"),
        (["--measure", "--n-per-basis", "1000000"], "at most 10,000: every sequence is compared"),
        (["--measure", "--n-probe", "5"], "n_probe 5; expected 10 to 10,000"),
        (["--measure", "--out", "x.gif"], "unknown kind of figure '.gif'"),
    ],
)
def test_mistakes_give_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    where = [] if "--folder" in options else ["--folder", str(tmp_path)]
    with warnings.catch_warnings(), pytest.raises(SystemExit) as caught:
        main(["--preset", "tiny", "--device", "cpu", "--no-progress", *where, *options])
    assert caught.value.code == 2
    assert not list(tmp_path.iterdir())  # refused before the training
    out, err = capsys.readouterr()
    assert message in " ".join(err.replace("│", " ").split())
    assert out == ""


@pytest.mark.slow
def test_training_and_measuring_in_one_command(tmp_path: Path) -> None:
    folder = tmp_path / "<b>"
    done = run("--folder", str(folder), "--device", "cpu", "--measure", "--n-per-basis", "12",
               "--n-probe", "20", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["summary"][-1]["step"] == 40
    assert printed["provenance"]["settings"]["n_steps"] == 40
    html = (folder / "emergence.html").read_text()
    assert 'src="http' not in html
    assert "the run in <b>" not in html
    assert (folder / "emergence.nc").exists()


def test_help_does_not_wait_for_torch() -> None:
    program = (
        "import sys; from icl_mech.synthetic.__main__ import main\n"
        "try: main(['--help'])\n"
        "except SystemExit as e: print(e.code, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "0 False"


def test_mixed_precision_is_near_full_precision(tmp_path: Path) -> None:
    options = {"device": "cpu", "progress": False, "n_log": 0, "n_regular": 0}
    full = train(TINY, tmp_path / "full", **options)
    mixed = train(replace(TINY, precision="bfloat16"), tmp_path / "mixed", **options)
    assert not torch.equal(full.loss, mixed.loss)
    torch.testing.assert_close(mixed.loss, full.loss, rtol=0.05, atol=0.05)
    # Weights stay in single precision.
    assert {w.dtype for w in mixed.model.state_dict().values()} == {torch.float32}


def test_settings_survive_json() -> None:
    for name in ("paper", "small", "tiny"):
        settings = preset(name, seed=5)
        assert from_json(json.loads(json.dumps(to_json(settings)))) == settings
    paper = preset("paper")
    assert (paper.n_steps, paper.batch_size, paper.betas) == (80_000, 128, (0.9, 0.9999))
    assert paper.curriculum_steps == paper.weight_mean(0) == 0
    curriculum = preset("tiny", curriculum_steps=10)
    assert [curriculum.weight_mean(step) for step in (0, 5, 10, 39)] == [1, 0.5, 0, 0]
    assert paper.rate(0) == paper.rate(79_999) == 1e-4
    with pytest.raises(InputError, match="unknown preset"):
        preset("large")
    with pytest.raises(InputError, match="betas are"):
        preset("tiny", betas=(0.9, 1.0))


def test_checkpoint_steps() -> None:
    steps = checkpoint_steps(80_000)
    assert steps[0] == 0
    assert steps[-1] == 80_000
    assert set(range(0, 80_001, 4000)) <= set(steps)
    assert len([s for s in steps if 0 < s < 1000]) >= 10
    assert checkpoint_steps(1) == [0, 1]
    assert checkpoint_steps(7, 0, 0) == [0, 7]
    with pytest.raises(InputError, match="n_log is -1"):
        checkpoint_steps(7, -1)
