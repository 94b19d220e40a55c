"""Random-weight models of every supported family, built from real configs; no download."""

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformer_lens.model_bridge import TransformerBridge
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    OlmoConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from icl_mech.model import HookedModel
from icl_mech.tasks import Pair, Task

N_LAYERS = 4
END = "<|endoftext|>"

_BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
D_VOCAB = len(_BYTES) + 1


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and an end-of-text token."""
    vocab = {symbol: i for i, symbol in enumerate([*_BYTES, END])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


_SIZES = {
    "vocab_size": D_VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    # Large enough that attention and MLPs matter beside the embedding.
    "initializer_range": 0.2,
    "pad_token_id": None,
    "bos_token_id": D_VOCAB - 1,
    "eos_token_id": D_VOCAB - 1,
}


def config(family: str) -> PretrainedConfig:
    """A tiny config with the family's peculiarities switched on."""
    configs = {
        "llama": lambda: LlamaConfig(**_SIZES, num_key_value_heads=2),
        "qwen2": lambda: Qwen2Config(
            **_SIZES,
            num_key_value_heads=2,
            use_sliding_window=True,
            sliding_window=6,
            max_window_layers=2,
        ),
        "gemma2": lambda: Gemma2Config(
            **_SIZES,
            num_key_value_heads=2,
            head_dim=16,
            sliding_window=6,
            final_logit_softcapping=5.0,
        ),
        "gemma3": lambda: Gemma3TextConfig(
            **_SIZES,
            num_key_value_heads=1,
            head_dim=16,  # 4 heads of 16 in a stream of 32
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention"] * (N_LAYERS // 2),
        ),
        "gpt2": lambda: GPT2Config(
            vocab_size=D_VOCAB,
            n_embd=32,
            n_layer=N_LAYERS,
            n_head=4,
            n_positions=256,
            initializer_range=0.2,
            pad_token_id=None,
            bos_token_id=D_VOCAB - 1,
            eos_token_id=D_VOCAB - 1,
        ),
        "gpt_neox": lambda: GPTNeoXConfig(**_SIZES, rotary_pct=0.25),
        "cohere": lambda: CohereConfig(**_SIZES, num_key_value_heads=2, logit_scale=1 / 16),
        "granite_logits": lambda: GraniteConfig(**_SIZES, logits_scaling=8.0),
        "olmo": lambda: OlmoConfig(**_SIZES),
        "granite": lambda: GraniteConfig(**_SIZES, residual_multiplier=0.3),
        "bloom": lambda: BloomConfig(
            vocab_size=D_VOCAB, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.2
        ),
    }
    return configs[family]()


FAMILIES = ("llama", "qwen2", "gemma2", "gemma3", "gpt2", "gpt_neox")


def random_model(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of the family; the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config(family), attn_implementation="eager")
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:  # not all ones: a skipped norm must show
                torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
    model.config.architectures = [type(model).__name__]
    return model.to(dtype).eval()


def answering_model(family: str = "llama") -> PreTrainedModel:
    """A model that says "Q" after nearly all that ends in ">", so that it can do some task.

    Its blocks write little, so what it says depends most on the last token; the unembedding of
    what it says then and that of "Q" are exchanged.
    """
    model = random_model(family)
    ids = {symbol: i for i, symbol in enumerate(_BYTES)}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("o_proj", "down_proj", "attention.dense", "4h_to_h")):
                parameter.mul_(0.3)
        prompt = torch.tensor([[D_VOCAB - 1, ids["a"], ids[">"]]])
        said = int(model(prompt).logits[0, -1].argmax())
        weight = model.get_output_embeddings().weight
        weight[[said, ids["Q"]]] = weight[[ids["Q"], said]]
    return model


def answering_task(n: int = 26) -> Task:
    """A task whose answers all begin with "Q"."""
    letters = "abcdefghijklmnopqrstuvwxyz"[:n]
    return Task("q", "user", "", tuple(Pair(x, ("Q" + x,)) for x in letters))


def bridged(model: PreTrainedModel, name: str) -> TransformerBridge:
    """A bridge round a model."""
    return TransformerBridge.boot_transformers(
        name, hf_model=model, tokenizer=byte_tokenizer(), device="cpu", dtype=model.dtype
    )


def tiny_bridge(family: str, dtype: torch.dtype = torch.float32) -> TransformerBridge:
    """A bridge round a random model of the family."""
    return bridged(random_model(family, dtype), f"tiny-{family}")


def answering_bridge(family: str = "llama") -> TransformerBridge:
    """A bridge round a model that says "Q"."""
    return bridged(answering_model(family), f"tiny-{family}")


def saved(model: PreTrainedModel, folder: Path) -> Path:
    """A model in a folder, as Transformers writes it."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@cache
def tiny_model(family: str) -> HookedModel:
    """A random model of the family that tests share: for those that do not change it."""
    return HookedModel(tiny_bridge(family), name=f"tiny-{family}")
