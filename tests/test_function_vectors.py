"""Function vectors: what they are made of, and what they do beside theta."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pages import ROOT
from plain import plain_logprobs

from icl_mech import Edit, load_result
from icl_mech.errors import InputError
from icl_mech.heads import FunctionVectors, function_vectors
from icl_mech.heads.drawing import draw
from icl_mech.model import HookedModel
from icl_mech.tasks import load_task
from icl_mech.vectors import function_vector

TASK = "country_capital"
HEADS = [(9, 3), (10, 2)]


@pytest.fixture(scope="module")
def result(gemma: HookedModel) -> FunctionVectors:
    return function_vectors(gemma, TASK, HEADS, 10, 10, scale=(2.0, 4.0), n_dev=6, progress=False)


def test_the_bias_of_a_block_counts_once() -> None:
    heads = torch.arange(24.0).reshape(2, 3, 4)
    bias = torch.tensor([[100.0] * 4, [1000.0] * 4])
    vector = function_vector(heads, bias, [(0, 0), (0, 2), (1, 1)])
    expected = heads[0, 0] + heads[0, 2] + heads[1, 1] + 1100
    assert torch.equal(vector, expected)
    assert torch.equal(function_vector(heads, bias, [(1, 2)]), heads[1, 2] + 1000)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [([], "no heads"), ([(0, 3)], "no head 0.3"), ([(0, 1), (0, 1)], "0.1 is there twice")],
)
def test_heads_that_cannot_be_summed(chosen: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        function_vector(torch.zeros(2, 3, 4), torch.zeros(2, 4), chosen)


#: Run in a process of its own: here arguments are checked to be of the types asked for.
ROOMS = """
import sys; sys.path.insert(0, "tests")
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
print(says(function_vectors, n_heads=2.5), says(vector_lens, n_heads="2"), sep="|")
print(says(vector_lens, layers=[1.5]), says(function_vectors, scale="big"), sep="|")
numbers = {"n_prompts": np.int64(2), "n_shots": np.uint8(2), "seed": np.int64(3)}
print(says(logit_lens, **numbers), says(vector_lens, layers=np.array([1]), **numbers), sep="|")
"""


def test_every_room_refuses_what_is_no_number() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ROOMS], cwd=ROOT, capture_output=True, text=True, check=False
    )
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
        [f"n_heads is 2.5; {number}", f"n_heads is '2'; {number}"],
        [f"layers is 1.5; {number}", "scale is 'big'; expected a number"],
        ["nothing", "nothing"],
    ]


def test_equals_one_forward_per_layer(gemma: HookedModel, result: FunctionVectors) -> None:
    drawn = draw(gemma, load_task(TASK), 10, 6, 10, 0, "{x}->{y}", None, 2)
    vector = function_vector(*gemma.heads.mean_outputs(drawn.dev.clean), HEADS)
    scale = float(result.data["scale"].sel(task=TASK))
    for setting in ("zero_shot", "shuffled"):
        prompts = getattr(drawn.test, setting)
        for i in (0, 7):
            for layer in (3, 9, 17):
                edit = Edit(layer, vector, "resid_post", "final_arrow", "add", scale)
                expected = plain_logprobs(gemma, prompts[i], edit)[drawn.test.answers[i]]
                ours = result.data["logprob"].sel(
                    task=TASK, setting=setting, vector="function", layer=layer
                )[i]
                assert abs(float(ours) - float(expected)) < 2e-3


def test_few_heads_carry_the_task_into_prompts_without_it(result: FunctionVectors) -> None:
    function = result.accuracy(TASK, "function")
    assert function.value > 0.3
    assert result.plain(TASK).value < 0.2
    assert result.difference(TASK, "function", "random").low > 0
    best = result.best_layer(TASK, "function")
    assert 5 <= best <= 11


def test_saved_loaded_and_drawn(result: FunctionVectors, tmp_path: Path) -> None:
    again = load_result(result.save(tmp_path / "vectors.nc"))
    assert isinstance(again, FunctionVectors)
    assert again.data.identical(result.data)
    assert len(again.to_frame()) == 10 * 2 * 5 * 18
    summary = again.summary()
    assert summary.loc[(TASK, "zero_shot", "function"), "heads"] == "9.3 10.2"
    figure = again.plot()
    names = {trace.name for trace in figure.data}
    assert {"function vector, added", "θ, replaces", "random vector, added"} <= names
    assert "heads 9.3 10.2 (given) times" in figure.layout.title.subtitle.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_heads": 0}, "n_heads is 0; expected 1 to 16"),
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


def test_a_model_that_cannot_do_the_task(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="answers none of 2 few-shot prompts right"):
        function_vectors(tiny_llama, "to_upper", [(0, 0)], 2, 2, progress=False)
