"""Rounded matrix products: only where they were asked for, and never unsaid."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from plain import random_prompts
from tiny_models import tiny_bridge

import icl_mech
from icl_mech.errors import InputError
from icl_mech.model import Edit, load_model
from icl_mech.model.network import some_tokens
from icl_mech.model.precision import multiplied

SMALL = {"n_prompts": 2, "n_shots": 2, "progress": False}


@pytest.fixture
def set_by_caller() -> Iterator[None]:
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("engine", ["shared", "plain"])
@pytest.mark.parametrize("of_caller", ["highest", "medium"])
@pytest.mark.usefixtures("set_by_caller")
def test_torch_multiplies_as_was_asked_for_and_then_as_before(engine: str, of_caller: str) -> None:
    torch.set_float32_matmul_precision(of_caller)
    bridge, seen = tiny_bridge("llama"), []
    prompts = random_prompts(load_model(bridge), (8, 6))
    found = {}
    for asked in ("highest", "medium"):
        model = load_model(bridge, engine=engine, matmul_precision=asked)
        seen.clear()
        hooks = [
            (
                f"blocks.1.hook_{site}",
                lambda _, hook: seen.append(torch.get_float32_matmul_precision()),
            )
            for site in ("resid_pre", "resid_post")
        ]
        with bridge.hooks(fwd_hooks=hooks):
            edit = Edit(0, torch.ones(model.d_model))
            found[asked] = model.evaluate(prompts, [edit], [[1]] * 2).logprob
            model.final_residuals([[prompt] for prompt in prompts])
            model.capture(prompts, [-1], "z")
            model.heads.gradients(prompts, [1, 2])
            model.generate(prompts[:1], [edit], max_new_tokens=2)
        assert set(seen) == {asked}
        assert torch.get_float32_matmul_precision() == of_caller
        assert model.with_engine("plain").precision == model.precision
    with multiplied("highest"):
        expected = load_model(bridge, engine=engine).evaluate(prompts, [edit], [[1]] * 2)
    assert torch.equal(found["highest"], expected.logprob)


@pytest.mark.parametrize("name", ["highest", "high", "medium"])
def test_settings_that_have_no_common_name_are_put_back(name: str) -> None:
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:
        pytest.skip("this version of torch has one setting only")
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "bf16"
        with multiplied(name):
            assert matmul.fp32_precision == {"highest": "ieee", "high": "tf32"}.get(name, "bf16")
        assert matmul.fp32_precision == "bf16"
    finally:
        matmul.fp32_precision = before
    assert torch.get_float32_matmul_precision() == "highest"


@pytest.mark.usefixtures("set_by_caller")
def test_the_error_is_that_of_the_models_own_forward(capsys: pytest.CaptureFixture) -> None:
    bridge = tiny_bridge("gemma3")
    with torch.no_grad():  # so that rounding is seen beside the uniform
        bridge.unembed.original_component.weight.mul_(20)
    model = load_model(bridge, matmul_precision="medium")
    tokens = torch.tensor([some_tokens(257, 64)])
    both = []
    for name in ("highest", "medium"):
        torch.set_float32_matmul_precision(name)
        with torch.inference_mode():
            both.append(bridge(tokens)[0].log_softmax(dim=-1))
    full, rounded = both
    best = full.topk(5).indices
    off = (full.gather(1, best) - rounded.gather(1, best)).abs()
    assert model.precision.error == pytest.approx(float(off.max()), rel=0.05, abs=1e-5)
    assert model.precision.mean_error == pytest.approx(float(off.mean()), rel=0.05, abs=1e-5)
    same = (full.argmax(1) == rounded.argmax(1)).float().mean()
    assert model.precision.same_top == pytest.approx(float(same), abs=1 / 64)
    assert model.precision.note in capsys.readouterr().err
    if float(off.max()) > 1e-4:  # where the processor multiplies bfloat16
        assert "products are rounded; log probabilities of the 5 best" in model.precision.note


def test_it_stands_in_results_and_pictures(tmp_path: Path) -> None:
    bridge = tiny_bridge("llama")
    model = load_model(bridge, matmul_precision="medium")
    scan = icl_mech.layer_scan(model, "to_upper", **SMALL)
    assert scan.provenance["matmul_precision"] == "medium"
    scan.save(tmp_path / "scan.nc")
    again = icl_mech.load_result(tmp_path / "scan.nc")
    assert again.caveats()[0] == model.precision.note
    assert again.provenance["matmul_error"]["n_tokens"] == 64
    lens = icl_mech.prompt_lens(model, "a->A\nb->")
    assert lens.caveats() == [model.precision.note]
    full = load_model(bridge)
    assert full.precision.note == ""
    assert full.provenance()["matmul_precision"] == "highest"
    assert icl_mech.prompt_lens(full, "a->A\nb->").caveats() == []


def test_precisions_of_other_numbers() -> None:
    with pytest.raises(InputError, match="beside weights in torch.bfloat16; expected float32"):
        load_model("no-such-model", dtype="bfloat16", matmul_precision="medium")
    with pytest.raises(InputError, match="beside weights in torch.float64"):
        load_model(tiny_bridge("llama", torch.float64), matmul_precision="high")
