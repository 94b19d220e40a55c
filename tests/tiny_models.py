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
    FalconConfig,
    FalconH1Config,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTJConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    JambaConfig,
    Llama4TextConfig,
    LlamaConfig,
    Mamba2Config,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    MptConfig,
    Olmo2Config,
    OlmoConfig,
    OPTConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
    Qwen3NextConfig,
    StableLmConfig,
    Starcoder2Config,
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
_ENDS = {"pad_token_id": None, "bos_token_id": D_VOCAB - 1, "eos_token_id": D_VOCAB - 1}
_EXPERTS = {"num_experts_per_tok": 2, "num_local_experts": 4}
_ALTERNATE = ["sliding_attention", "full_attention"] * (N_LAYERS // 2)
_FALCON = {
    "vocab_size": D_VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
    **_ENDS,
}
_OPT = {
    "vocab_size": D_VOCAB,
    "hidden_size": 32,
    "ffn_dim": 48,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "init_std": 0.2,
    **_ENDS,
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
        "qwen3": lambda: Qwen3Config(**_SIZES, num_key_value_heads=2, head_dim=16),
        "qwen3_moe": lambda: Qwen3MoeConfig(
            **_SIZES,
            **_EXPERTS,
            num_key_value_heads=2,
            head_dim=16,
            moe_intermediate_size=24,
            norm_topk_prob=True,
            mlp_only_layers=[1],
        ),
        "mixtral": lambda: MixtralConfig(**_SIZES, **_EXPERTS, num_key_value_heads=2),
        "mistral": lambda: MistralConfig(**_SIZES, num_key_value_heads=2, sliding_window=6),
        "phi3": lambda: Phi3Config(
            **_SIZES,
            num_key_value_heads=2,
            sliding_window=6,
            rope_parameters={
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
            },
        ),
        "olmo2": lambda: Olmo2Config(**_SIZES, num_key_value_heads=2),
        "gemma": lambda: GemmaConfig(**_SIZES, num_key_value_heads=1, head_dim=16),
        "gptj": lambda: GPTJConfig(
            vocab_size=D_VOCAB,
            n_positions=256,
            n_embd=32,
            n_layer=N_LAYERS,
            n_head=4,
            rotary_dim=4,
            initializer_range=0.2,
            **_ENDS,
        ),
        "gpt_neo": lambda: GPTNeoConfig(
            vocab_size=D_VOCAB,
            hidden_size=32,
            num_layers=N_LAYERS,
            num_heads=4,
            max_position_embeddings=256,
            attention_types=[[["global", "local"], N_LAYERS // 2]],
            window_size=6,
            initializer_range=0.2,
            **_ENDS,
        ),
        "falcon": lambda: FalconConfig(**_FALCON, multi_query=True),  # as falcon-7b
        "falcon_new": lambda: FalconConfig(  # as falcon-40b
            **_FALCON, new_decoder_architecture=True, num_kv_heads=2
        ),
        "falcon_alibi": lambda: FalconConfig(  # as falcon-rw-1b
            **_FALCON, alibi=True, multi_query=False, parallel_attn=False, bias=True
        ),
        "mpt": lambda: MptConfig(
            vocab_size=D_VOCAB,
            d_model=32,
            n_heads=4,
            n_layers=N_LAYERS,
            max_seq_len=256,
            initializer_range=0.2,
            **_ENDS,
        ),
        "opt": lambda: OPTConfig(**_OPT, word_embed_proj_dim=32),
        "opt_350m": lambda: OPTConfig(**_OPT, word_embed_proj_dim=16, do_layer_norm_before=False),
        "stablelm": lambda: StableLmConfig(**_SIZES, num_key_value_heads=2, use_qkv_bias=True),
        "stablelm_parallel": lambda: StableLmConfig(  # as stablelm-2-12b
            **_SIZES, num_key_value_heads=2, use_parallel_residual=True, qk_layernorm=True
        ),
        "starcoder2": lambda: Starcoder2Config(**_SIZES, num_key_value_heads=2, sliding_window=6),
        "gpt_oss": lambda: GptOssConfig(
            **_SIZES,
            **_EXPERTS,
            num_key_value_heads=2,
            head_dim=16,
            sliding_window=6,
            layer_types=_ALTERNATE,
        ),
        "llama4": lambda: Llama4TextConfig(
            **_SIZES,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size_mlp=48,
            num_local_experts=4,
            num_experts_per_tok=1,
            interleave_moe_layer_step=2,
            no_rope_layer_interval=2,
            attention_chunk_size=8,
        ),
        "mamba": lambda: MambaConfig(
            vocab_size=D_VOCAB,
            hidden_size=32,
            state_size=8,
            num_hidden_layers=N_LAYERS,
            initializer_range=0.2,
            **_ENDS,
        ),
        "mamba2": lambda: Mamba2Config(
            vocab_size=D_VOCAB,
            hidden_size=32,
            num_heads=8,
            head_dim=8,
            state_size=8,
            n_groups=2,
            chunk_size=8,
            num_hidden_layers=N_LAYERS,
            initializer_range=0.2,
            **_ENDS,
        ),
        "falcon_h1": lambda: FalconH1Config(
            **_SIZES,
            num_key_value_heads=2,
            mamba_d_ssm=32,
            mamba_n_heads=4,
            mamba_d_head=8,
            mamba_d_state=8,
            mamba_chunk_size=8,
            lm_head_multiplier=0.5,
            embedding_multiplier=2.0,
            attention_out_multiplier=0.8,
            ssm_out_multiplier=0.7,
            key_multiplier=0.9,
            mlp_multipliers=[0.9, 0.6],
        ),
        "jamba": lambda: JambaConfig(
            **_SIZES,
            num_key_value_heads=2,
            num_experts=4,
            attn_layer_period=2,
            attn_layer_offset=1,
            mamba_d_state=8,
            mamba_dt_rank=4,
        ),
        "qwen3_next": lambda: Qwen3NextConfig(
            **_SIZES,
            num_key_value_heads=2,
            head_dim=16,
            layer_types=["linear_attention", "full_attention"] * (N_LAYERS // 2),
            linear_key_head_dim=8,
            linear_value_head_dim=8,
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            moe_intermediate_size=24,
            shared_expert_intermediate_size=24,
            num_experts_per_tok=2,
            num_experts=4,
        ),
    }
    return configs[family]()


FAMILIES = ("llama", "qwen2", "gemma2", "gemma3", "gpt2", "gpt_neox")
#: Those and more: decoders that TransformerLens has an adapter for, of every kind.
EVERY_FAMILY = (
    *FAMILIES,
    "qwen3",
    "qwen3_moe",
    "mixtral",
    "mistral",
    "phi3",
    "olmo",
    "olmo2",
    "gemma",
    "gptj",
    "gpt_neo",
    "falcon",
    "falcon_new",
    "falcon_alibi",
    "bloom",
    "mpt",
    "opt",
    "opt_350m",
    "stablelm",
    "stablelm_parallel",
    "cohere",
    "starcoder2",
    "granite",
    "granite_logits",
    "gpt_oss",
    "llama4",
    "mamba",
    "mamba2",
    "falcon_h1",
    "jamba",
    "qwen3_next",
)


def random_model(family: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A random model of the family; the same each time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config(family), attn_implementation="eager")
        for name, parameter in model.named_parameters():
            if "norm" in name or "ln_" in name:  # not all ones: a skipped norm must show
                torch.nn.init.normal_(parameter, mean=0.5, std=0.3)
            elif "dt_" in name and "bias" in name:  # steps of state-space models: some longer
                torch.nn.init.normal_(parameter, mean=-1.0, std=0.5)
            elif family not in FAMILIES and not parameter.any():  # nor a bias of zeros
                torch.nn.init.normal_(parameter, std=0.2)
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
