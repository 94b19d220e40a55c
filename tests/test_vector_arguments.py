"""Every function that takes a vector takes a `TaskVector`, and refuses it by one check."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import answering_bridge, answering_task, tiny_model

import icl_mech
from icl_mech import Edit, TaskVector, load_model, load_result
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.prompts.sampling import draw_split
from icl_mech.tasks import Pair, Task

TEXT = "a->Qa\nb->"
TASK = answering_task()


def vector(model: HookedModel, n_layers: int | None = None, **said: object) -> TaskVector:
    """A random vector of a model."""
    n = model.n_layers if n_layers is None else n_layers
    values = torch.randn(n, model.d_model, generator=torch.Generator().manual_seed(0))
    provenance = {"model": model.name, "weights_sha256": model.weight_hash, **said}
    return TaskVector("v", values, tuple(range(n)), 1, provenance=provenance)


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return load_model(answering_bridge())


#: Everything that a vector can be given to.
TAKERS: dict[str, Callable[[HookedModel, TaskVector], object]] = {
    "evaluate": lambda m, v: m.evaluate([m.prompt(TEXT)], [v], [[1]]),
    "evaluate together": lambda m, v: m.evaluate([m.prompt(TEXT)], [[v, v.edit(2)]], [[1]]),
    "evaluate an edit": lambda m, v: m.evaluate([m.prompt(TEXT)], [v.edit(at=-2)], [[1]]),
    "Edit": lambda m, v: m.evaluate([m.prompt(TEXT)], [Edit(1, v, mode=v.mode)], [[1]]),
    "generate": lambda m, v: m.generate(TEXT, vector=v, max_new_tokens=1),
    "logprobs": lambda m, v: m.logprobs(TEXT, ["Q"], vector=v),
    "sequence_logprob": lambda m, v: m.sequence_logprob([m.prompt(TEXT)], [[[1, 2]]], [v]),
    "read": lambda m, v: m.read(v, [[1]] * len(v.layers)),
    "apply": lambda m, v: v.apply(m).__enter__(),
    "top_tokens": lambda m, v: v.top_tokens(m, 3),
    "accuracy": lambda m, v: v.accuracy(m, TASK, 4),
    "prompt_lens": lambda m, v: icl_mech.prompt_lens(m, TEXT, vector=v),
    "compare_prompts": lambda m, v: icl_mech.compare_prompts(m, TEXT, TEXT, vector_b=v),
    "steer": lambda m, v: icl_mech.steer(m, TEXT, v, ["Q"]),
    "vector_lens": lambda m, v: icl_mech.vector_lens(m, v, top_k=5),
    "layer_scan": lambda m, v: icl_mech.layer_scan(
        m, TASK, 2, 2, vector=v, n_dev=1, progress=False
    ),
}


@pytest.mark.parametrize("taker", TAKERS)
def test_one_check_refuses_a_vector_everywhere(taker: str, answering: HookedModel) -> None:
    take, mine = TAKERS[taker], vector(answering)
    other = vector(tiny_model("qwen2"))
    with pytest.raises(InputError, match="'v' was read from tiny-qwen2, and these are the weigh"):
        take(answering, other)
    take(answering, other.written(allow_other_model=True))
    deep = replace(vector(answering, 6), allow_other_model=True)
    with pytest.raises(InputError, match=r"has layers 0 to 5 of width 32; .* has 4 layers of wid"):
        take(answering, deep)
    broken = replace(mine, values=mine.values.clone())
    broken.values[1, 0] = torch.nan  # after it was made
    with pytest.raises(InputError, match="vector 'v' holds NaN or infinity; expected finite"):
        take(answering, broken)
    with pytest.raises(InputError, match="holds NaN or infinity"):
        mine.written(scale=float("inf"))


def test_an_edit_of_a_vector_has_the_numbers_of_its_layer(answering: HookedModel) -> None:
    tv = vector(answering).written(scale=0.5)
    edit = Edit(2, tv, "resid_post", "final_arrow")
    assert torch.equal(edit.value, tv.values[2] * 0.5)
    prompt = answering.prompt(TEXT)
    both = [tv.edit(2, "final_arrow"), edit, Edit(-2, tv)]
    logprob = answering.evaluate([prompt], both, [[5]]).logprob[0, :, 0]
    assert logprob.tolist() == pytest.approx([float(logprob[0])] * 3)
    assert replace(edit, layer=1).vector is tv
    with pytest.raises(InputError, match="written by mode 'replace', and the edit says 'add'"):
        Edit(2, tv, mode="add")
    with pytest.raises(InputError, match="layer 4 out of range"):
        Edit(4, tv)


def test_rows_of_a_vector_are_its_layers(answering: HookedModel) -> None:
    tv = vector(answering)
    answers = [[1, 2]] * 4
    both = [answering.read(rows, answers).logprob for rows in (tv, tv.values)]
    assert torch.equal(*both)


# --- a scan of a vector that is held ---------------------------------------------------------


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_a_scan_writes_the_vector_that_is_held(
    mode: str, answering: HookedModel, tmp_path: Path
) -> None:
    tv = vector(answering, shown=list("abcdefghijklmnopqr")).written(mode=mode, scale=0.5)
    scan = icl_mech.layer_scan(answering, TASK, 4, 2, vector=tv, n_dev=2, progress=False)
    encoder = answering.encoder("{x}->{y}", [pair.y for pair in TASK.pairs])
    queries = scan.data["query"].values[0].tolist()
    prompts = [encoder.encode((), query) for query in queries]
    q = [[answering.prompt("Q").tokens[-1]]] * 4
    edits = [tv.edit(layer, "final_arrow") for layer in range(4)]
    expected = answering.evaluate(prompts, edits, q)
    found = scan.data.sel(vector="theta").isel(task=0)
    assert found["rank"].values == pytest.approx(expected.rank[..., 0].numpy())
    assert found["logprob"].values == pytest.approx(expected.logprob[..., 0].numpy(), abs=1e-3)
    asked = {*queries, *scan.data["dev_query"].values[0].tolist()}
    assert not asked & tv.shown
    loaded = load_result(scan.save(tmp_path / "held.nc"))
    for one in (scan, loaded):
        assert one.provenance["vector"]["scale"] == 0.5
        assert f"'v' that was held ({mode}, scale 0.5), the same" in one.caveats()[0]


def test_a_scan_never_asks_what_the_vector_was_shown(answering: HookedModel) -> None:
    every = vector(answering, shown=[pair.x for pair in TASK.pairs[:-1]])
    with pytest.raises(InputError, match="'q' has 1 inputs that the vector was not shown"):
        icl_mech.layer_scan(answering, TASK, 2, 2, vector=every, progress=False)
    unknown = icl_mech.layer_scan(
        answering, TASK, 2, 2, vector=vector(answering), n_dev=1, progress=False
    )
    assert any("which inputs the vector was shown is not recorded" in n for n in unknown.caveats())
    lacking = TaskVector("v", torch.ones(1, answering.d_model), (2,))
    with pytest.raises(InputError, match="no vector after block 0; it has layer 2"):
        icl_mech.layer_scan(answering, TASK, 2, 2, vector=lacking, progress=False)


def test_known_inputs_are_not_asked_and_all_else_stays() -> None:
    task = Task("t", "user", "", tuple(Pair(x, (x.upper(),)) for x in "abcdefghijklmnopqrst"))
    plain = draw_split(task, 4, 2, 2, 1, 0)
    assert draw_split(task, 4, 2, 2, 1, 0, ["nothing of it"]) == plain
    split = draw_split(task, 4, 2, 2, 1, 0, "abcdefghijklmn")
    asked = {e.query.x for e in split.dev + split.test}
    assert asked <= set("opqrst")
    assert len(asked) == 6
    shown = {pair.x for e in split.dev + split.test for pair in e.demonstrations}
    assert not shown & asked


def test_arithmetic_remembers_all_that_was_shown(answering: HookedModel) -> None:
    both = vector(answering, shown=["a"]) - vector(answering, shown=["b"])
    assert both.shown == {"a", "b"}


# --- the lens of a vector that is held -------------------------------------------------------


def test_what_a_held_vector_says(answering: HookedModel) -> None:
    tv = icl_mech.task_vector(answering, TASK, 3, 2, layer=1, progress=False)
    lens = icl_mech.vector_lens(answering, TASK, vector=tv, layers=[1, -1], top_k=5)
    assert lens.layers == [1, 3]
    for layer in lens.layers:
        expected = tv.top_tokens(answering, 5, layer)
        assert lens.top("q", layer, 5) == [repr(token)[1:-1] for token in expected]
    assert tv.sets is not None
    each = answering.vocabulary.top_tokens(tv.sets[:, 1][:, None], 5).ids
    own = lens.data.sel(task="q", vector="own", layer=1)["prompt_top"].values
    assert own.tolist() == each.tolist()
    assert lens.data.sizes["prompt"] == 3
    q = lens.data.sel(task="q", vector="own", layer=3, kind="answers")["count"]
    assert not np.isnan(q.values).any()
    assert "the vector q" in lens.plot().layout.title.subtitle.text


def test_a_held_vector_of_no_known_task(answering: HookedModel) -> None:
    for lens in (
        icl_mech.vector_lens(answering, vector(answering), top_k=5),
        icl_mech.vector_lens(answering, vector=vector(answering), top_k=5),
    ):
        assert lens.tasks == ["v"]
        assert np.isnan(lens.data["count"].sel(kind=["answers", "inputs", "naming"])).all()
        assert "nan (no interval)" in repr(lens)
    named = icl_mech.vector_lens(answering, vector(answering), top_k=5, naming={"v": ["x"]})
    assert not np.isnan(named.data["count"].sel(kind="naming")).any()
    built_in = vector(answering, task="to_upper")
    assert icl_mech.vector_lens(answering, built_in, top_k=5).tasks == ["to_upper"]
    with pytest.raises(InputError, match="2 tasks for one vector; expected the task"):
        icl_mech.vector_lens(answering, ["to_upper", "antonyms"], vector=built_in)
    with pytest.raises(InputError, match="no task and no vector; expected a task, or"):
        icl_mech.vector_lens(answering)
