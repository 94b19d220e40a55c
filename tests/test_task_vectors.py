"""Task vectors that one can hold, and prompts of any text."""

import json
import math
from pathlib import Path

import gguf
import pytest
import torch
from plain import prompt_of, random_prompts
from tiny_models import answering_bridge, answering_task, tiny_bridge, tiny_model

from icl_mech import TaskVector, load_model, task_vector
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.prompts import Prompt
from icl_mech.prompts.reading import follows, read_spans


def vector(model: HookedModel, seed: int = 0, **changes: object) -> TaskVector:
    """A random vector of a model."""
    values = torch.randn(
        model.n_layers, model.d_model, generator=torch.Generator().manual_seed(seed)
    )
    said = {"model": model.name, "weights_sha256": model.weight_hash}
    made = TaskVector(f"v{seed}", values, tuple(range(model.n_layers)), 2, provenance=said)
    return made.written(**changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def answering() -> HookedModel:
    return load_model(answering_bridge())


# --- writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_apply_equals_the_engines_edit_and_one_hook(tiny: HookedModel, mode: str) -> None:
    (prompt,) = random_prompts(tiny, (9,))
    tv = vector(tiny, mode=mode, scale=0.7)
    tokens = torch.tensor([prompt.tokens])

    def hook(stream: torch.Tensor, hook: object) -> torch.Tensor:
        stream = stream.clone()
        stream[:, -1] = tv.values[2] * 0.7 + (stream[:, -1] if mode == "add" else 0)
        return stream

    with torch.no_grad():
        expected = tiny.bridge.run_with_hooks(
            tokens, fwd_hooks=[("blocks.2.hook_resid_post", hook)]
        )
        with tv.apply(tiny):
            applied = tiny.bridge(tokens)
        assert not torch.equal(tiny.bridge(tokens), applied)  # afterwards nothing is left
    torch.testing.assert_close(applied, expected, atol=1e-6, rtol=0)
    logprob = tiny.evaluate([prompt], [tv, tv.edit()], [[5, 7]]).logprob[0]
    theirs = expected[0, -1].log_softmax(dim=-1)[[5, 7]]
    torch.testing.assert_close(logprob, theirs.expand(2, -1), atol=1e-4, rtol=0)


def test_a_generation_of_transformerlens_inside_apply(answering: HookedModel) -> None:
    """With its cache: the vector stays where it was written, and no later token gets it."""
    tv = vector(answering, scale=3.0)
    prompt = answering.prompt("ab>")
    ours = answering.generate(prompt, vector=tv, max_new_tokens=4, stop="no such text")
    with tv.apply(answering), torch.no_grad():
        theirs = answering.bridge.generate(
            torch.tensor([prompt.tokens]), max_new_tokens=4, do_sample=False, verbose=False
        )
    assert tuple(theirs[0, len(prompt) :].tolist()) == ours.tokens
    plain = answering.generate(prompt, max_new_tokens=4, stop="no such text")
    assert plain.tokens != ours.tokens


def test_a_token_that_the_text_does_not_have(tiny_llama: HookedModel) -> None:
    with vector(tiny_llama).apply(tiny_llama, at=7), pytest.raises(InputError, match="token 7 out"):
        tiny_llama.bridge(torch.tensor([[1, 2, 3]]))


def test_vectors_of_another_model_are_refused(tiny_llama: HookedModel) -> None:
    other = tiny_model("qwen2")
    tv = vector(tiny_llama)
    with (
        pytest.raises(InputError, match="was read from tiny-llama, and these are the weights of"),
        tv.apply(other),
    ):
        pass
    with tv.apply(other, allow_other_model=True):
        pass
    wide = TaskVector("wide", torch.ones(1, 99), (0,), 0)
    with pytest.raises(InputError, match=r"has layer 0 of width 99; tiny-llama has 4 layers of"):
        wide.check_fits(tiny_llama)


# --- holding --------------------------------------------------------------------------------


def test_a_vector_checks_itself() -> None:
    with pytest.raises(InputError, match="holds NaN or infinity"):
        TaskVector("bad", torch.full((1, 4), math.nan), (0,))
    with pytest.raises(InputError, match="for 2 layers; expected a vector for each"):
        TaskVector("bad", torch.ones(1, 4), (0, 1))
    with pytest.raises(InputError, match="no vector after block 3; it has layers 0, 1"):
        TaskVector("bad", torch.ones(2, 4), (0, 1), layer=3)
    unchosen = TaskVector("t", torch.ones(2, 4), (0, 1))
    with pytest.raises(InputError, match="no chosen layer; expected layer=, one of layers 0, 1"):
        unchosen.edit()
    assert unchosen.edit(-1).layer == 1


def test_arithmetic(tiny_llama: HookedModel) -> None:
    a, b = vector(tiny_llama, 1), vector(tiny_llama, 2)
    assert torch.equal((a + b).values, a.values + b.values)
    assert torch.equal((a - 2.0 * b).values, a.values - 2.0 * b.values)
    assert (a - 2.0 * b).name == "v1 - (2 * v2)"
    assert torch.equal(TaskVector.mean([a, b]).values, (a.values + b.values) / 2)
    assert torch.equal((-a).values, -a.values)
    twice = a.written(scale=2.0)
    assert torch.equal((twice + b).values, 2 * a.values + b.values)
    assert (twice + b).scale == 1
    assert a.cosine(a).tolist() == pytest.approx([1.0] * 4)
    with pytest.raises(InputError, match="do not belong together"):
        _ = a + vector(tiny_model("qwen2"))
    with pytest.raises(InputError, match="no vectors"):
        TaskVector.mean([])


def test_hostile_names_are_text_in_a_notebook(tiny_llama: HookedModel) -> None:
    tv = TaskVector("<script>x</script>", torch.ones(1, 4), (0,), 0, provenance={"model": "<b>"})
    assert "<script>" not in tv._repr_html_()
    assert "&lt;script&gt;" in tv._repr_html_()
    assert "<b>" not in tv._repr_html_()
    assert "after block 2" in repr(vector(tiny_llama))


# --- files ----------------------------------------------------------------------------------


def test_saved_loaded_and_applied_bit_for_bit(tiny_llama: HookedModel, tmp_path: Path) -> None:
    tv = vector(tiny_llama, mode="add", scale=0.3)
    loaded = TaskVector.load(tv.save(tmp_path / "deep" / "tv.safetensors"))
    assert repr(loaded) == repr(tv)
    assert loaded.provenance == tv.provenance
    prompts = random_prompts(tiny_llama, (9, 5))
    both = [tiny_llama.evaluate(prompts, [v], [[1], [2]]).logprob for v in (tv, loaded)]
    assert torch.equal(*both)


def test_files_that_hold_no_vector(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(InputError, match=r"none.safetensors: cannot be read"):
        TaskVector.load(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("{}")
    with pytest.raises(InputError, match="text: cannot be read"):
        TaskVector.load(tmp_path / "text")
    save_file({"values": torch.ones(1, 4)}, tmp_path / "other")
    with pytest.raises(InputError, match="other: no task vector; expected a file that"):
        TaskVector.load(tmp_path / "other")
    said = {"format": "icl-mech task vector 1", "name": "x", "layers": json.dumps("all")}
    save_file({"values": torch.ones(1, 4)}, tmp_path / "broken", said)
    with pytest.raises(InputError, match="broken: damaged"):
        TaskVector.load(tmp_path / "broken")


def test_a_control_vector_of_llama_cpp(tiny_llama: HookedModel, tmp_path: Path) -> None:
    tv = vector(tiny_llama, mode="add", scale=0.3)
    reader = gguf.GGUFReader(tv.to_gguf(tmp_path / "tv.gguf"))
    (tensor,) = reader.tensors
    assert tensor.name == "direction.2"
    assert torch.equal(torch.tensor(tensor.data), tv.values[2] * 0.3)
    architecture = reader.get_field("general.architecture")
    assert architecture is not None
    assert architecture.contents() == "controlvector"
    with pytest.raises(InputError, match=r"replaces, and llama.cpp adds; expected .*written"):
        vector(tiny_llama).to_gguf(tmp_path / "no.gguf")
    with pytest.raises(InputError, match="layer 0: llama.cpp adds nothing after its first block"):
        tv.to_gguf(tmp_path / "no.gguf", layer=0)
    assert not (tmp_path / "no.gguf").exists()


# --- taking ---------------------------------------------------------------------------------


def test_theta_of_a_task_and_its_accuracy(answering: HookedModel) -> None:
    task = answering_task()
    tv = task_vector(answering, task, 6, 2, layer=3, progress=False)
    assert tv.sets is not None
    assert tv.sets.shape == (6, answering.n_layers, answering.d_model)
    torch.testing.assert_close(tv.values, tv.sets.mean(dim=0))
    again = task_vector(answering, task, 6, 2, layer=-1, progress=False)
    assert torch.equal(again.values, tv.values)
    assert again.layer == 3
    found = tv.accuracy(answering, task, 10)
    assert found.n == 10
    # After the last block the vector alone decides: all prompts are answered alike.
    assert found.value in (0.0, 1.0)
    shown = tv.provenance["shown"]
    assert tv.accuracy(answering, task, 100).n == len(task) - len(shown)


@pytest.mark.filterwarnings("ignore:the vector of q")  # it may work at no layer
def test_the_layer_is_chosen_on_other_queries(answering: HookedModel) -> None:
    tv = task_vector(answering, answering_task(), 4, 2, n_dev=4, progress=False)
    assert tv.layer in range(answering.n_layers)
    assert tv.provenance["layer_chosen"] == "on dev prompts"


def test_a_vector_of_pairs_and_of_a_text(answering: HookedModel) -> None:
    pairs = {letter: f"Q{letter}" for letter in "abcdefghijkl"}
    tv = task_vector(answering, pairs, 3, 2, layer=1, progress=False)
    assert tv.name == "pairs"
    text = "a->Qa\nb->Qb\nc->"
    one = task_vector(answering, text, layer=1)
    prompt = answering.prompt(text)
    resid = answering.capture([prompt], ["final_arrow"])[0, 0]
    torch.testing.assert_close(one.values, resid)
    assert one.sets is None
    with pytest.raises(InputError, match="layer='best' of a single prompt"):
        task_vector(answering, text)
    with pytest.raises(InputError, match="4 tasks; expected one, whose vector is taken"):
        task_vector(answering, "countries", progress=False)


# --- any prompt -----------------------------------------------------------------------------


def test_roles_of_a_text_that_follows_the_template(answering: HookedModel) -> None:
    prompt = answering.prompt("a->Qa\nb->")
    assert prompt.roles == (
        "sink", "demo_0_x", "demo_0_arrow", "demo_0_arrow", "demo_0_y", "demo_0_y", "demo_0_end",
        "query", "final_arrow", "final_arrow",
    )  # fmt: skip
    assert prompt.text == "a->Qa\nb->"
    free = answering.prompt("Once upon a time")
    assert set(free.roles) == {"sink", ""}
    assert free.position(-1) == len(free) - 1
    with pytest.raises(InputError, match="no role 'query'"):
        free.position("query")


def test_where_a_text_stops_to_follow_a_template() -> None:
    template = "Q: {x}\\nA: {y}".replace("\\n", " ")
    spans = read_spans("Words.\nQ: a A: b\nQ: c A: ", template)
    assert [s.role for s in spans] == [
        "instruction", "demo_0_start", "demo_0_x", "demo_0_arrow", "demo_0_y", "demo_0_end",
        "query_start", "query", "final_arrow",
    ]  # fmt: skip
    assert "".join(s.text for s in spans) == "Words.\nQ: a A: b\nQ: c A: "
    with pytest.raises(InputError, match=r"at character 5 \('b=c.*expected a pair there"):
        read_spans("a->b\nb=c\nd->")
    with pytest.raises(InputError, match=r"character 5 \('c'\); expected a query and '->' there"):
        read_spans("a->b\nc")
    assert follows("c") is None
    with pytest.raises(InputError, match="template"):
        follows("c", "no fields")


def test_texts_that_are_no_prompt(answering: HookedModel) -> None:
    with pytest.raises(InputError, match="an empty text"):
        answering.prompt("")
    with pytest.raises(InputError, match=r"a text of 402 tokens; .* reads at most 256"):
        answering.prompt("a" * 401)
    with pytest.raises(InputError, match="has no chat template; expected a text"):
        answering.prompt([{"role": "user", "content": "hi"}])


def test_a_chat_through_the_tokenizers_template() -> None:
    bridge = tiny_bridge("llama")
    bridge.tokenizer.chat_template = (
        "{{ eos_token }}{% if not messages %}{{ raise_exception('nobody speaks') }}{% endif %}"
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    model = load_model(bridge)
    prompt = model.prompt([{"role": "user", "content": "hi"}])
    assert prompt.text == "[user] hi\n[assistant] "
    assert prompt.tokens.count(model.sink.token) == 1
    with pytest.raises(InputError, match="the chat template cannot write these messages"):
        model.prompt([])


def test_probabilities_of_whole_answers(answering: HookedModel) -> None:
    found = answering.logprobs("a->", ["Qa", "b"])
    prompt = answering.prompt("a->")
    tokens = answering.encoder("{x}->{y}", ["a"], leading_space=False).answer_tokens(
        prompt, ["Qa", "b"]
    )
    expected = answering.sequence_logprob([prompt], [tokens])[0, 0]
    assert list(found.values()) == pytest.approx(expected.tolist())
    tv = vector(answering, scale=3.0)
    assert answering.logprobs("a->", ["Qa"], vector=tv)["Qa"] != pytest.approx(found["Qa"])
    with pytest.raises(InputError, match="answers is the text 'Qa'; expected a list"):
        answering.logprobs("a->", "Qa")


def test_generations_of_a_text(answering: HookedModel) -> None:
    one = answering.generate("a->", max_new_tokens=2, stop="no such text")
    many = answering.generate([answering.prompt("a->")], max_new_tokens=2, stop="no such text")
    assert one == many[0][0]
    with pytest.raises(InputError, match="2 edits of a single prompt"):
        answering.generate("a->", [None, None])
    assert isinstance(answering.prompt("a->"), Prompt)
    assert prompt_of([1, 2]).position(-1) == 1


def test_what_a_cell_shows(answering: HookedModel) -> None:
    """Short descriptions in place of tensors and addresses."""
    tv = vector(answering, scale=2.0)
    said = repr(tv.edit(at="final_arrow"))
    expected = "Edit(resid_post, block 2, token 'final_arrow', replace, one vector of width 32"
    assert said == f"{expected}, scale 2)"
    readout = answering.evaluate([answering.prompt("a->")] * 2, [None, tv], [[1, 2], [3]])
    assert repr(readout) == "Readout(2 x 2 cells, 2 targets each)"
    frame = readout.to_frame(answering.tokenizer)
    assert len(frame) == 8
    cell = frame.query("cell_0 == 1 and cell_1 == 0 and target == 0").iloc[0]
    assert cell["logprob"] == pytest.approx(float(readout.logprob[1, 0, 0]))
    assert cell["top_text"] == answering.to_string(int(readout.top[1, 0]))
    assert frame.query("cell_0 == 1 and target == 1")["rank"].eq(-1).all()
    assert repr(answering.heads).startswith("HeadReader(4 layers of 4 heads: attention")
    assert (
        repr(answering.vocabulary) == "Vocabulary(257 tokens: top_tokens, distances, logits, words)"
    )
