"""Function vectors: what they are made of, and what they do beside theta."""

from pathlib import Path

import forked
import numpy as np
import pytest
import torch
import xarray as xr
from plain import plain_logprobs
from tiny_models import answering_bridge, answering_task, tiny_bridge

from icl_mech import Edit, load_result
from icl_mech.errors import InputError, ModelError
from icl_mech.heads import FunctionVectors, function_vectors
from icl_mech.heads.plan import FunctionVectorSettings, plan_heads
from icl_mech.heads.prompts import TaskPrompts, encode
from icl_mech.heads.vectors_result import PROMPTS, VECTORS
from icl_mech.model import HookedModel
from icl_mech.tasks import Task, load_task
from icl_mech.vectors import Choice, function_vector

TASK = "country_capital"
HEADS = [(9, 3), (10, 2)]


@pytest.fixture(scope="module")
def result(gemma: HookedModel) -> FunctionVectors:
    return function_vectors(
        gemma, TASK, 2, 2, heads=HEADS, scale=(2.0, 4.0), n_dev=2, progress=False
    )


def prompts_of(model: HookedModel, task: Task, **counts: int) -> TaskPrompts:
    (encoded,) = encode(model, plan_heads(task, FunctionVectorSettings(**counts)))
    return encoded


def test_the_bias_counts_not_at_all_or_once_per_head() -> None:
    heads = torch.arange(24.0).reshape(2, 3, 4)
    bias = torch.tensor([[100.0] * 4, [1000.0] * 4])
    chosen = [(0, 0), (0, 2), (1, 1)]
    written = heads[0, 0] + heads[0, 2] + heads[1, 1]
    assert torch.equal(function_vector(heads, chosen), written)
    assert torch.equal(function_vector(heads, chosen, bias), written + 1200)


@pytest.mark.parametrize("output_bias", [False, True])
def test_a_vector_holds_what_heads_write(output_bias: bool) -> None:
    """GPT-NeoX, with output biases that are much larger than what heads write."""
    bridge = answering_bridge("gpt_neox")
    with torch.no_grad():
        for block in bridge.blocks:
            block.attn.o.original_component.bias.copy_(torch.linspace(-0.3, 0.3, 32))
    model = HookedModel(bridge, "biased")
    task, chosen = answering_task(), [(1, 0), (1, 3), (2, 2)]
    result = function_vectors(
        model, task, 4, 2, heads=chosen, n_dev=3, scale=2.0, output_bias=output_bias, progress=False
    )
    drawn = prompts_of(model, task, n_prompts=4, n_dev=3, n_shots=2)
    caches = [bridge.run_with_cache(torch.tensor([p.tokens]))[1] for p in drawn.dev.clean]
    vector = torch.zeros(32)
    for layer, head in chosen:
        z = torch.stack([c[f"blocks.{layer}.attn.hook_z"][0, -1, head] for c in caches]).mean(0)
        vector += (z @ bridge.blocks[layer].attn.W_O[head]).detach()
        vector += output_bias * bridge.blocks[layer].attn.b_O.detach()
    for name, scale in (("function", 2.0), ("function_unscaled", 1.0)):
        assert result.scale("q", name) == scale
        edit = Edit(2, vector, "resid_post", "final_arrow", "add", scale)
        expected = plain_logprobs(model, drawn.test.zero_shot[1], edit)[drawn.test.answers[1]]
        ours = result.data["logprob"].sel(task="q", setting="zero_shot", vector=name, layer=2)[1]
        assert float(ours) == pytest.approx(float(expected), abs=1e-4)
    assert result.provenance["output_bias"] == ("once per head" if output_bias else "left out")


def test_the_scale_stands_beside_every_number() -> None:
    model = HookedModel(answering_bridge(), "answers")
    settings = {"n_prompts": 4, "n_shots": 2, "n_dev": 3, "progress": False}
    result = function_vectors(model, answering_task(), heads=[(1, 0)], scale=(2.0, 3.0), **settings)
    scale = float(result.data["scale"][0])
    assert scale in (2.0, 3.0)
    rows = result.summary().reset_index().query("setting == 'zero_shot'")
    assert dict(zip(rows["vector"], rows["scale"], strict=True)) == {
        "function": scale, "function_unscaled": 1.0, "theta": 1.0, "layer_mean": 1.0,
        "random_heads": scale, "random": scale,
    }  # fmt: skip
    row = result.table().loc["q, zero_shot"]
    assert row["function"].endswith(f", x {scale:g}")
    assert row["function_unscaled"].endswith(", x 1")
    assert row["random"].endswith(f", x {scale:g}")
    as_in_the_paper = function_vectors(
        model, answering_task(), heads=[(1, 0)], scale=1.0, **settings
    )
    assert "function_unscaled" not in as_in_the_paper.vectors
    np.testing.assert_allclose(
        as_in_the_paper.data["logprob"].sel(vector="function"),
        result.data["logprob"].sel(vector="function_unscaled"),
        atol=1e-5,
    )


def test_dev_prompts_that_share_a_query_are_one() -> None:
    """Three right answers of eight are above noise, but not where two of them ask the same."""
    right = np.zeros((1, 8, 2, 6, 4), bool)
    right[:, :3, :, :, 2] = True
    over = ("task", "dev_prompt", "setting", "vector", "layer")
    coords = {"task": ["t"], "setting": list(PROMPTS), "vector": list(VECTORS)}

    def chosen(queries: list[str]) -> Choice:
        data = {"dev_right": (over, right), "dev_query": (over[:2], [queries])}
        return FunctionVectors(xr.Dataset(data, coords=coords), {}).choice("t")

    assert chosen(list("abcdefgh")) == Choice(2, True, 3 / 8)
    assert chosen(list("aabbccdd")) == Choice(2, False, 3 / 8)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [([], "no heads"), ([(0, 3)], "no head 0.3"), ([(0, 1), (0, 1)], "0.1 is there twice")],
)
def test_heads_that_cannot_be_summed(chosen: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        function_vector(torch.zeros(2, 3, 4), chosen)


#: Run in a process of its own: here arguments are checked to be of the types asked for.
ROOMS = """
import numpy as np
from tiny_models import tiny_bridge
from icl_mech.errors import InputError
from icl_mech.heads import function_vectors, head_ablation, head_attribution
from icl_mech.lens import logit_lens, vector_lens
from icl_mech.model import HookedModel

model = HookedModel(tiny_bridge("llama"), name="tiny")

def says(room, **given):
    try:
        room(model, "to_upper", **{"n_prompts": 2, "n_shots": 2, "progress": False, **given})
        return "nothing"
    except InputError as error:
        return str(error)

rooms = (head_attribution, head_ablation, function_vectors, logit_lens, vector_lens)
for room in rooms:
    print(says(room, n_prompts=2.5), says(room, n_shots="5"), says(room, seed=None), sep="|")
for room in (head_ablation, function_vectors, vector_lens):
    print(*(says(room, heads=heads) for heads in ([3], 3, [(0, 1, 2)], [(0.5, 1)])), sep="|")
print(says(head_attribution, n_clean="x"), says(head_ablation, counts=[1.5]), sep="|")
print(says(head_ablation, off="zeros"), says(vector_lens, average="sum"), sep="|")
print(says(vector_lens, vector="thetta"), sep="|")
print(says(function_vectors, n_heads=2.5), says(vector_lens, n_heads="2"), sep="|")
print(says(vector_lens, layers=[1.5]), says(function_vectors, scale="big"), sep="|")
numbers = {"n_prompts": np.int64(2), "n_shots": np.uint8(2), "seed": np.int64(3)}
print(says(logit_lens, **numbers), says(vector_lens, layers=np.array([1]), **numbers), sep="|")
"""


def test_every_room_refuses_what_is_no_number() -> None:
    done = forked.run(ROOMS)
    assert done.returncode == 0, done.stderr
    said = [line.split("|") for line in done.stdout.splitlines()]
    number = "expected a whole number"
    assert (
        said[:5]
        == [[f"n_prompts is 2.5; {number}", f"n_shots is '5'; {number}", f"seed is None; {number}"]]
        * 5
    )
    pairs = "expected pairs (layer, head) of whole numbers, as [(9, 3)]"
    given = ("[3]", "3", "[(0, 1, 2)]", "[(0.5, 1)]")
    assert said[5:8] == [[f"heads are {heads}; {pairs}" for heads in given]] * 3
    assert said[8:] == [
        [f"n_clean is 'x'; {number}", f"counts is 1.5; {number}"],
        [
            "unknown way to switch heads off 'zeros'; did you mean 'zero'? Choose from: "
            "other_tasks, shuffled_labels, zero",
            "unknown average 'sum'. Choose from: log_probability, vector",
        ],
        ["unknown vector 'thetta'; did you mean 'theta'? Choose from: theta, function"],
        [f"n_heads is 2.5; {number}", f"n_heads is '2'; {number}"],
        ["layer 1.5; expected a whole number", "scale is 'big'; expected a number"],
        ["nothing", "nothing"],
    ]


def test_equals_one_forward_per_layer(gemma: HookedModel, result: FunctionVectors) -> None:
    drawn = prompts_of(gemma, load_task(TASK), n_prompts=2, n_dev=2, n_shots=2)
    vector = function_vector(gemma.heads.mean_outputs(drawn.dev.clean)[0], HEADS)
    scale = float(result.data["scale"].sel(task=TASK))
    for setting in ("zero_shot", "shuffled"):
        prompts = getattr(drawn.test, setting)
        for i in (0, 1):
            for layer in (3, 17):
                edit = Edit(layer, vector, "resid_post", "final_arrow", "add", scale)
                expected = plain_logprobs(gemma, prompts[i], edit)[drawn.test.answers[i]]
                ours = result.data["logprob"].sel(
                    task=TASK, setting=setting, vector="function", layer=layer
                )[i]
                assert abs(float(ours) - float(expected)) < 2e-3


def test_saved_loaded_and_drawn(result: FunctionVectors, tmp_path: Path) -> None:
    again = load_result(result.save(tmp_path / "vectors.nc"))
    assert isinstance(again, FunctionVectors)
    assert again.data.identical(result.data)
    assert len(again.to_frame()) == 2 * 2 * 6 * 18
    summary = again.summary()
    assert summary.loc[(TASK, "zero_shot", "function"), "heads"] == "9.3 10.2"
    figure = again.plot()
    names = {trace.name for trace in figure.data}
    assert {"function vector, added", "θ, replaces", "random vector, added"} <= names
    assert "heads 9.3 10.2 (given) times" in figure.layout.title.subtitle.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_heads": 0}, "n_heads is 0; expected numbers of at least 1"),
        ({"n_heads": (1, 99)}, "expected 1 to 16"),
        ({"heads": [(7, 0)]}, "the model has no head 7.0"),
        ({"scale": ()}, "no scale"),
        ({"scale": np.nan}, "^scale is nan; expected a finite number$"),
        ({"scale": (1.0, -np.inf)}, "^scale is -inf; expected a finite number$"),
    ],
)
def test_bad_input(tiny_llama: HookedModel, arguments: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        function_vectors(
            tiny_llama, "to_upper", n_prompts=2, n_shots=2, progress=False, **arguments
        )


def test_an_architecture_that_cannot_is_refused_before_heads_are_ranked() -> None:
    model = HookedModel(tiny_bridge("granite"), "tiny-granite")
    with pytest.raises(ModelError, match="heads of block 0 miss its attention output"):
        function_vectors(model, answering_task(), n_prompts=2, n_shots=2, progress=False)
    assert model.provenance()["readouts"]["n"] == 0  # nothing was asked


def test_a_model_that_cannot_do_the_task(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="answers none of 2 few-shot prompts right"):
        function_vectors(tiny_llama, "to_upper", 2, 2, heads=[(0, 0)], progress=False)
