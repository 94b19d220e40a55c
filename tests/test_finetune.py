"""Finetuning: what is trained, on what, and how a run goes on."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import assert_refused, run_room
from safetensors.torch import load_file
from tiny_models import random_model, saved

import icl_mech
from icl_mech.errors import InputError, ModelError, NotFiniteError
from icl_mech.finetune import FinetuneSettings, Finetuning, chosen_blocks, list_adapters
from icl_mech.finetune.files import LAST
from icl_mech.finetune.plan import plan
from icl_mech.finetune.training import Trainer
from icl_mech.model import load_model, load_tuned, outline
from icl_mech.prompts import hold_out
from icl_mech.tasks import Family, Pair, Task, load_family

FAMILIES = ("llama", "gpt2", "gpt_neox", "gemma3")


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models in folders."""
    home = tmp_path_factory.mktemp("bases")
    return {name: saved(random_model(name), home / f"tiny-{name}") for name in FAMILIES}


def toy() -> Family:
    """Two tasks that a tiny model can learn: always "Q", always "Z"."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return Family(
        "toy",
        tuple(
            Task(f"toy/{answer}", "user", "", tuple(Pair(x, (answer,)) for x in letters))
            for answer in "QZ"
        ),
    )


def tune(base: Path, folder: Path, tasks: Any = None, **options: Any) -> Finetuning:
    usual: dict[str, Any] = {
        "n_prompts": 4,
        "n_shots": 2,
        "n_steps": 6,
        "batch_size": 4,
        "n_checkpoints": 3,
        "device": "cpu",
        "progress": False,
    }
    return icl_mech.finetune(
        base, toy() if tasks is None else tasks, folder=folder, **(usual | options)
    )


# --- learning -------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_the_loss_falls(bases: dict[str, Path], family: str, tmp_path: Path) -> None:
    found = tune(bases[family], tmp_path, n_steps=30, learning_rate=2e-2, blocks="all")
    losses = found.data["train_loss"].values
    assert losses[-5:].mean() < 0.7 * losses[:5].mean()
    assert found.loss().value < found.loss(step=0).value
    assert found.steps[0] == 0
    assert found.steps[-1] == 30


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_at_the_start_changes_nothing(
    bases: dict[str, Path], family: str, tmp_path: Path
) -> None:
    tune(bases[family], tmp_path, n_steps=1)
    tokens = torch.tensor([[256, 70, 71, 72, 73]])
    with torch.no_grad():
        plain = load_model(bases[family], device="cpu")
        start = load_model(bases[family], adapter=tmp_path / "step_0000000", device="cpu")
        assert torch.equal(plain.bridge(tokens), start.bridge(tokens))


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_below_the_trained_ones_see_no_change(
    bases: dict[str, Path], family: str, tmp_path: Path
) -> None:
    tune(bases[family], tmp_path, blocks="2:4", n_steps=3, learning_rate=1e-1)
    after = load_model(bases[family], adapter=tmp_path / "step_0000003", device="cpu")
    before = load_model(bases[family], device="cpu")
    encoder = before.encoder("{x}->{y}", ["a"])
    prompts = [encoder.encode((Pair("a", ("b",)),), "c"), encoder.encode((), "d")]
    streams = [m.residual_stream(prompts, ["final_arrow"])[:, 0] for m in (before, after)]
    assert torch.equal(streams[0][:, :3], streams[1][:, :3])  # before block 0, after 0 and 1
    assert not torch.equal(streams[0][:, 3], streams[1][:, 3])


def test_nothing_runs_backwards_below_the_trained_blocks(bases: dict[str, Path]) -> None:
    found = outline(bases["llama"])
    tuned = load_tuned(found, [2], found.choose(["attention"]))
    kept: list[bool] = []
    for block in tuned.peft.get_submodule("base_model.model.model.layers"):
        block.register_forward_hook(lambda module, given, out: kept.append(out.requires_grad))
    tuned.answer_logits([[256, 70, 71]], [[5]])
    assert kept == [False, False, True, True]


def test_logits_are_computed_at_answers_only_and_are_the_models(bases: dict[str, Path]) -> None:
    for family in FAMILIES:
        found = outline(bases[family])
        tuned = load_tuned(found, [0], found.choose(["mlp"]))
        tuned.train(False)
        rows = [[256, 70, 71, 72], [256, 80]]
        answers = [[5, 6, 7], [9]]
        with torch.no_grad():
            logits, targets, owner = tuned.answer_logits(rows, answers)
            first = tuned.peft(torch.tensor([[256, 70, 71, 72, 5, 6]])).logits[0, 3:]
            second = tuned.peft(torch.tensor([[256, 80]])).logits[0, 1:]
        assert targets.tolist() == [5, 6, 7, 9]
        assert owner.tolist() == [0, 0, 0, 1]
        torch.testing.assert_close(logits, torch.cat([first, second]), atol=1e-5, rtol=1e-5)


def test_thirds_train_equally_many_weights(bases: dict[str, Path], tmp_path: Path) -> None:
    found = {
        blocks: tune(bases["llama"], tmp_path / blocks, blocks=blocks, n_steps=1)
        for blocks in ("first", "middle", "last")
    }
    weights = {f.provenance["n_trainable_weights"] for f in found.values()}
    assert len(weights) == 1
    assert [f.provenance["trained_blocks"] for f in found.values()] == [[0], [1], [3]]
    for n in range(1, 50):
        thirds = [chosen_blocks(name, n) for name in ("first", "middle", "last")]
        assert len({len(third) for third in thirds}) == 1
        assert thirds[0][0] == 0
        assert thirds[2][-1] == n - 1
        if n >= 3:
            assert len({block for third in thirds for block in third}) == sum(map(len, thirds))


def test_held_out_inputs_are_never_trained_on() -> None:
    family = load_family("bitwise")
    cut = hold_out(family.proper, n_prompts=30, n_shots=4, seed=1)
    held = {pair.x for pair in cut.held_out[0]}
    assert len(held) == 205
    assert {e.query.x for row in cut.test for e in row} <= held
    assert not held & {p.x for row in cut.test for e in row for p in e.demonstrations}
    assert [e.query.x for e in cut.test[0]] == [e.query.x for e in cut.test[3]]
    for step in range(20):
        batch = cut.batch(8, 4, seed=1, step=step)
        assert {task for task, _ in batch} == set(range(6))
        for task, episode in batch:
            shown = [pair.x for pair in episode.demonstrations]
            assert not held & {episode.query.x, *shown}
            assert len({episode.query.x, *shown}) == 5
            assert episode.query in family.proper[task].pairs
    counts = np.bincount([t for s in range(3) for t, _ in cut.batch(8, 4, 1, s)])
    assert counts.tolist() == [4] * 6  # the tasks take turns


def test_what_is_right(bases: dict[str, Path], tmp_path: Path) -> None:
    """Right: all tokens of any accepted answer are what greedy decoding begins with."""
    pairs = [Pair(x, ("no", x)) for x in "abcdefghijklmnop"]
    tasks = [
        Task("one", "user", "", tuple(pairs)),
        Task("two", "user", "", tuple(Pair(p.x, ("Qx", "Zy")) for p in pairs)),
    ]
    found = tune(bases["llama"], tmp_path, tasks, n_steps=1, n_shots=3)
    model = load_model(bases["llama"], device="cpu")
    drawn = plan(tasks, FinetuneSettings(n_prompts=4, n_shots=3, n_steps=1, batch_size=4))
    encoder = model.encoder("{x}->{y}", ["no"], False)
    for t, row in enumerate(drawn.cut.test):
        prompts = [encoder.encode(e.demonstrations, e.query.x) for e in row]
        answers = [
            encoder.answer_tokens(p, e.query.answers) for p, e in zip(prompts, row, strict=True)
        ]
        texts = model.generate(prompts, max_new_tokens=2)
        logprob = model.sequence_logprob(prompts, answers)[:, 0, 0].numpy()
        at = found.data.isel(step=0, task=t)
        expected = [
            any(tuple(g[0].tokens[: len(a)]) == a for a in row)
            for g, row in zip(texts, answers, strict=True)
        ]
        assert at["right"].values.tolist() == expected
        lengths = np.array([len(a[0]) for a in answers])
        np.testing.assert_allclose(at["loss"], -logprob / lengths, rtol=1e-4)


# --- a run goes on --------------------------------------------------------------------------


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_at", [1, 3, 5])
def test_a_resumed_run_is_the_same_to_the_bit(
    bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    whole = tune(bases["llama"], tmp_path / "whole")
    update = Trainer.update

    def dies(self: Trainer) -> None:
        if self.step == killed_at:
            raise Killed
        update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "update", dies)
        with pytest.raises(Killed):
            tune(bases["llama"], tmp_path / "killed")
    state = torch.random.get_rng_state()
    torch.rand(3)  # another process would have drawn other numbers by now
    resumed = tune(bases["llama"], tmp_path / "killed")
    torch.random.set_rng_state(state)
    assert resumed.data.drop_vars("loss").identical(whole.data.drop_vars("loss"))
    np.testing.assert_array_equal(resumed.data["loss"], whole.data["loss"])
    for (step, one), (_, other) in zip(
        list_adapters(tmp_path / "whole"), list_adapters(tmp_path / "killed"), strict=True
    ):
        first, second = (load_file(p / "adapter_model.safetensors") for p in (one, other))
        assert all(torch.equal(first[name], second[name]) for name in first), step
    again = tune(bases["llama"], tmp_path / "killed")  # finished: nothing is trained
    assert again.data.identical(resumed.data)
    assert again.provenance["seconds"] == resumed.provenance["seconds"]


def test_training_leaves_the_callers_generator_alone(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    tune(bases["gpt2"], tmp_path, n_steps=2)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_folder_of_another_run_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    tune(bases["llama"], tmp_path, n_steps=2)
    with pytest.raises(InputError, match="holds another run: seed is 0, not 1; rank is 16, not 4"):
        tune(bases["llama"], tmp_path, n_steps=2, seed=1, rank=4)
    with pytest.raises(InputError, match="tasks is .*toy/Q.*, not .*letters/next.*; pairs is"):
        tune(bases["llama"], tmp_path, "letters", n_steps=2)
    with pytest.raises(InputError, match="model is 'tiny-llama-.*', not 'tiny-gpt2-"):
        tune(bases["gpt2"], tmp_path, n_steps=2)
    (tmp_path / LAST).unlink()
    with pytest.raises(InputError, match=r"holds adapters \(step_\*\) but no last.safetensors"):
        tune(bases["llama"], tmp_path, n_steps=2)


def test_a_damaged_file_is_refused(bases: dict[str, Path], tmp_path: Path) -> None:
    tune(bases["llama"], tmp_path, n_steps=1)
    whole = (tmp_path / LAST).read_bytes()
    (tmp_path / LAST).write_bytes(whole[:-100])
    with pytest.raises(ModelError, match=r"last\.safetensors: damaged"):
        tune(bases["llama"], tmp_path, n_steps=1)


def test_a_run_that_diverges_stops_and_keeps_what_was_good(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(NotFiniteError, match="not finite at step [1-9].*step [0-9]+, is kept"):
        tune(bases["llama"], tmp_path, n_steps=40, learning_rate=1e30, warmup_steps=0)
    for _, path in list_adapters(tmp_path):
        weights = load_file(path / "adapter_model.safetensors")
        assert all(w.isfinite().all() for w in weights.values())


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": "frist"}, "unknown blocks 'frist'; did you mean 'first'"),
        ({"blocks": "2:2"}, "'2:2' is an empty range"),
        ({"blocks": "a:3"}, "expected two whole numbers"),
        ({"blocks": "2:5"}, "'2:5' are out of range: expected A:B within 0:4"),
        ({"targets": "atention"}, "unknown target 'atention'; did you mean 'attention'"),
        ({"targets": ("mlp", "q_prj")}, "unknown target 'q_prj'; did you mean 'q_proj'"),
        ({"targets": ()}, "targets are .*; expected some"),
        ({"n_steps": 0}, "n_steps is 0; expected from 1"),
        ({"n_checkpoints": 1}, "n_checkpoints is 1; expected from 2"),
        ({"rank": 0}, "rank is 0; expected at least 1"),
        ({"dropout": 1.0}, "dropout is 1.0; expected from 0 to below 1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; expected above 0"),
        ({"learning_rate": math.nan}, "learning_rate is nan; expected above 0"),
        ({"learning_rate": 1e38}, "learning_rate is 1e.38; expected above 0 and at most 1e.30"),
        ({"batch_size": 1}, "batch_size is 1 for 2 tasks; expected at least 2"),
        ({"n_shots": 30}, "has 26 inputs, too few"),
        ({"tasks": "bitwize"}, "did you mean 'bitwise/and'"),
        ({"template": "x" * 300 + "{x}->{y}"}, "tokens, and tiny-llama-.* takes 256; expected"),
    ],
)
def test_refusals(
    bases: dict[str, Path], tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        tune(bases["llama"], tmp_path / "run", **options)


def test_a_folder_that_cannot_be_written(bases: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write .*file"):
        tune(bases["llama"], tmp_path / "file")


# --- the result -----------------------------------------------------------------------------


def test_the_result(bases: dict[str, Path], tmp_path: Path) -> None:
    found = tune(bases["llama"], tmp_path / "run", n_steps=20, learning_rate=2e-2)
    again = icl_mech.load_result(found.save(tmp_path / "found.nc"))
    assert isinstance(again, Finetuning)
    assert again.summary().equals(found.summary())
    assert found.summary().index.unique("task").tolist() == ["toy/Q", "toy/Z"]
    assert len(found.summary()) == 2 * len(found.steps)
    assert len(found.to_frame()) == 2 * 4 * len(found.steps)
    assert "all tasks" in found.table().index
    assert "updates of 4 prompts" in repr(found)
    assert {t.name for t in found.plot().data if t.name} >= {"Q", "Z", "all tasks"}
    assert found.gain().value == found.accuracy().value - found.accuracy(step=0).value
    with pytest.raises(InputError, match="unknown checkpoint"):
        found.accuracy(step=19)
    held = found.provenance["held_out_inputs"]["toy/Q"]
    assert set(found.data["query"].values.ravel()) <= set(held)
    assert str(tmp_path) not in repr(found.provenance)


def test_the_command(bases: dict[str, Path], tmp_path: Path) -> None:
    base, run = str(bases["llama"]), str(tmp_path / "run")
    options = (
        f"--model {base} --folder {run} --tasks letters --n-prompts 2 --n-shots 1 --n-steps 2 "
        f"--batch-size 3 --blocks last --targets q_proj mlp --device cpu --out {tmp_path}/a.html"
    ).split()
    done = run_room("finetune", *options)
    assert done.returncode == 0, done.stderr
    assert "letters/next" in done.stdout
    assert (tmp_path / "a.nc").exists()
    adapter = str(list_adapters(run)[-1][1])
    refused = run_room("finetune", "--adapter", adapter, *options)
    assert_refused(refused, "--adapter with finetune")
    assert_refused(run_room("finetune", "--dtype", "bfloat16"), "--dtype bfloat16 with finetune")
    assert_refused(run_room("finetune", "--blocks", "3:1"), "'3:1' is an empty range")


def test_a_part_that_no_block_has_is_not_offered(tmp_path: Path) -> None:
    base = saved(random_model("mamba"), tmp_path / "mamba")
    with pytest.raises(
        InputError, match="unknown target 'attention'. Choose from: in_proj, x_proj"
    ):
        outline(base).choose(["attention"])
