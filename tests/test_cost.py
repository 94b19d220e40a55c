"""The expected cost against what is counted while the question runs."""

from typing import Any

import pytest
from cost_table import PUBLISHED
from counting import counted
from tiny_models import answering_bridge, answering_task, config, random_model, tiny_model

import icl_mech
from icl_mech import expected_cost
from icl_mech.cost import Sizes
from icl_mech.cost.questions import QUESTIONS
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.tasks import Task

#: Of one letter, so that every prompt has the same tokens: x, an arrow, y and a line break.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TASK = Task.from_pairs(dict(zip(LETTERS, LETTERS[1:] + "a", strict=True)), "next")
OTHER = Task.from_pairs({x: x.upper() for x in LETTERS}, "upper")
N_PROMPTS, N_SHOTS = 6, 3


def run(question: str, model: HookedModel) -> None:
    """A question on `TASK`; on two tasks where they are compared."""
    common: dict[str, Any] = {"n_prompts": N_PROMPTS, "n_shots": N_SHOTS, "progress": False}
    if question == "scan":
        icl_mech.layer_scan(model, TASK, other_task=OTHER, **common)
    elif question == "heads":
        icl_mech.head_attribution(
            model, answering_task(), methods="aie", n_clean=N_PROMPTS, **common
        )
    elif question == "decodability":
        tasks = [TASK, OTHER]
        icl_mech.task_decodability(model, tasks, k=1, probe=False, controls=False, **common)
    elif question == "lens":
        icl_mech.logit_lens(model, TASK, other_task=OTHER, **common)
    else:
        icl_mech.patch_positions(model, TASK, **common)


def cases() -> list[Any]:
    """Every question on each engine, and a few families; most of them slow."""
    quick = {
        ("scan", "gemma3", "shared"),
        ("lens", "gpt2", "plain"),
        ("heads", "llama", "shared"),
    }
    every = [
        (question, family, engine)
        for question in QUESTIONS
        for family in (("llama",) if question == "heads" else ("gemma3", "gpt2"))
        for engine in ("shared", "plain")
    ]
    return [pytest.param(*c, marks=[] if c in quick else [pytest.mark.slow]) for c in every]


@pytest.mark.parametrize(("question", "family", "engine"), cases())
def test_work_and_memory_on_tiny_models(question: str, family: str, engine: Any) -> None:
    """Prompts have one length here, so operations are exact but for the targets' own logits."""
    if question == "heads":  # on a model that answers right
        model = HookedModel(answering_bridge(family), "answering").with_engine(engine)
    else:
        model = tiny_model(family).with_engine(engine)
    model.windows(128)
    measured = counted(lambda: run(question, model))
    expected = expected_cost(
        question,
        config(family),
        2 if question == "decodability" else 1,
        N_PROMPTS,
        N_SHOTS,
        per_demonstration=6 if question == "heads" else 5,
        per_query=3,
        engine=engine,
    )
    # Shuffled labels may begin to differ later than at the first demonstration, or sooner.
    near = 0.05 if question == "positions" else 0.002
    assert expected.operations == pytest.approx(measured.work.operations, rel=near)
    assert expected.bytes == pytest.approx(measured.work.bytes, rel=0.1)
    if question != "decodability":  # whose neighbours are sought in memory of their own
        assert 1 / 1.5 < (expected.memory - expected.weights) / measured.peak < 1.5


@pytest.mark.slow
def test_a_scan_of_the_packaged_model(gemma: HookedModel) -> None:
    """Prompts of any lengths, and the number of their tokens as it is by default."""
    gemma.windows(64)
    measured = counted(
        lambda: icl_mech.layer_scan(gemma, "country_capital", n_prompts=4, progress=False)
    )
    expected = expected_cost("scan", "gemma-3-270m", n_prompts=4)
    assert 1 / 1.5 < expected.operations / measured.work.operations < 1.5
    assert 1 / 1.5 < expected.bytes / measured.work.bytes < 1.5
    assert 1 / 1.5 < (expected.memory - expected.weights) / measured.peak < 1.5
    held = sum(p.numel() * p.element_size() for p in gemma.bridge.original_model.parameters())
    assert expected.weights == pytest.approx(held, rel=0.01)


def test_weights_of_published_models() -> None:
    """From the numbers in their `config.json`: 8.03 and 70.6 billion, and 2.61 of Gemma 2 2B."""
    billions = [round(sizes.weights / 1e9, 2) for sizes in PUBLISHED.values()]
    assert billions == [2.61, 8.03, 70.55]


@pytest.mark.parametrize(
    "family", ["llama", "gemma3", "gpt2", "gpt_neox", "gptj", "opt", "falcon", "falcon_new", "phi3"]
)
def test_weights_of_tiny_models(family: str) -> None:
    """Every matrix is counted but tables of positions."""
    model = random_model(family)
    matrices = {
        id(p): p.numel()
        for name, p in model.named_parameters()
        if p.ndim == 2 and "wpe" not in name and "embed_positions" not in name
    }
    assert Sizes.of(config(family)).weights == sum(matrices.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": "scans"}, "unknown question 'scans'; did you mean 'scan'"),
        ({"dtype": "int8"}, "dtype"),
        ({"n_prompts": 0}, "n_prompts is 0; expected at least 1"),
        ({"config": config("qwen3_moe")}, "'num_local_experts'; expected a dense transformer"),
        ({"config": {"hidden_size": 8}}, "does not say n_layers; expected an entry"),
    ],
)
def test_what_cannot_be_counted(changed: dict[str, Any], message: str) -> None:
    asked = {"question": "scan", "config": config("llama")} | changed
    with pytest.raises(InputError, match=message):
        expected_cost(**asked)
