"""Every question on both engines, and on models that only the plain one runs."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from commands import assert_refused, run_room
from plain import random_prompts
from tiny_models import (
    answering_model,
    answering_task,
    random_model,
    saved,
    tiny_bridge,
)

import icl_mech
from icl_mech.errors import InputError, ModelError
from icl_mech.model import HookedModel, load_model
from icl_mech.results import Result
from icl_mech.tasks import Task

Ask = Callable[[HookedModel], Result]
TOLERANCE = 1e-3
TASK = answering_task()
#: The same with labels that begin otherwise, too: direct logit attribution compares labels.
LETTERS = enumerate("abcdefghijklmnopqrstuvwxyz")
LABELS = Task.from_pairs({x: "QY"[i % 2] + x for i, x in LETTERS}, "labels")
LETTERS = ["letters/next", "letters/upper"]
#: What every question is asked with: few prompts, and no progress bar.
FEW: dict[str, Any] = {"n_prompts": 3, "n_shots": 2, "progress": False}

#: Questions that ask nothing of attention.
QUESTIONS: dict[str, Ask] = {
    "layer_scan": lambda m: icl_mech.layer_scan(m, TASK, **FEW),
    "positions": lambda m: icl_mech.patch_positions(
        m, LETTERS[0], sites=["resid_pre", "resid_post"], **FEW
    ),
    "mean_patching": lambda m: icl_mech.mean_patching(m, LETTERS, n_mean=3, **FEW),
    "logit_lens": lambda m: icl_mech.logit_lens(m, TASK, **FEW),
    "vector_lens": lambda m: icl_mech.vector_lens(m, TASK, **FEW),
    "task_decodability": lambda m: icl_mech.task_decodability(
        m, LETTERS, 6, 2, k=2, progress=False
    ),
    "localize": lambda m: icl_mech.localize(m, LETTERS, 2, 2, n_points=12, k=2, progress=False),
    "conflict": lambda m: icl_mech.conflicting_tasks(m, ["to_upper", "next_letter"], **FEW),
    "variability": lambda m: icl_mech.vector_variability(m, LETTERS, **FEW),
    "failures": lambda m: icl_mech.task_vector_failures(m, "lookup", **FEW),
    "table": lambda m: icl_mech.task_table(m, [TASK], **FEW),
    "answers": lambda m: icl_mech.answer_scores(m, TASK, **FEW),
}
#: Questions about heads, or about what attention writes.
OF_HEADS: dict[str, Ask] = {
    "components": lambda m: icl_mech.patch_positions(
        m, LETTERS[0], sites=["attn_out", "z"], roles="final_arrow", **FEW
    ),
    "head_attribution": lambda m: icl_mech.head_attribution(
        m, LABELS, 3, 4, n_clean=3, progress=False
    ),
    "head_ablation": lambda m: icl_mech.head_ablation(
        m, TASK, counts=[1, 2], n_draws=1, n_dev=3, **FEW
    ),
    "function_vectors": lambda m: icl_mech.function_vectors(
        m, TASK, n_heads=[1, 2], scale=[1.0, 2.0], n_dev=3, **FEW
    ),
    "vector_lens_of_functions": lambda m: icl_mech.vector_lens(
        m, TASK, vector="function", n_heads=2, **FEW
    ),
}
#: The short ones run by default, on llama; all of them with the slow tests.
QUICK = ("layer_scan", "components", "answers", "head_attribution")


def some(questions: dict[str, Ask], quick: tuple[str, ...] = QUICK) -> list:
    """Questions as parameters, all but the quick ones marked slow."""
    return [
        pytest.param(name, marks=[] if name in quick else pytest.mark.slow) for name in questions
    ]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder of a family's model, written once."""

    @cache
    def folder(family: str) -> Path:
        model = answering_model() if family == "llama" else random_model(family)
        return saved(model, tmp_path_factory.mktemp(family) / f"tiny_{family}")

    return folder


@pytest.fixture(scope="module")
def load(folders: Callable[[str], Path]) -> Callable[..., HookedModel]:
    """A family's model on an engine, loaded once."""

    @cache
    def loaded(family: str, engine: str = "auto") -> HookedModel:
        return load_model(folders(family), device="cpu", engine=engine)

    return loaded


# --- both engines ---------------------------------------------------------------------------


@pytest.mark.parametrize("question", some(QUESTIONS | OF_HEADS))
def test_engines_give_the_same_numbers(load: Callable, question: str) -> None:
    ask = (QUESTIONS | OF_HEADS)[question]
    shared, plain = (ask(load("llama", engine)) for engine in ("shared", "plain"))
    assert [r.provenance["engine"] for r in (shared, plain)] == ["shared", "plain"]
    for ours, theirs in (
        (plain.to_frame(), shared.to_frame()),
        (plain.full_summary(), shared.full_summary()),
    ):
        assert len(ours)
        pd.testing.assert_frame_equal(ours, theirs, check_exact=False, rtol=0, atol=TOLERANCE)
    (note,) = set(plain.caveats()) - set(shared.caveats())
    assert note.startswith("engine: a full forward pass for every edit")


# --- models without attention, and with attention in some blocks ----------------------------


@pytest.mark.parametrize("question", some(QUESTIONS, ("layer_scan",)))
@pytest.mark.parametrize("family", ["mamba", "jamba"])
def test_questions_without_heads_run(load: Callable, family: str, question: str) -> None:
    model = load(family)
    found = QUESTIONS[question](model)
    assert found.provenance["engine"] == "plain"
    assert any("engine: a full forward pass" in note for note in found.caveats())
    for frame in (found.to_frame(), found.full_summary()):
        numbers = frame.select_dtypes("number")
        assert len(frame)
        assert not np.isinf(numbers.to_numpy(dtype=float)).any()
    assert found.table() is not None
    assert found.plot().data
    if question == "localize":
        assert found.readouts == ["encoding", "transfer", "lens"]
        assert not found.provenance["heads"]
        assert f"heads were not measured: {model.why_no_site('z')}" in found.caveats()
    if question == "failures":
        assert found.repairs == ["arrows", "labels", "demonstrations"]
        why = model.why_no_site("attn_out")
        assert f"repair 'layers' was left out: {why}" in found.caveats()


@pytest.mark.parametrize("question", OF_HEADS)
@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("mamba", r"tiny_mamba-\w+ has no site '(z|attn_out)' \(its blocks have no attention\)"),
        ("jamba", r"tiny_jamba-\w+ has site '(z|attn_out)' in 2 of 4 blocks only \(1, 3\)"),
    ],
    ids=["mamba", "jamba"],
)
def test_questions_about_heads_are_refused(
    load: Callable, family: str, message: str, question: str
) -> None:
    with pytest.raises(InputError, match=f"{message}. Choose from: resid_pre") as refused:
        OF_HEADS[question](load(family))
    assert "\n" not in str(refused.value)


def test_a_repair_that_is_asked_for_alone_is_refused(load: Callable) -> None:
    with pytest.raises(InputError, match="has no site 'attn_out' .its blocks have no attention"):
        icl_mech.task_vector_failures(load("mamba"), "lookup", repairs=["layers"], **FEW)


def test_a_stream_that_is_no_sum_has_no_direct_effects() -> None:
    model = load_model(tiny_bridge("opt_350m"))
    with pytest.raises(ModelError, match="OPTForCausalLM has no norm after its last block"):
        model.heads.direct_effects(random_prompts(model, (6,)), [1], [[2]])


def test_a_command_about_heads_refuses_a_model_without(folders: Callable) -> None:
    options = ["--model", str(folders("mamba")), "--task", "letters/next", "--n-prompts", "3"]
    assert_refused(run_room("heads", *options), "has no site 'z' (its blocks have no attention)")
