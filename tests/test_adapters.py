"""Adapters in peft's format: merged as a model is loaded, refused where they do not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import assert_refused, run_room
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import random_model, saved, tiny_bridge
from transformers import AutoModelForCausalLM

from icl_mech.cli.options import ModelOptions
from icl_mech.errors import InputError, ModelError
from icl_mech.model import load_model, load_tuned, outline, read_adapter
from icl_mech.model.adapters import RECORD, base_hash, refuse_unmergeable
from icl_mech.run_names import run_name

FAMILIES = ("llama", "gpt2", "gpt_neox", "gemma2", "gemma3", "qwen2")
TOKENS = torch.tensor([[256, 70, 71, 72, 73, 10, 40, 41]])
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models in folders."""
    home = tmp_path_factory.mktemp("bases")
    return {name: saved(random_model(name), home / f"tiny-{name}") for name in FAMILIES}


def write_adapter(base: Path, folder: Path) -> Path:
    """An adapter with drawn weights on two blocks, as a finetuning writes it."""
    found = outline(base)
    tuned = load_tuned(found, [1, 2], found.choose(["attention", "mlp"]), rank=3)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(0)
        for weight in tuned.weights.values():
            weight.normal_(std=0.1)
    tuned.save(folder)
    return folder


@pytest.fixture
def adapter(bases: dict[str, Path], tmp_path: Path) -> Path:
    return write_adapter(bases["llama"], tmp_path / "mine")


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(TOKENS, use_cache=False).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_merged_is_unmerged(bases: dict[str, Path], family: str, tmp_path: Path) -> None:
    """And peft itself reads what is written here."""
    folder = write_adapter(bases[family], tmp_path / "mine")
    plain = AutoModelForCausalLM.from_pretrained(bases[family], attn_implementation="eager").eval()
    before = logits(plain)
    unmerged = PeftModel.from_pretrained(plain, folder).eval()
    expected = logits(unmerged)
    merged = load_model(bases[family], adapter=folder, device="cpu")
    with torch.no_grad():
        found = merged.bridge(TOKENS)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert (expected - before).abs().max() > 0.01


def test_names_and_provenance(bases: dict[str, Path], adapter: Path) -> None:
    plain = load_model(bases["llama"], device="cpu")
    model = load_model(bases["llama"], adapter=adapter, device="cpu")
    assert model.name.startswith(f"{plain.name}+mine-")
    assert len(model.name.rpartition("-")[2]) == 8
    found = model.provenance()
    assert found["weights_sha256"] != plain.provenance()["weights_sha256"]
    assert "adapter" not in plain.provenance()
    assert found["adapter"] == {
        "name": model.name.rpartition("+")[2],
        "rank": 3,
        "alpha": 16,
        "targets": ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"],
        "layers": [1, 2],
        "base": plain.name,
        "base_as_recorded": plain.name,
        "base_weights_compared": True,
    }
    assert all(p.requires_grad for p in model.bridge.original_model.parameters())
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == plain.name  # never a path
    assert sorted(p.name for p in adapter.iterdir()) == [
        "adapter_config.json", WEIGHTS, "icl_mech.json",
    ]  # fmt: skip


def test_an_adapter_elsewhere_has_the_same_name(adapter: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(adapter, tmp_path / "elsewhere" / "mine")
    assert read_adapter(copy).name == read_adapter(adapter).name


def test_in_bfloat16(bases: dict[str, Path], adapter: Path) -> None:
    """Merged in the format that is asked for; the base is still recognised."""
    model = load_model(bases["llama"], adapter=adapter, dtype="bfloat16", device="cpu")
    assert model.dtype == torch.bfloat16
    assert {p.dtype for p in model.bridge.original_model.parameters()} == {torch.bfloat16}
    assert model.provenance()["adapter"]["base_weights_compared"]


def test_the_hash_of_a_base_does_not_hang_on_the_format() -> None:
    model = random_model("gpt2")
    assert base_hash(model) == base_hash(random_model("gpt2", torch.bfloat16))
    with torch.no_grad():
        model.transformer.h[1].mlp.c_fc.weight[0, 0] += 1
    assert base_hash(model) != base_hash(random_model("gpt2"))


def test_an_adapter_that_peft_wrote(bases: dict[str, Path], tmp_path: Path) -> None:
    """Without our record: it fits by names and shapes; another name of its base is said."""
    plain = AutoModelForCausalLM.from_pretrained(bases["llama"])
    made = get_peft_model(
        plain, LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False)
    )
    made.save_pretrained(str(tmp_path / "theirs"), save_embedding_layers=False)
    with pytest.warns(UserWarning, match="says that it was trained on 'tiny-llama'.*cannot be"):
        model = load_model(bases["llama"], adapter=tmp_path / "theirs", device="cpu")
    assert model.adapter is not None
    assert model.adapter["base_weights_compared"] is False
    assert model.adapter["base_as_recorded"] == "tiny-llama"
    assert model.adapter["layers"] == [0, 1, 2, 3]


# --- what is refused ------------------------------------------------------------------------


def test_another_base_by_its_names(bases: dict[str, Path], adapter: Path) -> None:
    with pytest.raises(ModelError, match="does not fit tiny-gpt2-.*is not in the model.*expected"):
        load_model(bases["gpt2"], adapter=adapter)


def test_another_base_by_its_shapes(bases: dict[str, Path], adapter: Path) -> None:
    with pytest.raises(
        ModelError, match="does not fit tiny-gemma3-.*k_proj writes 16|o_proj reads"
    ):
        load_model(bases["gemma3"], adapter=adapter)


def test_another_base_by_its_weights(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    other = random_model("llama")
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.mul_(1.1)
    with pytest.raises(ModelError, match="was trained on other weights than those of other-"):
        load_model(saved(other, tmp_path / "other"), adapter=adapter)
    (adapter / RECORD).unlink()
    with pytest.warns(UserWarning, match="cannot be compared"):
        load_model(tmp_path / "other", adapter=adapter)


def config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        change(held)
        save_file(held, folder / WEIGHTS)

    return edit


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "adapter_model.bin")
    (folder / WEIGHTS).unlink()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda f: (f / "adapter_config.json").unlink(), InputError, "holds no adapter_config"),
        (lambda f: (f / WEIGHTS).unlink(), ModelError, "holds no adapter_model.safetensors"),
        (pickled, ModelError, "its weights are pickled .*may run code"),
        (lambda f: (f / WEIGHTS).write_bytes(b"12345678"), ModelError, "damaged .*safetensors"),
        (lambda f: (f / "adapter_config.json").write_text("["), ModelError, "expected JSON"),
        (config(peft_type="LOHA"), ModelError, "of kind 'LOHA'; expected 'LORA'"),
        (config(r="x"), ModelError, "has r = 'x'"),
        (weights(lambda w: w.clear()), ModelError, "holds no LoRA weights"),
        (weights(lambda w: w.popitem()), ModelError, "cannot be merged .*missing adapter keys"),
        (
            weights(lambda w: next(iter(w.values())).fill_(torch.nan)),
            ModelError,
            "cannot be merged .*expected one that was trained on it, with finite weights",
        ),
    ],
)
def test_damaged_adapters(
    bases: dict[str, Path],
    adapter: Path,
    change: Callable[[Path], None],
    error: type[Exception],
    message: str,
) -> None:
    change(adapter)
    with pytest.raises(error, match=message):
        load_model(bases["llama"], adapter=adapter)


def test_the_folder_of_a_run_names_its_last_adapter(
    bases: dict[str, Path], adapter: Path, tmp_path: Path
) -> None:
    shutil.move(adapter, tmp_path / "run" / "step_0000005")
    with pytest.raises(InputError, match="did you mean '.*run/step_0000005'"):
        load_model(bases["llama"], adapter=tmp_path / "run")


def test_an_adapter_beside_a_bridge(adapter: Path) -> None:
    with pytest.raises(InputError, match="adapter= beside a TransformerBridge; expected the name"):
        load_model(tiny_bridge("llama"), adapter=adapter)


def test_quantised_and_scattered_bases() -> None:
    model = random_model("llama")
    model.config.quantization_config = {"quant_method": "gptq"}
    with pytest.raises(InputError, match="tiny is quantised; expected full-precision"):
        refuse_unmergeable(model, "tiny")
    other = random_model("llama")
    other.hf_device_map = {"model.layers.0": 0, "model.layers.1": "disk"}
    with pytest.raises(InputError, match="lies on several devices .0, disk.; expected one"):
        refuse_unmergeable(other, "tiny")


# --- commands -------------------------------------------------------------------------------


def test_a_command_on_an_adapter(bases: dict[str, Path], adapter: Path, tmp_path: Path) -> None:
    base = ["--model", str(bases["llama"]), "--adapter", str(adapter), "--device", "cpu"]
    small = ["--tasks", "to_upper", "--n-prompts", "2", "--n-shots", "2"]
    done = run_room("lens", *base, *small, "--out", str(tmp_path / "a.html"))
    assert done.returncode == 0, done.stderr
    assert "+mine-" in done.stdout
    missing = [*base[:3], str(tmp_path / "none"), *small]
    assert_refused(run_room("lens", *missing), "no such folder; expected one with adapter_config")
    both = [*base, "--also", "gpt2", "--tasks", "to_upper", "next_letter"]
    assert_refused(run_room("variability", *both), "--adapter beside several models")


def test_files_of_results_are_named_after_the_adapter(adapter: Path) -> None:
    from icl_mech.cli.lens import LensCommand

    plain, adapted = (LensCommand(models=ModelOptions(adapter=a)) for a in (None, adapter))
    assert run_name(plain, "lens") == "lens-country_capital-gemma-3-270m"
    assert run_name(adapted, "lens").startswith("lens-country_capital-gemma-3-270m-mine-")
