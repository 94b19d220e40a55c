"""The vector lens: its top tokens are those of whole rows, and its counts are right by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import assert_refused, run_room
from tiny_models import answering_bridge, answering_task

from icl_mech import load_result
from icl_mech.errors import InputError
from icl_mech.heads import head_attribution
from icl_mech.lens import NAMING, VectorLens, vector_lens
from icl_mech.lens.counting import KINDS, Words, count, kind_of
from icl_mech.lens.naming import naming_words
from icl_mech.model import HookedModel
from icl_mech.prompts import draw_split
from icl_mech.stats import mean
from icl_mech.tasks import Pair, Task, list_tasks, load_task
from icl_mech.vectors import dummy_residuals, function_vector, theta

TASK = "to_upper"


def thetas(model: HookedModel, n: int = 3, n_shots: int = 2) -> torch.Tensor:
    task = load_task(TASK)
    encoder = model.encoder("{x}->{y}", [p.y for p in task.pairs])
    return theta(dummy_residuals(model, encoder, draw_split(task, n, 1, n_shots, 2, 0).test))


def every_logprob(model: HookedModel, vectors: torch.Tensor) -> torch.Tensor:
    """Log probabilities of the whole vocabulary."""
    d_vocab = model.bridge.cfg.d_vocab
    rows = vectors.reshape(-1, model.d_model)
    read = model.read(rows, [list(range(d_vocab))] * len(rows)).logprob
    return read.view(*vectors.shape[:-1], d_vocab)


@pytest.mark.parametrize("average", ["log_probability", "vector"])
def test_top_tokens_are_those_of_whole_rows(tiny: HookedModel, average: str) -> None:
    vectors = thetas(tiny)
    if average == "vector":
        expected = every_logprob(tiny, vectors.mean(0))
    else:
        expected = every_logprob(tiny, vectors).mean(0)
    lens = vector_lens(tiny, TASK, n_prompts=3, n_shots=2, top_k=6, average=average, progress=False)
    best = expected.topk(6).values
    ours = lens.data.isel(task=0)
    np.testing.assert_allclose(ours["top_logprob"], best, rtol=1e-4, atol=1e-4)
    chosen = expected.gather(1, torch.tensor(ours["top"].values))
    torch.testing.assert_close(chosen, best, rtol=1e-4, atol=1e-4)
    own = torch.tensor(ours["prompt_top"].sel(vector="own").values)
    each = every_logprob(tiny, vectors)
    torch.testing.assert_close(each.gather(2, own), each.topk(6).values, rtol=1e-4, atol=1e-4)
    assert lens.provenance["average"] == average
    assert lens.provenance["filters"] == "none: no token is left out of the top tokens"


def test_a_direction_of_the_unembedding_says_its_token(tiny_llama: HookedModel) -> None:
    """A vector that, after the final norm's weights, is one token's column of W_U."""
    bridge = tiny_llama.bridge
    weight = bridge.ln_final.weight.detach()
    for token in (5, 77):
        column = bridge.unembed.W_U[:, token].detach()
        vector = torch.where(weight.abs() > 1e-2, column / weight, 0.0)
        (top,) = tiny_llama.vocabulary.top_tokens(vector[None, None] * 50, 1).ids[0].tolist()
        assert top == token


def test_words_by_hand(tiny_llama: HookedModel) -> None:
    task = Task("t", "user", "", (Pair("b", ("a", "z")), Pair("c", ("q",))))
    encoder = tiny_llama.encoder("{x}->{y}", ["a"], leading_space=False)
    naming = {"t": frozenset("k"), "u": frozenset("kmq"), "v": frozenset("xy")}
    words = Words.of(tiny_llama, task, encoder, naming)
    assert words.answers == {"a", "z", "q"}
    assert words.inputs == {"b", "c"}
    ids = {c: tiny_llama.tokenizer.convert_tokens_to_ids(c) for c in "aAbcKmxzq!"}
    lists = torch.tensor([[ids[c] for c in "azK!mx"], [ids[c] for c in "Abcq!!"]])
    counts = count(tiny_llama, words, lists)
    # 'A' is not 'a', 'K' is 'k'; 'k' names the task itself and 'q' is an answer: they name no
    # other task.
    assert counts[0, 0].tolist() == [1, 2, 0, 1.0]
    assert counts[1, 0].tolist() == [0, 1, 2, 0]
    assert kind_of(tiny_llama, words, lists).tolist() == [
        ["answers", "answers", "naming", "", "", ""],
        ["", "inputs", "inputs", "answers", "", ""],
    ]


def test_counts_among_the_first_ten_and_twenty(tiny_llama: HookedModel) -> None:
    lens = vector_lens(
        tiny_llama, TASK, n_prompts=3, n_shots=2, layers=[1, 3], top_k=20, progress=False
    )
    assert lens.among == [10, 20]
    assert lens.layers == [1, 3]
    letters = {pair.y for pair in load_task(TASK).pairs}
    data = lens.data.isel(task=0).sel(vector="own", layer=3)
    for i in range(3):
        texts = [tiny_llama.to_string(t) for t in data["prompt_top"].values[i].tolist()]
        for n in (10, 20):
            expected = sum(text.strip() in letters for text in texts[:n])
            assert data["count"].sel(among=n, kind="answers").values[i] == expected
    assert lens.count(TASK, 3, "answers", 20).value == pytest.approx(
        float(data["count"].sel(among=20, kind="answers").mean())
    )
    with pytest.raises(InputError, match="among the top 5 was not counted; expected one of 10, 20"):
        lens.count(TASK, 3, among=5)
    with pytest.raises(InputError, match="layer 2 was not read; expected one of 1, 3"):
        lens.top(TASK, 2)
    with pytest.raises(InputError, match="unknown kind 'answer'; did you mean 'answers'"):
        lens.count(TASK, 3, "answer")
    with pytest.raises(InputError, match="unknown control"):
        lens.difference(TASK, 3, "inputs")


def test_the_controls(tiny_llama: HookedModel) -> None:
    """Every token names the task; then the same tokens name another one."""
    every = [chr(i) for i in range(33, 127)]
    settings = {"n_prompts": 3, "n_shots": 2, "layers": [3], "only_words": True, "progress": False}
    lens = vector_lens(tiny_llama, TASK, naming={TASK: every}, **settings)
    ascii_words = lens.count(TASK, 3).value
    assert 0 < ascii_words <= 10
    assert lens.difference(TASK, 3).value == ascii_words  # a word of one's own names no other
    assert lens.count(TASK, 3, vector="random").value > 0
    assert lens.across_tasks(3, "other_naming").value == ascii_words
    # Letters are inputs and answers of that task, so they name no other; of numbers they may.
    same = vector_lens(tiny_llama, TASK, naming={"antonyms": every}, **settings)
    assert same.count(TASK, 3, "other_naming").value == 0
    numbers = Task("numbers", "user", "", tuple(Pair(f"{i}", (f"{i + 1}",)) for i in range(9)))
    naming = {"numbers": ["number"], "antonyms": every}
    other = vector_lens(tiny_llama, numbers, naming=naming, **settings)
    (letters,) = other.data["prompt_top"].sel(vector="own").values.reshape(1, 3, -1)[:, :, :10]
    found = [[tiny_llama.to_string(t).strip() in every for t in row] for row in letters.tolist()]
    expected = np.mean(np.sum(found, axis=1)) / len(NAMING)
    assert expected > 0
    assert other.difference("numbers", 3).value == pytest.approx(-expected)


def test_equal_counts_have_no_interval(tiny_llama: HookedModel) -> None:
    lens = vector_lens(tiny_llama, TASK, n_prompts=6, n_shots=2, layers=[2], progress=False)
    counts = lens.data["count"]
    counts[:] = 1.0
    for found, value in ((lens.count(TASK, 2), 1), (lens.difference(TASK, 2), 0)):
        assert (found.value, found.n) == (value, 6)
        assert np.isnan([found.low, found.high]).all()
    # Not equal: the bootstrap, as ever.
    values = np.array([1.0, 1, 1, 2, 2, 5])
    counts.loc[{"kind": "naming", "vector": "own", "among": 10}] = values[None, :, None]
    assert lens.count(TASK, 2) == mean(values)


def test_one_vector_has_no_interval(tiny_llama: HookedModel) -> None:
    lens = vector_lens(tiny_llama, TASK, n_prompts=1, n_shots=2, layers=[2], progress=False)
    assert np.isnan(lens.count(TASK, 2).low)


def test_filters_are_recorded(tiny_llama: HookedModel) -> None:
    lens = vector_lens(
        tiny_llama, TASK, n_prompts=2, n_shots=2, top_k=10, only_words=True, progress=False
    )
    n = int(tiny_llama.vocabulary.words().sum())
    assert f"among the {n} of 257 that are letters only" in lens.provenance["filters"]
    assert any("filtered: only words" in note for note in lens.caveats())
    shown = lens.data["top_text"].values.ravel().tolist()
    assert all(text.strip().isalpha() for text in shown)
    plain = vector_lens(tiny_llama, TASK, n_prompts=2, n_shots=2, top_k=10, progress=False)
    assert not all(t.strip().isalpha() for t in plain.data["top_text"].values.ravel().tolist())


def test_random_vectors_have_the_norm_and_change_with_the_seed(tiny_llama: HookedModel) -> None:
    def lens(seed: int) -> VectorLens:
        return vector_lens(
            tiny_llama, TASK, n_prompts=2, n_shots=2, seed=seed, layers=[2], progress=False
        )

    first, again, other = lens(0), lens(0), lens(1)
    assert first.data.identical(again.data)
    assert (
        not first.data["prompt_top"]
        .sel(vector="random")
        .equals(other.data["prompt_top"].sel(vector="random"))
    )
    np.testing.assert_allclose(
        first.data["norm"].values[0, :, 0], thetas(tiny_llama, 2)[:, 2].norm(dim=-1), rtol=1e-4
    )


def test_function_vectors_belong_to_no_layer(tiny: HookedModel) -> None:
    heads = [(1, 0), (2, 3)]
    lens = vector_lens(
        tiny, TASK, 3, 2, vector="function", heads=heads, top_k=5, average="vector", progress=False
    )
    assert lens.layers == [-1]
    task = load_task(TASK)
    encoder = tiny.encoder("{x}->{y}", [p.y for p in task.pairs])
    test = draw_split(task, 3, 1, 2, 2, 0).test
    prompts = [encoder.encode(e.demonstrations, e.query.x) for e in test]
    outputs, _ = tiny.heads.mean_outputs(prompts)
    expected = every_logprob(tiny, function_vector(outputs, heads))
    np.testing.assert_allclose(
        lens.data["top_logprob"].values[0, 0], expected.topk(5).values, rtol=1e-3, atol=1e-3
    )
    assert lens.provenance["heads"] == {TASK: [[1, 0], [2, 3]]}
    assert len(lens.plot().data[0].text) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": [4]}, "layer 4 out of range: expected 0 to 3, or -4 to -1"),
        ({"layers": []}, "no layers; expected at least one"),
        ({"layers": [1], "vector": "function"}, "layers of a function vector"),
        ({"heads": [(9, 0)], "vector": "function"}, "the model has no head 9.0"),
        ({"n_heads": 0, "vector": "function"}, "n_heads is 0; expected at least 1"),
        ({"n_heads": 17, "vector": "function"}, "n_heads is 17; expected 1 to 16"),
        ({"n_heads": 3}, "n_heads is for function vectors; expected vector='function'"),
        ({"heads": [(1, 0)]}, "heads are for function vectors; expected vector='function'"),
        ({"top_k": 0}, "top_k is 0; expected at least 1"),
        ({"top_k": 258}, "top_k is 258; expected 1 to 257"),
        ({"tasks": "upper"}, "unknown task 'upper'"),
        ({"n_prompts": 0}, "n_prompts is 0"),
    ],
)
def test_mistakes_are_named(tiny_llama: HookedModel, settings: dict, message: str) -> None:
    asked = {"tasks": TASK, "n_prompts": 2, "n_shots": 2, "progress": False, **settings}
    with pytest.raises(InputError, match=message):
        vector_lens(tiny_llama, **asked)


def test_every_built_in_task_has_words_that_are_not_its_answers() -> None:
    assert set(NAMING) == set(list_tasks())
    for name, words in naming_words().items():
        task = load_task(name)
        shown = {text.casefold() for pair in task.pairs for text in (pair.x, *pair.answers)}
        assert len(words) >= 8
        assert not words & shown, name


def test_a_task_of_ones_own_has_no_name_until_it_is_given(tiny_llama: HookedModel) -> None:
    task = Task("<b>mine", "user", "", load_task(TASK).pairs)
    asked = {"n_prompts": 2, "n_shots": 2, "layers": [0], "progress": False}
    lens = vector_lens(tiny_llama, task, **asked)
    assert np.isnan(lens.count("<b>mine", 0).value)
    assert any("no words that name the task are known" in note for note in lens.caveats())
    assert np.isnan(lens.across_tasks(0).value)
    named = vector_lens(tiny_llama, task, naming={"<b>mine": ["upper"]}, **asked)
    assert not np.isnan(named.count("<b>mine", 0).value)
    shown = named.plot().to_json()
    assert "&lt;b&gt;mine" in shown
    assert "\\u003cb\\u003emine" not in shown
    assert "<b>mine" not in shown
    assert "<b>mine" not in named._repr_html_()


def test_tokens_are_text_and_kinds_are_colours(tiny_llama: HookedModel) -> None:
    lens = vector_lens(tiny_llama, [TASK, "to_lower"], n_prompts=2, n_shots=2, progress=False)
    lens.data["top_text"][:] = "<b>"
    lens.data["top_kind"][:] = ""
    lens.data["top_kind"].loc[{"task": TASK, "layer": 2, "k": 3}] = "naming"
    both = lens.plot(layer=2).data[0]
    assert both.text[0][0] == "'&lt;b&gt;'"
    assert both.z[0][3] == 1
    assert np.array(both.z).sum() == 1
    one = lens.plot(TASK)
    assert np.array(one.data[0].z).shape == (tiny_llama.n_layers, 10)
    assert list(one.layout.yaxis.ticktext) == ["3", "2", "1", "0"]
    assert np.array(one.data[0].z)[1, 3] == 1
    with pytest.raises(InputError, match="unknown task"):
        lens.plot("nothing")


def test_heads_are_ranked_on_prompts_written_as_the_caller_writes_them() -> None:
    model = HookedModel(answering_bridge(), "answers")
    task, writing = answering_task(), {"template": "{x}=>{y}", "leading_space": False}
    lens = vector_lens(
        model, task, 3, 2, 5, vector="function", n_heads=4, progress=False, **writing
    )
    ranked = head_attribution(
        model, task, 3, 2, 5, n_clean=3, methods="aie", progress=False, **writing
    )
    assert lens.provenance["heads"] == {"q": [[x, h] for x, h, _ in ranked.top("q", 4)]}
    assert lens.provenance["output_bias"] == "left out"


def test_saved_and_loaded(gemma: HookedModel, tmp_path: Path) -> None:
    lens = vector_lens(
        gemma, ["country_capital", "antonyms"], n_prompts=3, layers=[5, 11], progress=False
    )
    again = load_result(lens.save(tmp_path / "vectors.nc"))
    assert isinstance(again, VectorLens)
    assert again.data.identical(lens.data)
    assert len(again.to_frame()) == 2 * 3 * 2 * 2 * 2 * len(KINDS)
    summary = again.summary(20)
    assert len(summary) == 4
    assert not (summary["naming_low"] > summary["naming"]).any()
    # What theta says after block 11 are capitals, and hardly any word that names the task.
    assert lens.count("country_capital", 11, "answers").value > 2
    assert lens.count("country_capital", 5, "answers").value < 1
    assert lens.count("country_capital", 11, "naming", 20).value < 2


def test_one_shot_cannot_rank_heads() -> None:
    """Refused before a model is loaded: there is none of this name."""
    options = ["--vectors", "--vector", "function", "--n-shots", "1", "--model", "/nowhere"]
    assert_refused(run_room("lens", *options), "n_shots is 1; expected at least 2")
