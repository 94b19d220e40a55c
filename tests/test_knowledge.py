"""Knowledge against context: what is shown, identities of the measure, findings, bad input."""

from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from tiny_models import answering_bridge, answering_task

from icl_mech import knowledge_conflict, load_model
from icl_mech.errors import InputError
from icl_mech.knowledge import KnowledgeConflict
from icl_mech.knowledge.plan import CONDITIONS, KnowledgeSettings, plan_knowledge
from icl_mech.knowledge.result import FOLLOWS, INTO, SOURCES
from icl_mech.knowledge.run import _Measurement
from icl_mech.model import HookedModel
from icl_mech.progress import progress_bar
from icl_mech.prompts import zero_shot
from icl_mech.tasks import Pair, Task
from icl_mech.vector_methods import form_vector
from icl_mech.vector_methods.material import Material

SMALL: dict[str, Any] = {"n_dummies": 1, "n_sets": 2, "n_steps": 2, "batch_size": 2}
SETTINGS = KnowledgeSettings(n_prompts=5, n_shots=3, **SMALL)


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return load_model(answering_bridge())


def measurement(model: HookedModel, task: str = "to_upper") -> _Measurement:
    of = plan_knowledge(task, SETTINGS).tasks[0]
    return _Measurement(model, of, SETTINGS, progress_bar(1, "steps", False))


@pytest.fixture(scope="module")
def found(answering: HookedModel) -> KnowledgeConflict:
    return knowledge_conflict(answering, "to_upper", 5, 3, progress=False, **SMALL)


# --- what is shown ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["country_capital", "person_language", "antonyms"])
def test_the_known_answer_is_never_shown(name: str) -> None:
    of = plan_knowledge(name, KnowledgeSettings(n_prompts=20)).tasks[0]
    queries = {asked.right.query.x for asked in of.test} | {e.query.x for e in of.dev}
    assert not queries & {pair.x for pair in of.pairs}
    rng = np.random.default_rng(0)
    for asked in of.test:
        query = asked.right.query
        for episode in (
            asked.right,
            asked.others,
            asked.exchanged(rng),
            asked.lookup(0),
            asked.insisted(1),
        ):
            assert not {pair.y for pair in episode.demonstrations} & set(query.answers)
        assert asked.right.demonstrations != asked.others.demonstrations


def test_the_contradiction_changes_one_input_and_no_answer(answering: HookedModel) -> None:
    run = measurement(answering)
    for right, lookup, exchanged, at in zip(
        run.episodes["right"],
        run.episodes["lookup"],
        run.episodes["exchanged"],
        run.slots,
        strict=True,
    ):
        answers = [[pair.y for pair in e.demonstrations] for e in (right, lookup, exchanged)]
        assert answers[0] == answers[1]
        assert sorted(answers[0]) == sorted(answers[2])
        assert all(a != b for a, b in zip(answers[0], answers[2], strict=True))
        changed = [
            i
            for i, (a, b) in enumerate(
                zip(right.demonstrations, lookup.demonstrations, strict=True)
            )
            if a.x != b.x
        ]
        assert changed == [at]
        assert lookup.demonstrations[at].x == right.query.x


# --- the measure ------------------------------------------------------------------------------


def test_the_measure_is_a_difference_of_the_models_logits(
    found: KnowledgeConflict, answering: HookedModel
) -> None:
    """One full forward pass per prompt; the lens and the state at the last block are the model's
    own; the direct effects are those of its heads."""
    run = measurement(answering)
    here = found.of("to_upper")
    for condition in CONDITIONS:
        of = run.asked[condition]
        for i, prompt in enumerate(of.prompts):
            with torch.no_grad():
                logits = answering.bridge(torch.tensor([prompt.tokens]))[0, -1]
            expected = float(logits[of.shown[i]] - logits[of.known[i][0]])
            row = here.sel(condition=condition).isel(prompt=i)
            assert float(row["difference"]) == pytest.approx(expected, abs=1e-4)
            assert float(row["lens"][-1]) == pytest.approx(expected, abs=1e-4)
            top = int(logits.argmax())
            follows = 1 if top == of.shown[i] else 2 if top in of.known[i] else 0
            assert int(row["follows"]) == follows
    lookup = here["difference"].sel(condition="lookup")
    np.testing.assert_allclose(here["state"].isel(layer=-1), lookup, atol=1e-4)
    of = run.asked["lookup"]
    direct = answering.heads.direct_effects(of.prompts, of.shown, [[k[0]] for k in of.known])
    np.testing.assert_allclose(direct.total, lookup, atol=1e-4)
    effects = here["head_effect"].sel(head_condition="lookup")
    np.testing.assert_allclose(effects, direct.heads, atol=1e-6)


def test_a_vector_is_written_as_its_method_says(
    found: KnowledgeConflict, answering: HookedModel
) -> None:
    run = measurement(answering)
    of = run.of
    material = Material(of.task, run.encoder, of.pairs, of.dev, 2, 3, 1, 0)
    vector = form_vector(answering, "learned", material, SETTINGS)
    prompts = zero_shot(run.encoder, run.episodes["right"])
    read = answering.evaluate(prompts, [vector], run.asked["zero_shot"].answers).logprob[:, 0]
    values = found.of("to_upper")["vector_difference"].sel(
        vector="learned", source="right", into="zero_shot"
    )
    np.testing.assert_allclose(values, read[:, 0] - read[:, 1], atol=1e-4)
    curve = found.of("to_upper")["vector_by_layer"].sel(vector="learned", into="zero_shot")
    np.testing.assert_allclose(curve.sel(layer=vector.layer), values, atol=1e-4)
    assert found._sources("to_upper", "theta") == list(SOURCES)
    assert "lookup" not in found._sources("to_upper", "learned")


def test_few_logits_are_those_of_the_model(tiny: HookedModel) -> None:
    prompts = [tiny.prompt("a->b"), tiny.prompt("abc->")]
    streams = tiny.last_streams(prompts, [None])[:, 0]
    tokens = torch.tensor([[3, 7], [5, 5]])
    found = tiny.vocabulary.logits(streams, tokens)
    with torch.no_grad():
        whole = torch.stack([tiny.bridge(torch.tensor([p.tokens]))[0, -1] for p in prompts])
    torch.testing.assert_close(found, whole.gather(1, tokens), atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="2 rows and 1; expected as many"):
        tiny.vocabulary.logits(streams, tokens[:1])
    with pytest.raises(InputError, match="a token is out of range; expected 0 to"):
        tiny.vocabulary.logits(streams, tokens - 9)


# --- what is made of it -----------------------------------------------------------------------


def made(shown: float, known: float, n: int = 40, n_layers: int = 6) -> KnowledgeConflict:
    """Chances that the top token follows either; the shift comes at block 3, by head 2.1."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, n)
    top = np.array([1] * round(shown * n) + [2] * round(known * n))
    top = np.pad(top, (0, n - len(top)))
    by_condition = {
        "zero_shot": -5.0,
        "right": -4.0,
        "exchanged": -3.0,
        "lookup": 2.0,
        "insisted": 3.0,
    }
    final = np.stack([value + noise for value in by_condition.values()])
    lens = np.repeat(final[:, None], n_layers, axis=1)
    lens[3, :4] = lens[1, :4]
    state = np.where(np.arange(n_layers)[:, None] < 3, final[1], final[3])
    heads = rng.normal(0, 0.1, (2, n, n_layers, 2)).astype(np.float32)
    heads[1, :, 2, 1] += 5
    heads[1, :, 4, 0] -= 3
    vectors = np.full((1, len(SOURCES), len(INTO), n), -1.0)
    task = {
        "difference": (("condition", "prompt"), final),
        "follows": (("condition", "prompt"), np.tile(top, (5, 1))),
        "lens": (("condition", "layer", "prompt"), lens),
        "state": (("layer", "prompt"), state),
        "head_effect": (("head_condition", "prompt", "layer", "head"), heads),
        "head_attention": (("head_condition", "prompt", "layer", "head"), abs(heads) / 9),
        "vector_difference": (("vector", "source", "into", "prompt"), vectors),
        "vector_follows": (("vector", "source", "into", "prompt"), np.full(vectors.shape, 2)),
        "vector_by_layer": (("vector", "into", "layer", "prompt"), np.zeros((1, 2, n_layers, n))),
        "known": ("prompt", np.ones(n)),
        "query": ("prompt", [f"x{i}" for i in range(n)]),
        "n_asked": ((), n),
    }
    coords = {
        "condition": list(CONDITIONS),
        "layer": range(n_layers),
        "head_condition": ["right", "lookup"],
        "head": [0, 1],
        "vector": ["theta"],
        "source": list(SOURCES),
        "into": list(INTO),
    }
    data = xr.Dataset(task, coords).expand_dims(task=["t"])
    about = {"n_left_out": 0, "notes": {}}
    said = {"model": "m", "seed": 0, "n_prompts": n, "n_shots": 5, "tasks": {"t": about}}
    return KnowledgeConflict(data, said)


def test_findings() -> None:
    wins = made(0.8, 0.1)
    assert wins.finding() == (
        "The context's answer wins, 80% to 10% of the queries (shown to known); the contradiction "
        "is at the last token from block 3 on"
    )
    assert made(0.1, 0.8).finding().startswith("The known answer wins, 10% to 80%")
    assert made(0.4, 0.4).finding().startswith("Neither context nor knowledge is shown to win")
    several = xr.concat([wins.data, made(0.4, 0.4).data], dim="task")
    two = KnowledgeConflict(several.assign_coords(task=["t", "u"]), wins.provenance)
    assert two.finding() == "The context's answer wins in 1 of 2 tasks, the known one in 0"


def test_layers_and_heads_that_were_planted_are_named() -> None:
    result = made(0.8, 0.1)
    assert result.lens_from("t") == 4
    state = result.state_from("t")
    assert state is not None
    assert (state.value, state.low, state.high) == (3, 3, 3)
    heads = result.heads("t", 2)
    assert heads.index.tolist() == ["2.1", "4.0"]
    assert heads["carries"].tolist() == ["shown", "known"]
    assert heads.loc["2.1", "change_low"] > 4.5
    # Where the contradiction changes nothing, no layer and no head is named.
    still = result.data.copy(deep=True)
    for name in ("difference", "lens"):
        still[name].loc[{"condition": "lookup"}] = still[name].sel(condition="right")
    same = still["head_effect"].sel(head_condition="right")
    still["head_effect"].loc[{"head_condition": "lookup"}] = same
    flat = KnowledgeConflict(still, result.provenance)
    assert flat.state_from("t") is None
    assert flat.lens_from("t") is None
    assert set(flat.heads("t")["carries"]) == {""}


def test_numbers_are_of_what_the_model_knows() -> None:
    result = made(0.5, 0.5)
    result.data["known"][:] = result.data["follows"].sel(condition="lookup") == 2
    assert result.follows("t", "known").value == 1
    assert result.n_known("t") == 20
    assert "t: numbers are of the 20 of 40 queries that it knows" in result.caveats()
    result.data["known"][:] = 0
    assert result.follows("t", "known").value == 0.5
    assert any("the model answers no query right" in note for note in result.caveats())
    assert FOLLOWS[2] == "known"


# --- bad input --------------------------------------------------------------------------------


def test_what_is_refused(answering: HookedModel) -> None:
    one = Task("one", "user", "", tuple(Pair(x, ("yes",)) for x in "abcdefghijklmnop"))
    with pytest.raises(InputError, match="task 'one' has one answer only"):
        knowledge_conflict(answering, one, 4, 2)
    with pytest.raises(InputError, match="'q': all answers begin with the same token"):
        knowledge_conflict(answering, answering_task(), 4, 2, methods="theta", progress=False)
    two = Task("two", "user", "", tuple(Pair(x, ("no" if x < "o" else "yes",)) for x in ALPHABET))
    with pytest.raises(InputError, match=r"'two' has \d+ pairs to show before '.' whose answer is"):
        knowledge_conflict(answering, two, 8, 8, methods="theta")
    with pytest.raises(InputError, match="n_shots is 1; expected at least 2"):
        knowledge_conflict(answering, "to_upper", 4, 1)
    with pytest.raises(InputError, match="unknown method 'thet'; did you mean 'theta'"):
        knowledge_conflict(answering, "to_upper", methods=["thet"])
    with pytest.raises(InputError, match="unknown condition 'lookups'"):
        made(1, 0).difference("t", "lookups")


ALPHABET = "abcdefghijklmnopqrstuvwxyz"
