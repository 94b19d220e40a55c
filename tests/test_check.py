"""A check of a model passes where all is well, and finds a hook that goes nowhere."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from commands import Done, assert_refused, run_command, run_room
from tiny_models import tiny_bridge

import icl_mech
from icl_mech.check import ModelSupport
from icl_mech.check.acting import ACTS, RESTORES
from icl_mech.errors import ModelError
from icl_mech.model import HookedModel, load_model
from icl_mech.model.plain_engine import PlainEngine

TASK = "next_letter"
SMALL = {"n_prompts": 1, "n_shots": 1, "n_edits": 4, "progress": False}
QUICK = ["--tasks", TASK, "--n-prompts", "1", "--n-shots", "1", "--n-edits", "4"]
SITES = ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z"]


def checked(bridge: Any, **options: Any) -> ModelSupport:
    """The check of a bridge on short prompts."""
    model = load_model(bridge, device="cpu")
    return icl_mech.check_model_support(model, TASK, **SMALL | options)


def deafen(bridge: Any, site: str, blocks: list[int]) -> None:
    """Let hooks see an activation, and drop what they return."""
    for block in blocks:
        point = bridge.hook_dict[f"blocks.{block}.{site}"]

        def seeing(hook: Callable, *args: Any, add: Callable = point.add_hook, **kw: Any) -> Any:
            def see(activation: torch.Tensor, hook_point: Any = None, **named: Any) -> None:
                hook(activation, **named or {"hook": hook_point})

            return add(see, *args, **kw)

        point.add_hook = seeing


def results(found: ModelSupport, check: str) -> dict[str, bool]:
    """Whether each site passed a check."""
    return {row.site: bool(row.passed) for row in found.rows if row.check == check}


# --- models that are as they should be -------------------------------------------------------


@pytest.mark.slow
def test_a_model_on_both_engines() -> None:
    found = checked(tiny_bridge("gemma3"))
    assert found.passed
    assert results(found, "shared engine = plain engine") == dict.fromkeys(["", *SITES], True)
    assert results(found, ACTS) == results(found, RESTORES) == dict.fromkeys(SITES, True)
    speeds = found.to_frame().query("unit == 'a second'")
    assert speeds["check"].str.split().str[0].tolist() == ["shared", "plain"]
    assert (speeds["value"] > 0).all()
    assert speeds["passed"].isna().all()
    assert found.facts.windows == [6, None, 6, None]
    said = str(found)
    assert "blocks 0, 2: the last 6 tokens; blocks 1, 3: all earlier tokens" in said
    assert "Gemma3ForCausalLM" in said
    assert said.endswith("tiny-gemma3 is supported: all 19 checks passed")
    assert len(found.table()) == len(found.rows) == 21
    assert "<td>pass</td>" in found._repr_html_()


@pytest.mark.parametrize("family", ["mamba", "jamba"])
def test_a_model_on_the_plain_engine_only(family: str) -> None:
    found = checked(tiny_bridge(family))
    assert found.passed, found
    assert found.facts.engine == "plain"
    assert found.facts.windows == []
    sites = [site for site, blocks in found.facts.sites.items() if blocks]
    assert list(results(found, "plain engine: in batches = one by one")) == ["", *sites]
    assert list(results(found, ACTS)) == sites
    lines = found.facts.lines()
    if family == "mamba":
        assert lines["context"] == "any number of tokens"
        assert lines["sites"].endswith("in every block; no resid_mid, attn_out, mlp_out, z")
    if family == "jamba":
        assert "attn_out in blocks 1, 3; z in blocks 1, 3" in lines["sites"]


# --- models that are not ---------------------------------------------------------------------


def test_a_site_that_does_nothing() -> None:
    bridge = tiny_bridge("bloom")
    deafen(bridge, "attn.hook_z", [0, 1])
    found = checked(bridge)
    assert not found.passed
    (failure,) = found.failures
    assert (failure.check, failure.site) == (ACTS, "z")
    assert failure.value < 1e-5
    assert failure.note == "does nothing in blocks 0-1"
    assert "FAIL " in str(found)
    assert str(found).splitlines()[-1] == "tiny-bloom FAILED 1 of 19 checks"


@pytest.mark.slow
def test_a_site_that_does_nothing_in_one_block() -> None:
    bridge = tiny_bridge("llama")
    deafen(bridge, "hook_mlp_out", [2])
    (failure,) = checked(bridge).failures
    assert (failure.check, failure.site) == (ACTS, "mlp_out")
    assert failure.value > 0.01
    assert failure.note == "does nothing in block 2"


@pytest.mark.slow
def test_engines_that_disagree(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate = PlainEngine.evaluate

    def shifted(self: PlainEngine, *args: Any, **kw: Any) -> Any:
        found = evaluate(self, *args, **kw)
        found.logprob[:, -1] += 0.1  # the last edit of a batch
        return found

    monkeypatch.setattr(PlainEngine, "evaluate", shifted)
    found = checked(tiny_bridge("llama"))
    assert {row.check for row in found.failures} == {"shared engine = plain engine"}
    assert all(0.09 < row.value < 0.11 for row in found.failures)


@pytest.mark.slow
def test_an_engine_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kw: Any) -> None:
        raise ModelError("numbers that are not finite")

    model = load_model(tiny_bridge("llama"), device="cpu")
    monkeypatch.setattr(PlainEngine, "evaluate", fail)
    found = icl_mech.check_model_support(model, TASK, **SMALL)
    assert {row.check for row in found.failures} == {
        "shared engine = plain engine",
        "plain engine: edits a second",
    }
    assert {row.found for row in found.failures} == {"none"}
    monkeypatch.setattr(HookedModel, "with_engine", fail)
    (row,) = icl_mech.check_model_support(model, TASK, **SMALL).failures
    assert (row.check, row.note) == ("another engine runs the model", "numbers that are not finite")
    monkeypatch.setattr(HookedModel, "read", fail)
    (row,) = icl_mech.check_model_support(model, TASK, **SMALL).rows
    assert (row.check, row.passed) == ("the model runs the prompts", False)


# --- the command -----------------------------------------------------------------------------


def check(*words: str) -> Done:
    return run_command("check", *words, *QUICK)


def test_the_command(small_model: list[str]) -> None:
    done = check(small_model[1])
    assert done.returncode == 0, done.stderr
    assert "is supported: all 19 checks passed" in done.stdout
    same = run_room("model", "--check", small_model[1], *QUICK, "--engine", "plain", "--json")
    assert same.returncode == 0, same.stderr
    printed = json.loads(same.stdout)
    assert printed["passed"] is True
    assert printed["facts"]["engine_reason"] == "asked for"
    assert printed["summary"][0]["check"] == "shared engine = plain engine"
    assert {row["passed"] for row in printed["summary"]} == {True, None}


@pytest.mark.slow
def test_the_command_on_a_broken_model(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = tiny_bridge("llama")
    deafen(bridge, "attn.hook_z", [0, 1, 2, 3])
    broken = load_model(bridge, device="cpu")
    monkeypatch.setattr("commands._loaded", lambda name, options: broken)
    done = check("--model", "tiny", "--json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    printed = json.loads(done.stdout)
    assert [row["note"] for row in printed["summary"] if row["passed"] is False] == [
        "does nothing in blocks 0-3"
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["org/a", "--model", "org/b"], "'org/a' beside --model org/b; expected one"),
        (["./nothere"], "./nothere: no such folder or file; expected a model"),
        (["--n-edits", "0"], "n_edits is 0; expected at least 1"),
        (["--engine", "fast"], "fast"),
        (["--out", "a.html"], "Unrecognized"),
    ],
)
def test_a_mistake(words: list[str], message: str) -> None:
    done = run_command("check", *words)
    assert_refused(done, message)


def test_a_flag_is_needed() -> None:
    assert_refused(run_room("model"), "nothing to do; expected --check (see --help)")


def test_finetuning_makes_no_edits() -> None:
    assert_refused(run_room("finetune", "--engine", "plain"), "--engine plain with finetune")
