"""Models spread over devices and disk, number formats, and shards."""

import gc
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from plain import random_prompts
from tiny_models import random_model, saved
from torch import Tensor

from icl_mech.errors import InputError, ModelError
from icl_mech.model import Edit, HookedModel, load_model
from icl_mech.model.readout import Readout

LENGTHS = (9, 12, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(random_model("gemma3"), tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def whole(folder: Path) -> HookedModel:
    return load_model(folder, device="cpu")


def spread(folder: Path, engine: str = "auto") -> HookedModel:
    """The same model with most of its blocks on disk."""
    return load_model(folder, device="auto", max_memory={"cpu": 90_000}, engine=engine)


def some_edits(model: HookedModel) -> list[Edit | None]:
    one, head = torch.ones(model.d_model), torch.ones(model.d_head)
    return [
        None,
        Edit(1, one),
        Edit(2, head, "z", -3, head=1),
        Edit(0, one, "resid_mid", -2, "add"),
        Edit(3, one, "attn_out", -1, "add"),
    ]


@pytest.mark.parametrize("engine", ["shared", "plain"])
def test_weights_on_disk_give_the_same_numbers(
    folder: Path, whole: HookedModel, engine: str
) -> None:
    model = spread(folder, engine)
    assert model.provenance()["device"] == "cpu+disk"
    assert model.weight_hash == whole.weight_hash
    assert any(p.device.type == "meta" for p in model.bridge.original_model.parameters())
    prompts = random_prompts(whole, LENGTHS)
    edits, answers = some_edits(whole), [[1, 2]] * len(prompts)
    everything = [
        lambda m: m.evaluate(prompts, edits, answers),
        lambda m: m.capture(prompts, [-1, 0], "z"),
        lambda m: m.final_residuals([[p] for p in prompts]),
        lambda m: m.sequence_logprob(prompts, [[[1, 2, 3]]] * len(prompts), edits),
        lambda m: m.heads.gradients(prompts, [1, 2, 3])[1],
        lambda m: m.heads.mean_outputs(prompts, -1)[0],
        lambda m: m.heads.direct_effects(prompts, [1, 2, 3], [[4]] * 3).heads,
        lambda m: m.vocabulary.top_tokens(torch.ones(1, 1, m.d_model), 3).logprob,
    ]
    for ask in everything:
        ours, theirs = (_values(ask(m)) for m in (model, whole))
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert model.generate(prompts, edits, 3, "no such text") == whole.generate(
        prompts, edits, 3, "no such text"
    )


def _values(found: Tensor | Readout) -> Tensor:
    return found.logprob if isinstance(found, Readout) else found


def test_the_folder_of_a_spread_model_goes_with_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = spread(folder)
    assert [p.name.startswith("icl-mech-offload-") for p in tmp_path.iterdir()] == [True]
    del model
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_spread(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="max_memory= with device='cpu'; expected it with device="):
        load_model(folder, device="cpu", max_memory={"cpu": "1GB"})
    with pytest.raises(InputError, match="max_memory names 'gpu'; expected limits of .*cpu"):
        load_model(folder, device="auto", max_memory={"gpu": "1GB"})
    with pytest.raises(InputError, match="max_memory is empty; expected"):
        load_model(folder, device="auto", max_memory={})
    with pytest.raises(InputError, match="max_memory: .*'6GB'"):
        load_model(folder, device="auto", max_memory={"cpu": "much"})
    full = namedtuple("usage", "total used free")(0, 0, 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: full)
    with pytest.raises(ModelError, match=r"its weights take .* GB; expected that much memory and"):
        load_model(folder, device="auto", max_memory={"cpu": 1000})


def test_an_adapter_needs_one_device(folder: Path) -> None:
    with pytest.raises(InputError, match=r"adapter= with device='auto'; expected one device"):
        load_model(folder, adapter=folder, device="auto")


def test_the_number_format_of_the_files(tmp_path: Path) -> None:
    path = saved(random_model("llama", torch.bfloat16), tmp_path / "half")
    model = load_model(path, dtype="auto")
    assert model.dtype == torch.bfloat16
    assert load_model(path).dtype == torch.float32
    # Logits are half precision, log probabilities are not.
    logprob = model.predict(random_prompts(model, LENGTHS), [[1]] * 3).logprob
    assert logprob.dtype == torch.float32


def test_weights_in_several_files(tmp_path: Path, whole: HookedModel) -> None:
    model = random_model("gemma3")
    path = saved(model, tmp_path / "shards")
    (path / "model.safetensors").unlink()
    model.save_pretrained(path, max_shard_size="40KB")
    assert len(list(path.glob("*.safetensors"))) > 2
    assert load_model(path).weight_hash == whole.weight_hash
