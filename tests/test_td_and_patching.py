"""Does TD predict accuracy, and what another task's mean does: against the plain way."""

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from tiny_models import tiny_model

from icl_mech import load_result
from icl_mech.decodability import (
    TaskDecodability,
    task_decodability,
    td_predicts_accuracy,
)
from icl_mech.decodability.accuracy import td_and_accuracy
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.patch import MeanPatching, mean_patching
from icl_mech.prompts import draw_matched, load_pool

# --- TD and accuracy ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_up() -> TaskDecodability:
    """Shots raise TD and accuracy alike; within a number of shots they go against each other."""
    result = task_decodability(
        tiny_model("llama"), "verbs", 40, (1, 2, 3), k=3, layers=[1], probe=False, progress=False
    )
    data = result.data.copy(deep=True)
    n = data.sizes["point"]
    for s, shots in enumerate(result.shots):
        for t in range(4):
            td, right = 0.2 + 0.25 * s + 0.05 * t, 0.25 + 0.25 * s - 0.05 * t
            order = np.random.default_rng([s, t]).permutation(n)
            data["credit"].loc[{"shots": shots, "layer": 1}][t] = order < round(td * n)
            data["exact"].loc[{"shots": shots}][t] = order < round(right * n)
    return TaskDecodability(data, result.provenance)


def test_shots_drive_both_and_tasks_do_not(made_up: TaskDecodability) -> None:
    frame = td_and_accuracy(made_up)
    assert len(frame) == 3 * 4
    assert frame["td"].tolist()[:4] == pytest.approx([0.2, 0.25, 0.3, 0.35])
    assert frame["accuracy"].tolist()[:4] == pytest.approx([0.25, 0.2, 0.15, 0.1])
    r2 = td_predicts_accuracy(made_up)
    x, y = frame["td"], frame["accuracy"]
    assert r2.loc["overall", "r2"] == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert r2.loc["within task", "r2"] == pytest.approx(1)
    assert r2.loc["within shots", "r2"] == pytest.approx(1)  # with a falling line
    assert r2.loc["overall", "r2"] < 0.9
    assert (r2["r2_low"] <= r2["r2"]).all()
    assert (r2["n_rows"] == 12).all()


def test_intervals_of_r_squared_come_from_queries(made_up: TaskDecodability) -> None:
    """The same queries ten times over are no more evidence."""
    once = td_predicts_accuracy(made_up)
    repeated = xr.concat([made_up.data] * 10, dim="point", data_vars="minimal")
    again = td_predicts_accuracy(TaskDecodability(repeated, made_up.provenance))
    assert again["r2_low"].to_numpy() == pytest.approx(once["r2_low"].to_numpy(), abs=1e-6)


def test_several_runs_are_one_fit(made_up: TaskDecodability) -> None:
    both = td_predicts_accuracy([made_up, made_up])
    assert (both["n_rows"] == 24).all()
    assert both["r2"].to_numpy() == pytest.approx(td_predicts_accuracy(made_up)["r2"].to_numpy())
    with pytest.raises(InputError, match="no results"):
        td_predicts_accuracy([])
    with pytest.raises(InputError, match="unknown score 'exakt'; did you mean 'exact'"):
        td_predicts_accuracy(made_up, "exakt")


def test_one_number_of_shots_says_nothing_within_a_task(tiny_llama: HookedModel) -> None:
    run = task_decodability(tiny_llama, "verbs", 8, 2, k=3, probe=False, progress=False)
    assert np.isnan(td_predicts_accuracy(run).loc["within task", "r2"])


# --- mean patching --------------------------------------------------------------------------


N, N_MEAN, SHOTS = 4, 6, 3


@pytest.fixture(scope="module")
def patched() -> MeanPatching:
    return mean_patching(
        tiny_model("gemma3"), "letters", N, SHOTS, 1, n_mean=N_MEAN, layers=[1, 3], progress=False
    )


def test_equals_one_forward_per_prompt_and_edit(patched: MeanPatching) -> None:
    model, pool = tiny_model("gemma3"), load_pool("letters")
    dev, test = draw_matched(pool.tasks, {"n_mean": N_MEAN, "n_prompts": N}, SHOTS, 1)
    encoder = model.encoder("{x}->{y}", [p.y for t in pool.tasks for p in t.pairs])

    def tokens(e: object) -> torch.Tensor:
        return torch.tensor([encoder.encode(e.demonstrations, e.query.x).tokens])

    asked = {e.query.x for e in test.episodes[0]}
    assert not asked & {e.query.x for e in dev.episodes[0]}
    for layer in (1, 3):
        hook = f"blocks.{layer}.hook_resid_post"
        with torch.inference_mode():
            mean = torch.stack(
                [model.bridge.run_with_cache(tokens(e))[1][hook][0, -1] for e in dev.episodes[2]]
            ).mean(0)
            for mode in ("replace", "add"):

                def write(resid, hook, mode=mode, mean=mean):
                    resid = resid.clone()
                    resid[0, -1] = mean if mode == "replace" else resid[0, -1] + mean
                    return resid

                for i, e in enumerate(test.episodes[0]):
                    prompt = encoder.encode(e.demonstrations, e.query.x)
                    logits = model.bridge.run_with_hooks(tokens(e), fwd_hooks=[(hook, write)])
                    logprobs = logits[0, -1].log_softmax(-1)
                    for t in range(3):
                        (answer,) = encoder.answer_tokens(prompt, test.episodes[t][i].query.answers)
                        ours = patched.data.sel(
                            task="letters/next", injected="letters/upper", mode=mode, layer=layer
                        )
                        assert float(ours["logprob"][i, t]) == pytest.approx(
                            float(logprobs[answer[0]]), abs=1e-3
                        )
                        right = int(logprobs.argmax()) == answer[0]
                        assert bool(ours["right"][i, t]) == right


def test_matrices_are_means_of_what_is_stored(patched: MeanPatching) -> None:
    d = patched.data
    after = d["logprob"].sel(mode="add", layer=3).mean("prompt")
    before = d["logprob_before"].mean("prompt")
    own = patched.matrix(3, "add", "logprob")
    theirs = patched.matrix(3, "add", "logprob", answer="injected")
    assert list(own.columns) == patched.injected
    for i, source in enumerate(patched.tasks):
        for name in patched.injected:
            cell = after.sel(task=source, injected=name)[i] - before.sel(task=source)[i]
            assert own.loc[source, name] == pytest.approx(float(cell), abs=1e-5)
        for j, name in enumerate(patched.tasks):
            cell = after.sel(task=source, injected=name)[j] - before.sel(task=source)[j]
            assert theirs.loc[source, name] == pytest.approx(float(cell), abs=1e-5)
    diagonal = np.diag(own.to_numpy()[:, :3])
    assert patched.change("own", 3, "add", measure="logprob").value == pytest.approx(
        diagonal.mean(), abs=1e-5
    )
    rest = (own.to_numpy()[:, :3].sum() - diagonal.sum()) / 6
    others = patched.change("others", 3, "add", measure="logprob")
    assert others.value == pytest.approx(rest, abs=1e-5)
    assert others.low <= others.value <= others.high
    with pytest.raises(InputError, match=r"layer 2 was not patched; expected one of \[1, 3\]"):
        patched.matrix(2)


def test_patching_is_saved_loaded_and_drawn(patched: MeanPatching, tmp_path: Path) -> None:
    again = load_result(patched.save(tmp_path / "patched.nc"))
    assert isinstance(again, MeanPatching)
    assert again.data.identical(patched.data)
    figure = again.plot("add", "logprob")
    assert [np.array(t.z).shape for t in figure.data] == [(3, 6)] * 2
    assert np.array(figure.data[1].z) == pytest.approx(
        patched.matrix(3, "add", "logprob").to_numpy()
    )
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax
    assert np.array(again.plot(answer="injected").data[0].z).shape == (3, 3)
    assert len(patched.summary()) == 2 * 2
    assert "null task" in " ".join(patched.caveats())
    assert len(patched.to_frame()) == 3 * N * 2 * 2 * 6 * 3
    with pytest.raises(InputError, match="unknown mode 'shift'"):
        again.plot("shift")


def test_a_null_task_is_injected_but_answers_nothing() -> None:
    found = mean_patching(
        tiny_model("llama"), "bitwise", 2, 2, n_mean=3, layers=[1], modes=["replace"],
        progress=False,
    )  # fmt: skip
    assert "bitwise/null" in found.data["injected"].values
    assert found.data["answered"].values.tolist() == found.tasks
    assert "bitwise/null" not in found.tasks
    assert found.data["right"].notnull().all()
    assert not any("no null task" in note for note in found.caveats())


def test_controls_have_the_lengths_they_claim() -> None:
    from icl_mech.patch.means import _vectors
    from icl_mech.prompts import generator

    means = torch.randn(4, 2, 50, generator=torch.Generator().manual_seed(0))
    *tasks, null, common, noise, special = _vectors(means, 1, 3, generator(0, "x"))
    assert torch.equal(torch.stack([*tasks, null]), means)
    torch.testing.assert_close(common, means[:3].mean(0))
    torch.testing.assert_close(noise.norm(dim=-1), means[1].norm(dim=-1))
    torch.testing.assert_close(
        (special - common).norm(dim=-1), (means[1] - means[:3].mean(0)).norm(dim=-1)
    )


def test_what_cannot_be_patched(tiny_llama: HookedModel) -> None:
    def run(tasks: object = "letters", **changes: object) -> None:
        mean_patching(tiny_llama, tasks, 3, 2, n_mean=3, progress=False, **changes)

    with pytest.raises(InputError, match="ask different inputs; expected a family"):
        run(["to_upper", "antonyms"])
    with pytest.raises(InputError, match=r"modes \['add', 'add'\]; expected 'replace', 'add'"):
        run(modes=["add", "add"])
    with pytest.raises(InputError, match="layer 9 out of range: expected 0 to 3"):
        run(layers=[9])
