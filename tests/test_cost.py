"""The expected cost against what is counted while the question runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cost_table import PUBLISHED
from counting import counted
from tiny_models import (
    answering_bridge,
    answering_task,
    config,
    random_model,
    saved,
    tiny_model,
)

import icl_mech
from icl_mech import expected_cost
from icl_mech.cli.main import COMMANDS
from icl_mech.cost import Sizes
from icl_mech.cost.questions import NAMES
from icl_mech.errors import InputError
from icl_mech.model import HookedModel
from icl_mech.tasks import Task

#: Of one letter, so that every prompt has the same tokens: x, an arrow, y and a line break.
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TASK = Task.from_pairs(dict(zip(LETTERS, LETTERS[1:] + "a", strict=True)), "next")
OTHER = Task.from_pairs({x: x.upper() for x in LETTERS}, "upper")
#: Of five letters: as long as blank demonstrations, and as words of other tasks, are on average.
WORDS = Task.from_pairs({5 * x: 5 * y for x, y in zip(LETTERS, LETTERS[::-1], strict=True)})
N_PROMPTS, N_SHOTS, N_MEAN = 6, 3, 8
COMMON: dict[str, Any] = {"n_prompts": N_PROMPTS, "n_shots": N_SHOTS, "progress": False}
#: So few updates that training does not stop before its last one, after two layers.
TRAINED: dict[str, Any] = COMMON | {"n_steps": 20, "train_layers": (1, 2)}
STEPS: dict[str, Any] = {"methods._STEPS": 20}
#: The invitations of `patchscope` in bytes: tokens, and those from the marked one on.
INVITED = ((44, 4), (101, 2), (77, 2))
#: The formats of `vector_transfer` in bytes; a task of one's own has no instruction.
FORMATS = ((0, 0, 0), (5, 5, 0), (10, 9, 0), (20, 20, 0))
CLASSES = Task.from_pairs({x: "yn"[i % 2] for i, x in enumerate(LETTERS)}, "classes")


@dataclass(frozen=True)
class Case:
    """A question, and what its cost is expected from.

    Attributes:
        run: asks it.
        n_tasks, per_demonstration, per_query: as `expected_cost` takes them.
        answers: whether it needs a model that answers right.
        exact: whether all that it runs is known beforehand.
        memory: whether its memory is the model's: neighbours are sought in memory of their own.
        n_prompts: that are asked.
        known: of the modules of `icl_mech.cost`, what is otherwise here than by default.
    """

    run: Callable[[HookedModel], object]
    n_tasks: int = 1
    per_demonstration: int = 5
    per_query: int = 3
    answers: bool = False
    exact: bool = False
    memory: bool = True
    n_prompts: int = N_PROMPTS
    known: Mapping[str, Any] = field(default_factory=dict)


CASES = {
    "scan": Case(lambda m: icl_mech.layer_scan(m, TASK, other_task=OTHER, **COMMON), exact=True),
    "positions": Case(lambda m: icl_mech.patch_positions(m, TASK, **COMMON)),
    "components": Case(
        lambda m: icl_mech.patch_positions(
            m, TASK, sites=("attn_out", "mlp_out", "z"), head_roles="final_arrow", **COMMON
        )
    ),
    "mean-patching": Case(
        lambda m: icl_mech.mean_patching(m, [TASK, OTHER], n_mean=N_MEAN, **COMMON), n_tasks=2
    ),
    "heads": Case(
        lambda m: icl_mech.head_attribution(
            m, answering_task(), methods="aie", n_clean=N_PROMPTS, **COMMON
        ),
        per_demonstration=6,
        answers=True,
        exact=True,
    ),
    "ablate": Case(
        lambda m: icl_mech.head_ablation(m, answering_task(), off="zero", **COMMON),
        per_demonstration=6,
        answers=True,
    ),
    "function-vectors": Case(
        lambda m: icl_mech.function_vectors(m, answering_task(), **COMMON),
        per_demonstration=6,
        answers=True,
    ),
    "lens": Case(lambda m: icl_mech.logit_lens(m, TASK, other_task=OTHER, **COMMON), exact=True),
    "vector-lens": Case(lambda m: icl_mech.vector_lens(m, TASK, **COMMON)),
    "patchscope": Case(lambda m: icl_mech.patchscope(m, TASK, **COMMON)),
    "decodability": Case(
        lambda m: icl_mech.task_decodability(m, [TASK, OTHER], k=1, probe=False, **COMMON),
        n_tasks=2,
    ),
    "masking": Case(lambda m: icl_mech.context_masking(m, TASK, **COMMON)),
    "localize": Case(lambda m: icl_mech.localize(m, [TASK, OTHER], **COMMON), n_tasks=2),
    "checkpoints": Case(
        lambda m: icl_mech.localize(m, [TASK, OTHER], heads=False, masking=False, **COMMON),
        n_tasks=2,
    ),
    # Theta helps this model after block 0 alone; a few prompts would not show it.
    "decoder": Case(
        lambda m: icl_mech.find_decoder(m, answering_task(), layer=0, **COMMON | {"n_prompts": 14}),
        per_demonstration=6,
        answers=True,
        n_prompts=14,
        known={"decoder._WRITTEN": 0},
    ),
    "table": Case(
        lambda m: icl_mech.task_table(m, WORDS, **COMMON), per_demonstration=13, per_query=7
    ),
    "answers": Case(lambda m: icl_mech.answer_scores(m, TASK, **COMMON)),
    "conflict": Case(lambda m: icl_mech.conflicting_tasks(m, [(TASK, OTHER)], **COMMON)),
    "variability": Case(lambda m: icl_mech.vector_variability(m, [TASK, OTHER], **COMMON), 2),
    "vectors": Case(lambda m: icl_mech.compare_vectors(m, TASK, other_task=OTHER, **COMMON)),
    "knowledge": Case(lambda m: icl_mech.knowledge_conflict(m, TASK, **TRAINED), known=STEPS),
    "progressive": Case(lambda m: icl_mech.progressive_generation(m, TASK, **TRAINED), known=STEPS),
    "transfer": Case(
        lambda m: icl_mech.vector_transfer(m, [TASK, OTHER], **COMMON),
        n_tasks=2,
        known={"reading.FORMATS": FORMATS, "reading._FROM_QUERY": 3},
    ),
    "classify": Case(
        lambda m: icl_mech.label_scores(m, CLASSES, **TRAINED),
        known=STEPS | {"formed._LABELS": 2},
    ),
    "failures": Case(
        lambda m: icl_mech.task_vector_failures(m, WORDS, **COMMON),
        per_demonstration=13,
        per_query=7,
    ),
}
#: What `make test` asks, on which family and engine.
QUICK = {
    ("scan", "gemma3", "shared"),
    ("lens", "gpt2", "plain"),
    ("heads", "llama", "shared"),
    ("vector-lens", "gemma3", "shared"),
    ("mean-patching", "gpt2", "plain"),
    ("variability", "gpt2", "shared"),
    ("answers", "gemma3", "shared"),
    ("masking", "gemma3", "shared"),
    ("decoder", "llama", "shared"),
}


def cases() -> list[Any]:
    """Every question on each engine, and a few families; most of them thorough."""
    every = [
        (question, family, engine)
        for question, case in CASES.items()
        for family in (("llama",) if case.answers else ("gemma3", "gpt2"))
        for engine in ("shared", "plain")
    ]
    return [pytest.param(*c, marks=[] if c in QUICK else [pytest.mark.thorough]) for c in every]


def within(expected: float, measured: float, factor: float = 1.5) -> bool:
    return 1 / factor < expected / measured < factor


def test_every_command_has_a_cost() -> None:
    """But those that ask several questions, or a model of their own."""
    assert set(COMMANDS) - {"sweep", "train", "check"} == set(NAMES)
    assert set(CASES) == set(NAMES) - {"finetune"}


@pytest.mark.parametrize(("question", "family", "engine"), cases())
def test_work_and_memory_on_tiny_models(
    question: str, family: str, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts have one length here; what texts end with, and where θ works, is not known."""
    monkeypatch.setattr("icl_mech.cost.patching._MEAN", N_MEAN)
    monkeypatch.setattr("icl_mech.cost.heads._ELSEWHERE", 0)
    monkeypatch.setattr("icl_mech.cost.reading.INVITED", INVITED)
    case = CASES[question]
    for name, value in case.known.items():
        monkeypatch.setattr(f"icl_mech.cost.{name}", value)
    if case.answers:
        model = HookedModel(answering_bridge(family), "answering").with_engine(engine)
    else:
        model = tiny_model(family).with_engine(engine)
    model.windows(128)
    measured = counted(lambda: case.run(model))
    expected = expected_cost(
        question,
        config(family),
        case.n_tasks,
        case.n_prompts,
        N_SHOTS,
        per_demonstration=case.per_demonstration,
        per_query=case.per_query,
        engine=engine,
    )
    if case.exact:  # but for the targets' own logits
        assert expected.operations == pytest.approx(measured.work.operations, rel=0.002)
        assert expected.bytes == pytest.approx(measured.work.bytes, rel=0.1)
    assert within(expected.operations, measured.work.operations)
    assert within(expected.bytes, measured.work.bytes)
    if case.memory:
        assert within(expected.memory - expected.weights, measured.peak)


@pytest.mark.thorough
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_finetuning(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and back, with adapters; the weights are read while it is counted."""
    monkeypatch.setattr("icl_mech.cost.training._STEPS", 12)
    monkeypatch.setattr("icl_mech.cost.training._CHECKPOINTS", 3)
    base = saved(random_model(family), tmp_path / "base")
    measured = counted(
        lambda: icl_mech.finetune(
            base,
            [TASK, OTHER],
            n_steps=12,
            n_checkpoints=3,
            device="cpu",
            folder=tmp_path / "run",
            **COMMON,
        )
    )
    expected = expected_cost("finetune", config(family), 2, N_PROMPTS, N_SHOTS, per_query=3)
    assert within(expected.operations, measured.work.operations)
    assert within(expected.bytes, measured.work.bytes)
    assert within(expected.memory, measured.peak)


#: Questions on the packaged model, with so few prompts that they take seconds.
PACKAGED: dict[str, Callable[[HookedModel], object]] = {
    "scan": lambda m: icl_mech.layer_scan(m, "country_capital", n_prompts=4, progress=False),
    "answers": lambda m: icl_mech.answer_scores(m, "country_capital", n_prompts=4, progress=False),
    "vector-lens": lambda m: icl_mech.vector_lens(
        m, "country_capital", n_prompts=4, progress=False
    ),
    "failures": lambda m: icl_mech.task_vector_failures(
        m, "country_capital", n_prompts=4, progress=False
    ),
}


@pytest.mark.thorough
@pytest.mark.parametrize("question", PACKAGED)
def test_questions_on_the_packaged_model(question: str, gemma: HookedModel) -> None:
    """Prompts of any lengths, and the number of their tokens as it is by default."""
    gemma.windows(64)
    measured = counted(lambda: PACKAGED[question](gemma))
    expected = expected_cost(question, "gemma-3-270m", n_prompts=4)
    assert within(expected.operations, measured.work.operations)
    assert within(expected.bytes, measured.work.bytes)
    assert within(expected.memory - expected.weights, measured.peak)
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
