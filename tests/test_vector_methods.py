"""Ways to get a task vector: identities, what is never scored, bad input, and the comparison."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from commands import assert_refused, run_command
from plain import random_prompts
from scipy.special import rel_entr
from tiny_models import FAMILIES, answering_bridge, answering_task, tiny_model

from icl_mech import TaskVector, compare_vectors, list_tasks, load_model, load_result
from icl_mech.errors import InputError, NotFiniteError
from icl_mech.model import Edit, HookedModel, as_array
from icl_mech.model.distances import distances
from icl_mech.model.network import Unembedding
from icl_mech.prompts import in_context, zero_shot
from icl_mech.stats import holm
from icl_mech.tasks import Pair, Task
from icl_mech.vector_methods import (
    METHODS,
    VectorComparison,
    form_vector,
    run as running,
    training,
)
from icl_mech.vector_methods.material import Material
from icl_mech.vector_methods.plan import CompareSettings, CompareTask, plan_compare, training_pairs
from icl_mech.vector_methods.training import weighted_sum
from icl_mech.vectors import function_vector

SMALL: dict[str, Any] = {"n_dummies": 1, "n_sets": 3, "n_steps": 4, "batch_size": 4}
SETTINGS = CompareSettings(n_prompts=6, n_shots=2, **SMALL)


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return load_model(answering_bridge())


def planned(task: Task | str = "to_upper", s: CompareSettings = SETTINGS) -> CompareTask:
    return plan_compare(task, s).tasks[0]


def material(model: HookedModel, task: Task | str = "to_upper") -> Material:
    of = planned(task)
    encoder = model.encoder(SETTINGS.template, [pair.y for pair in of.task.pairs])
    return Material(of.task, encoder, of.pairs, of.dev, 3, 2, 1, 0)


# --- distances of next-token distributions ----------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_distances_slice_by_slice_are_scipys_on_whole_rows(family: str) -> None:
    model = tiny_model(family)
    first = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    second = torch.randn(3, 2, 32, generator=torch.Generator().manual_seed(2))
    second[1, 0] = first[1]
    unembedding = Unembedding.of(model.bridge)
    with torch.no_grad():
        p = unembedding.logits(first).double().softmax(dim=-1).numpy()[:, None]
        q = unembedding.logits(second.flatten(0, 1)).double().softmax(dim=-1).numpy()
        q = q.reshape(3, 2, -1)
        # In five slices of the vocabulary, and in one.
        several = [distances(model.bridge, first, second, share) for share in (1e-9, 1.0)]
    for kl, apart in [*several, model.vocabulary.distances(first, second)]:
        np.testing.assert_allclose(kl.numpy(), rel_entr(p, q).sum(axis=2), atol=2e-6)
        np.testing.assert_allclose(apart.numpy(), abs(p - q).sum(axis=2) / 2, atol=2e-6)
        assert float(kl[1, 0]) == pytest.approx(0, abs=1e-6)


def test_the_few_shot_prompts_own_stream_is_at_no_distance(tiny: HookedModel) -> None:
    """Written over the last block's output of the zero-shot prompt, it says the same."""
    of = planned()
    encoder = tiny.encoder("{x}->{y}", ["A"])
    few, zero = in_context(encoder, of.test), zero_shot(encoder, of.test)
    own = tiny.final_residuals([[prompt] for prompt in few])[:, 0, -1]
    written = tiny.last_streams(zero, [Edit(-1, own), None])
    kl, apart = tiny.vocabulary.distances(own, written)
    assert float(kl[:, 0].max()) < 1e-6
    assert float(apart[:, 0].max()) < 1e-6
    assert float(kl[:, 1].min()) > 1e-3


def test_last_streams_are_those_that_are_read(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, (9, 5))
    edits = [None, Edit(1, torch.ones(32)), [Edit(0, torch.ones(32)), Edit(2, torch.ones(32))]]
    streams = tiny.last_streams(prompts, edits)
    read = tiny.read(streams.flatten(0, 1), [[3]] * 6).logprob.view(2, 3, 1)
    expected = tiny.evaluate(prompts, edits, [[3], [3]]).logprob
    torch.testing.assert_close(read, expected, atol=1e-5, rtol=0)
    plain = tiny.with_engine("plain").last_streams(prompts, edits)
    torch.testing.assert_close(streams, plain, atol=1e-4, rtol=1e-4)


# --- vectors that are written in several blocks -----------------------------------------------


@pytest.mark.parametrize("site", ["resid_post", "attn_out"])
def test_a_vector_in_several_blocks(tiny: HookedModel, site: Any, tmp_path: Path) -> None:
    """One edit of several blocks, hooks of the bridge, and a file say the same."""
    (prompt,) = random_prompts(tiny, (9,))
    values = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    said = {"weights_sha256": tiny.weight_hash}
    tv = TaskVector(
        "t", values, (0, 1, 2, 3), 2, "add", 0.5, provenance=said, site=site, through=True
    )
    each = [Edit(n, values[n], site, mode="add", scale=0.5) for n in range(3)]
    loaded = TaskVector.load(tv.save(tmp_path / "tv.safetensors"))
    found = tiny.evaluate([prompt], [tv, each, loaded, tv.written(0), each[:1]], [[3]]).logprob
    assert torch.allclose(found[0, 0], found[0, 1], atol=1e-5)
    assert torch.allclose(found[0, 0], found[0, 2], atol=1e-5)
    assert torch.allclose(found[0, 3], found[0, 4], atol=1e-5)
    with torch.no_grad(), tv.apply(tiny):
        logits = tiny.bridge(torch.tensor([prompt.tokens]))[0, -1]
    torch.testing.assert_close(logits.log_softmax(dim=-1)[3], found[0, 0, 0], atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="in several blocks at once, and is no single edit"):
        tv.edit()
    with pytest.raises(InputError, match="layer_scan expected a vector that is written after one"):
        tv.check_one_block("layer_scan")
    with pytest.raises(InputError, match=r"do not belong together.*written alike"):
        _ = tv + replace(tv, through=False)


# --- methods ----------------------------------------------------------------------------------


def test_learnable_head_weights_of_0_and_1_are_a_function_vector(tiny: HookedModel) -> None:
    """At one layer: the sum of those heads' mean outputs, added after that block."""
    of = material(tiny)
    means, _ = tiny.heads.mean_outputs(of.clean)
    weights = torch.zeros(means.shape[:2])
    weights[2, [0, 3]] = 1
    values = weighted_sum(means, weights)
    summed = function_vector(means, [(2, 0), (2, 3)])
    torch.testing.assert_close(values[2], summed)
    ltv = TaskVector("t", values, (0, 1, 2, 3), 3, "add", through=True)
    prompts = zero_shot(of.encoder, of.dev)
    streams = tiny.last_streams(prompts, [ltv, Edit(2, summed, mode="add")])
    torch.testing.assert_close(streams[:, 0], streams[:, 1])


def test_learned_without_a_step_is_theta(answering: HookedModel) -> None:
    of = material(answering)
    s = replace(SETTINGS, n_steps=0, train_layers=(1, 2))
    start = form_vector(answering, "theta_mean", of, s)
    found = form_vector(answering, "learned", of, s)
    assert found.layers == (1, 2)
    torch.testing.assert_close(found.values, start.values[1:3])
    assert found.provenance["cost"]["backward"] == 0


def test_training_lowers_the_loss_on_dev_prompts(answering: HookedModel) -> None:
    """Of every method that trains, from where it starts; and it records what it took."""
    of = material(answering)
    stop = of.encoder.template.stop
    prompts = zero_shot(of.encoder, of.dev)
    ids = [
        of.encoder.answer_tokens(prompt, [e.query.y + stop])
        for prompt, e in zip(prompts, of.dev, strict=True)
    ]

    def loss(vector: TaskVector) -> float:
        return -float(answering.sequence_logprob(prompts, ids, [vector]).mean())

    s = replace(SETTINGS, n_steps=40, train_layers=(1,))
    for name in ("learned", "i2cl"):
        start, found = (
            form_vector(answering, name, of, replace(s, n_steps=n)) for n in (0, s.n_steps)
        )
        assert loss(found) < loss(start) - 0.1
        assert found.provenance["cost"]["backward"] > 0
        assert found.provenance["cost"]["seconds"] > 0


def test_divergence_and_vanishing_gradients_are_said(
    answering: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last good vector is kept: here where training started."""
    of, s = material(answering), replace(SETTINGS, train_layers=(1,), learning_rate=1e30)
    start = form_vector(answering, "theta_mean", of, s)
    # The first step makes the vector so long that nothing changes what the norms make of it.
    with pytest.warns(UserWarning, match="vanishes after block 1 .* at step 2.; kept .* of step 0"):
        wild = form_vector(answering, "learned", of, s)
    torch.testing.assert_close(wild.values[0], start.values[1])
    ready = answering.answer_gradients

    def no_gradient(*given: Any) -> Any:
        found = ready(*given)
        at = found.at
        found.at = lambda values: replace(
            at(values), gradients=tuple(torch.zeros_like(g) for g in at(values).gradients)
        )
        return found

    monkeypatch.setattr(answering, "answer_gradients", no_gradient)
    with pytest.warns(UserWarning, match="the gradient vanishes after block 1"):
        still = form_vector(answering, "learned", of, replace(s, learning_rate=0.1))
    # Nothing is learned: it is where training started, and no NaN.
    torch.testing.assert_close(still.values[0], start.values[1])


def test_a_run_that_diverges_late_returns_its_last_good_vector(
    answering: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the last look at dev prompts, which it names."""
    of = material(answering)
    s = replace(SETTINGS, train_layers=(1,), n_steps=training.LOOK, learning_rate=0.01)
    good = form_vector(answering, "learned", of, s)
    whole, steps = training._gradient, iter(range(training.LOOK + 3))

    def breaks(*given: Any) -> Any:
        if next(steps, None) is None:
            raise NotFiniteError("no number")
        return whole(*given)

    monkeypatch.setattr(training, "_gradient", breaks)
    with pytest.warns(UserWarning, match=f"diverged at step {training.LOOK + 4} .* of step 10"):
        found = form_vector(answering, "learned", of, replace(s, n_steps=40))
    torch.testing.assert_close(found.values, good.values)
    assert torch.isfinite(found.values).all()


def test_a_state_vector_of_one_shot_has_no_momentum(answering: HookedModel) -> None:
    of = replace(material(answering), n_shots=1)
    one, two = (form_vector(answering, f"state_vector{m}", of, SETTINGS) for m in ("", "_momentum"))
    assert torch.equal(one.values, two.values)
    (first, *_) = of.sets
    prompt = of.encoder.encode(first.demonstrations, first.dummies[0].x)
    own = answering.capture([prompt], ["final_arrow"], "attn_out")[0, 0]
    torch.testing.assert_close(one.sets[0], own)  # type: ignore[index]


def test_an_in_context_vector_of_one_direction(answering: HookedModel) -> None:
    """Where all differences are the same, they are the vector."""
    of = material(answering)
    same = replace(of, pairs=of.pairs[:1] * 3)
    found = form_vector(answering, "icv", same, SETTINGS)
    texts = [of.encoder.template.word(word) for word in (of.pairs[0].x, of.pairs[0].y)]
    streams = answering.capture([of.encoder.encode_text(t) for t in texts], [-1])[:, 0]
    torch.testing.assert_close(found.values, streams[1] - streams[0], atol=1e-5, rtol=1e-4)
    assert (found.through, found.layer) == (True, 3)


def test_gradients_of_prompts_whose_tails_are_in_another_order(tiny_llama: HookedModel) -> None:
    """Alone or together: each prompt has its own answer and gradient."""
    prompts = random_prompts(tiny_llama, (9, 5, 7))
    answers, v = [3, 4, 5], torch.ones(32)

    def found(rows: list[int]) -> Any:
        edits = [Edit(1, v, position=4)]  # the longest tail is that of the longest prompt
        at = tiny_llama.answer_gradients(
            [prompts[r] for r in rows], edits, [answers[r] for r in rows]
        )
        return at.at()

    together = found([0, 1, 2])
    for row in range(3):
        alone = found([row])
        torch.testing.assert_close(together.logprob[row], alone.logprob[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            together.gradients[0][row], alone.gradients[0][0], atol=1e-5, rtol=1e-4
        )


# --- what is never scored ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["antonyms", "next_letter", "en_es"])
@pytest.mark.parametrize("seed", [0, 5])
def test_nothing_that_is_trained_on_is_asked(name: str, seed: int, tiny_llama: HookedModel) -> None:
    of = planned(name, CompareSettings(seed=seed))
    asked = {e.query.x for e in (*of.dev, *of.test)}
    trained = {pair.x for pair in of.pairs}
    assert not asked & trained
    shown = {p.x for e in (*of.test, *of.shuffled) for p in e.demonstrations}
    assert not asked & shown
    assert not {e.query.x for e in of.dev} & {e.query.x for e in of.test}
    encoder = tiny_llama.encoder("{x}->{y}", ["a"])
    drawn = Material(of.task, encoder, of.pairs, of.dev, 10, 5, 2, seed)
    for e in (*drawn.sets, *drawn.shuffled().sets):
        used = {p.x for p in (*e.demonstrations, *e.dummies)}
        assert {e.query.x, *used} <= trained
        assert e.query.x not in used
    if name == "antonyms":  # "hot -> cold" is no training pair where "cold" is asked
        answers = {a for e in (*of.dev, *of.test) for a in e.query.answers}
        back = [p for p in of.pairs if p.x in answers and set(p.answers) & asked]
        assert not back


def test_a_vector_is_never_scored_on_what_it_was_shown(
    answering: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    form, asked = running.form_step, planned().test[0].query.x

    def leaky(*given: Any) -> TaskVector:
        found = form(*given)
        return replace(found, provenance={**found.provenance, "shown": [asked]})

    monkeypatch.setattr(running, "form_step", leaky)
    with pytest.raises(InputError, match=f"was formed from '{asked}', which is asked"):
        compare_vectors(answering, "to_upper", 6, 2, methods="theta", progress=False, **SMALL)


# --- the comparison ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(answering: HookedModel) -> VectorComparison:
    tasks = [answering_task(), "to_upper"]
    return compare_vectors(answering, tasks, 6, 2, progress=False, **SMALL)


@pytest.mark.slow
def test_every_method_on_two_tasks(
    compared: VectorComparison, answering: HookedModel, tmp_path: Path
) -> None:
    result = compared
    assert result.methods == list(METHODS)
    assert "instruction" not in result.of_task("q")  # this task has none
    assert any("q: instruction left out" in note for note in result.caveats())
    of = planned("to_upper")
    encoder = answering.encoder("{x}->{y}", [pair.y for pair in of.task.pairs])
    zero, few = zero_shot(encoder, of.test), in_context(encoder, of.test)
    # A method by hand: its vector, its prompts, its distance.
    vector = form_vector(answering, "theta_mean", material(answering), SETTINGS)
    assert result.layer("to_upper", "theta_mean") == vector.layer
    streams = answering.last_streams(zero, [vector, None])
    own = answering.last_streams(few, [None])[:, 0]
    kl, apart = (as_array(d) for d in answering.vocabulary.distances(own, streams))
    here = result.of("to_upper").sel({"method": "theta_mean"})
    np.testing.assert_allclose(here["kl"], kl[:, 0], atol=1e-5)
    np.testing.assert_allclose(here["total_variation"], apart[:, 0], atol=1e-5)
    zero_kl = result.of("to_upper")["reference_kl"].sel(reference="zero_shot")
    np.testing.assert_allclose(zero_kl, kl[:, 1], atol=1e-5)
    curve = result.curve("to_upper", "theta_mean")
    assert curve[vector.layer].value == result.accuracy("to_upper", "theta_mean").value
    assert list(result.curve("to_upper", "ltv")) == [3]
    assert (
        vector.layer in result.works_at("to_upper", "theta_mean") or not curve[vector.layer].value
    )
    cosines = result.cosines("q")
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    loaded = load_result(result.save(tmp_path / "r.nc"))
    assert loaded.full_summary().equals(result.full_summary())


def test_controls_are_formed_once_for_several_comparisons(
    answering: HookedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one comparison formed is a control of the next, which finds the same without it."""
    s = replace(SETTINGS, n_prompts=2, n_sets=2, methods=("theta_mean",))
    plans = [plan_compare(task, s, "antonyms") for task in ("to_upper", "to_lower")]
    alone = [running.measure_compare(answering, plan, False) for plan in plans]
    formed: list[str] = []
    form = running.form_step

    def counted(model: HookedModel, name: str, material: Material, *rest: Any) -> TaskVector:
        formed.append(material.task.name)
        return form(model, name, material, *rest)

    monkeypatch.setattr(running, "form_step", counted)
    kept: dict[Any, Any] = {}
    shared = [running.measure_compare(answering, plan, False, kept=kept) for plan in plans]
    # The control once; each task's own vector, and that of exchanged answers.
    assert [formed.count(name) for name in ("antonyms", "to_upper", "to_lower")] == [1, 2, 2]
    assert {vector.name for vector in kept.values()} == {"antonyms"}
    for one, other in zip(alone, shared, strict=True):
        xr.testing.assert_equal(one.data.drop_vars("seconds"), other.data.drop_vars("seconds"))
    later = plan_compare("to_upper", replace(s, seed=1), "antonyms")
    running.measure_compare(answering, later, False, kept=kept)
    assert formed.count("antonyms") == 2  # other settings, other vectors


def test_differences_are_corrected_for_their_number(answering: HookedModel) -> None:
    methods = ["theta", "layer_mean", "learned"]
    result = compare_vectors(
        answering, ["to_upper", "next_letter"], 6, 2, methods=methods, progress=False, **SMALL
    )
    frame = result.differences()
    n = len(methods)
    assert len(frame) == n * (n - 1) // 2
    assert (frame["p_holm"] >= frame["p"]).all()
    np.testing.assert_allclose(frame["p_holm"], holm(frame["p"].to_numpy()))
    # Thirty queries that only one method answers, and none: told apart after all corrections.
    data = result.data.isel(prompt=np.zeros(30, int)).assign(
        query=(("task", "prompt"), [[f"x{i}" for i in range(30)]] * 2)
    )
    data["first_token"][:] = 0.0
    data["reference_first_token"][:] = 1.0
    data["first_token"].loc[{"method": "learned"}] = 1.0
    clear = VectorComparison(data, result.provenance)
    assert clear.better_than("theta") == ["learned"]
    assert clear.finding() == "θ brings back 0% of few-shot accuracy, learned vector 100%"


# --- bad input --------------------------------------------------------------------------------


def test_what_is_refused(answering: HookedModel) -> None:
    few = Task.from_pairs({x: x.upper() for x in "abcdefgh"}, "few")
    with pytest.raises(InputError, match=r"task 'few' has 8 pairs, too few"):
        compare_vectors(answering, few, 4, 5)
    of = planned("to_upper", CompareSettings(n_prompts=6, n_shots=2))
    with pytest.raises(InputError, match=r"'to_upper' has \d+ pairs that are not asked; expected"):
        training_pairs(of.task, (*of.dev, *of.test), 25)
    one = Task("one", "user", "", tuple(Pair(x, ("yes",)) for x in "abcdefghijklmnop"))
    with pytest.raises(InputError, match="task 'one' has one answer only"):
        compare_vectors(answering, one, 4, 2)
    with pytest.raises(InputError, match="unknown method 'thetas'; did you mean 'theta'"):
        compare_vectors(answering, "to_upper", methods=["thetas"])
    with pytest.raises(InputError, match="method 'instruction': task 'q' has no instruction"):
        compare_vectors(answering, answering_task(), 4, 2, methods=["instruction"])
    with pytest.raises(InputError, match="layer 9 out of range"):
        compare_vectors(
            answering, "to_upper", 4, 2, methods="learned", train_layers=[9], progress=False
        )
    with pytest.raises(InputError, match=r"learning_rate is -1.0; expected a number above 0"):
        compare_vectors(answering, "to_upper", learning_rate=-1.0)
    quantised = HookedModel(answering_bridge(), "quantised")
    quantised.bridge.original_model.is_quantized = True
    with pytest.raises(InputError, match="method 'ltv': .*weights are quantised"):
        compare_vectors(quantised, "to_upper", 4, 2, methods=["theta", "ltv"])
    found = compare_vectors(quantised, "to_upper", 4, 2, n_sets=2, n_dummies=1, progress=False)
    assert not set(found.methods) & {"learned", "ltv", "i2cl"}
    assert sum("weights are quantised" in note for note in found.caveats()) == 3


def test_the_command(small: list[str], tmp_path: Path) -> None:
    sizes = [
        "--n-prompts",
        "4",
        "--n-shots",
        "2",
        "--n-sets",
        "2",
        "--n-dummies",
        "1",
        "--n-steps",
        "2",
        "--batch-size",
        "2",
    ]
    out = tmp_path / "v.html"
    chosen = ["--methods", "theta", "learned"]
    done = run_command("vectors", *small, *chosen, *sizes, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "whole answer" in done.stdout
    assert load_result(out.with_suffix(".nc")).methods == ["theta", "learned"]  # type: ignore[attr-defined]
    refused = run_command("vectors", *small, "--methods", "tehta", "--out", str(out))
    assert_refused(refused, "unknown method 'tehta'; did you mean 'theta'")


@pytest.mark.thorough
def test_the_packaged_model(gemma: HookedModel) -> None:
    """Theta works in the middle; d_NTP is a tenth of the zero-shot prompt's."""
    assert "country_capital" in list_tasks()
    result = compare_vectors(
        gemma, "country_capital", 8, 5, n_sets=4, methods=["theta_mean", "icv"], progress=False
    )
    assert 8 <= result.layer("country_capital", "theta_mean") <= 11
    assert result.accuracy("country_capital", "theta_mean").value >= 0.5
    zero = result.reference_distance("country_capital", "zero_shot").value
    assert result.distance("country_capital", "theta_mean").value < zero / 3
