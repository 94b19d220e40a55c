"""What attention sees, wherever a family writes it down: seen exactly, or refused."""

from collections.abc import Callable

import pytest
import torch
import transformers
from plain import assert_same, plain_logprobs, random_prompts
from tiny_models import _SIZES, D_VOCAB, N_LAYERS, byte_tokenizer, tiny_bridge
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, PretrainedConfig

from icl_mech.errors import ModelError
from icl_mech.model import Edit, HookedModel
from icl_mech.model.masks import additive, visible, window_of

SIZES = {**_SIZES, "num_key_value_heads": 2}
ALTERNATING = ["sliding_attention", "full_attention"] * (N_LAYERS // 2)


def model_of(
    config: PretrainedConfig, dtype: torch.dtype = torch.float32, batch_tokens: int | None = None
) -> HookedModel:
    """A random model of a config."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.config.architectures = [type(model).__name__]
    bridge = TransformerBridge.boot_transformers(
        "tiny",
        hf_model=model.to(dtype).eval(),
        tokenizer=byte_tokenizer(),
        device="cpu",
        dtype=dtype,
    )
    return HookedModel(bridge, "tiny", batch_tokens)


def vectors(model: HookedModel, n: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(n, model.d_model, generator=generator))


# --- windows in the config ------------------------------------------------------------------

WINDOWS: dict[str, Callable[[], PretrainedConfig]] = {
    "mistral": lambda: transformers.MistralConfig(**SIZES, sliding_window=12),
    "phi3": lambda: transformers.Phi3Config(**SIZES, sliding_window=12),
    "starcoder2": lambda: transformers.Starcoder2Config(**SIZES, sliding_window=12),
    "exaone4": lambda: transformers.Exaone4Config(
        **SIZES, sliding_window=12, layer_types=ALTERNATING
    ),
}


@pytest.mark.parametrize("family", WINDOWS)
def test_windows_that_only_the_config_knows(family: str) -> None:
    model = model_of(WINDOWS[family]())
    prompts = random_prompts(model, (50, 9, 23))
    edits = [Edit(i % 4, v, position=p) for i, v in enumerate(vectors(model, 4)) for p in (-1, -5)]
    assert_same(model, prompts, edits)
    expected = [12, None] * 2 if family == "exaone4" else [12] * 4
    assert model._engine.blocks.windows == expected


def test_a_window_as_long_as_the_first_verification() -> None:
    """Nothing of it shows in 32 tokens; in half precision nothing need show in more."""
    model = model_of(transformers.MistralConfig(**SIZES, sliding_window=32), torch.bfloat16)
    short, long = random_prompts(model, (20, 64))
    model.predict([short], [[1]])
    assert model._engine.blocks.windows == [None] * 4
    read = model.predict([long], [[1, 2]]).logprob[0]
    assert model._engine.blocks.windows == [32] * 4
    torch.testing.assert_close(read, plain_logprobs(model, long)[[1, 2]], atol=0.05, rtol=0)


def test_chunks_are_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the family is not known to have them: its masks show it."""
    monkeypatch.setattr("icl_mech.model.blocks.why_not_replayed", lambda config: None)
    config = transformers.Llama4TextConfig(
        **SIZES, head_dim=8, num_local_experts=2, attention_chunk_size=8
    )
    model = model_of(config, torch.bfloat16)
    with pytest.raises(ModelError, match="Llama4.* block by block: its tokens see others than"):
        model.predict(random_prompts(model, (20,)), [[1]])


# --- the proof ------------------------------------------------------------------------------

N = 8
POSITIONS = torch.arange(N)[None]


def seen(window: int | None) -> torch.Tensor:
    return visible(POSITIONS[:, :0], POSITIONS[:, None], window)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 1, 3, 7])
def test_a_window_is_read_off_a_mask(window: int | None, dtype: torch.dtype) -> None:
    assert window_of(additive(seen(window), dtype), N, []) == window
    assert window_of(seen(window)[:, None], N, []) == window
    infinite = torch.zeros(1, 1, N, N, dtype=dtype).masked_fill(~seen(window), -torch.inf)
    assert window_of(infinite, N, []) == window
    # Room in a cache that is not used yet.
    assert window_of(torch.nn.functional.pad(infinite, (0, 4)), N, []) == window


def one_key_more(mask: torch.Tensor) -> torch.Tensor:
    mask[0, 0, 5, 1] = 0
    return mask


def one_key_less(mask: torch.Tensor) -> torch.Tensor:
    mask[0, 0, 5, 4] = -torch.inf
    return mask


def the_next_token(mask: torch.Tensor) -> torch.Tensor:
    mask[0, 0, 3, 4] = 0
    return mask


@pytest.mark.parametrize("change", [one_key_more, one_key_less, the_next_token])
def test_a_mask_of_another_kind_is_refused(change: Callable) -> None:
    with pytest.raises(ModelError, match="see others than all before them"):
        window_of(change(additive(seen(3), torch.bfloat16)), N, [])


def test_a_head_with_a_mask_of_its_own_is_refused() -> None:
    mask = torch.cat([additive(seen(w), torch.float32) for w in (3, None)], dim=1)
    with pytest.raises(ModelError, match="see others than all before them"):
        window_of(mask, N, [])


def test_masks_that_weigh_keys_are_refused() -> None:
    bias = (POSITIONS[0] - POSITIONS[0][:, None]).to(torch.bfloat16)
    with pytest.raises(ModelError, match="its mask does more than hide tokens"):
        window_of(additive(seen(None), torch.bfloat16) + bias, N, [])


@pytest.mark.parametrize("shape", [(1, N), (1, N, N), (1, 1, 1, N)])
def test_masks_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="its mask has|its tokens see others"):
        window_of(torch.zeros(shape), N, [])


# --- masks that attention keeps itself ------------------------------------------------------


def gpt_neo(window: int, batch_tokens: int | None = None) -> HookedModel:
    config = transformers.GPTNeoConfig(
        vocab_size=D_VOCAB,
        hidden_size=32,
        num_layers=N_LAYERS,
        num_heads=4,
        attention_types=[[["global", "local"], 2]],
        window_size=window,
        max_position_embeddings=96,
        initializer_range=0.2,
    )
    return model_of(config, batch_tokens=batch_tokens)


@pytest.mark.parametrize("window", [6, 64])
def test_gpt_neo_in_batches_wider_than_its_window(window: int) -> None:
    """Its local attention hides keys by column: of 120 edits side by side, all but the first."""
    model = gpt_neo(window)
    (prompt,) = random_prompts(model, (20,))
    edits = [Edit(i % 3, v) for i, v in enumerate(vectors(model, 120))]
    assert_same(model, [prompt], edits)
    together = model.evaluate([prompt], edits, [[5]])
    small = HookedModel(model.bridge, "small", batch_tokens=7).evaluate([prompt], edits, [[5]])
    torch.testing.assert_close(together.logprob, small.logprob, atol=1e-4, rtol=0)


def test_gpt_neo_keeps_its_own_masks() -> None:
    model = gpt_neo(6)
    attention = [block.attn.original_component for block in model.bridge.blocks]
    before = [module.bias.clone() for module in attention]
    prompts = random_prompts(model, (20, 40))
    expected = plain_logprobs(model, prompts[1])
    assert_same(model, prompts, [Edit(1, v, position=-3) for v in vectors(model, 2)])
    for module, mask in zip(attention, before, strict=True):
        assert torch.equal(module.bias, mask)
    assert torch.equal(plain_logprobs(model, prompts[1]), expected)
    with pytest.raises(ZeroDivisionError), model.bridge.hooks([("blocks.2.hook_in", _fail)]):
        model.evaluate(prompts[:1], [Edit(1, vectors(model, 1)[0])], [[5]])
    for module, mask in zip(attention, before, strict=True):
        assert torch.equal(module.bias, mask)


def _fail(activation: torch.Tensor, hook: object) -> None:
    raise ZeroDivisionError


# --- position tables ------------------------------------------------------------------------


def long_rope() -> HookedModel:
    """Phi-3 with other frequencies beyond 64 tokens."""
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 4,
        "long_factor": [4.0, 6.0, 8.0, 10.0],
        "original_max_position_embeddings": 64,
    }
    config = transformers.Phi3Config(
        **SIZES, original_max_position_embeddings=64, rope_parameters=rope
    )
    return model_of(config)


def dynamic_rope() -> HookedModel:
    """Llama with a base that grows with the prompt, beyond 64 tokens."""
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
    config = transformers.LlamaConfig(
        **{**SIZES, "max_position_embeddings": 64}, rope_parameters=rope
    )
    model = model_of(config)
    model.bridge.cfg.n_ctx = 256  # what such a model reads is for its user to say
    return model


@pytest.mark.parametrize("make", [long_rope, dynamic_rope])
@pytest.mark.parametrize("first", ["short", "long"])
def test_positions_that_depend_on_the_length(make: Callable[[], HookedModel], first: str) -> None:
    """Refused whichever came first; short prompts go on as they were."""
    model = make()
    short, long = random_prompts(model, (50, 100))

    def check_short() -> None:
        assert_same(model, [short], [Edit(1, vectors(model, 1)[0], position=-4)])

    if first == "short":
        check_short()
    for prompts in ([long], [short, long]):
        with pytest.raises(ModelError, match="position embeddings depend on the prompt's length"):
            model.predict(prompts, [[1]] * len(prompts))
    check_short()


def test_positions_that_do_not_depend_on_the_length_grow(tiny: HookedModel) -> None:
    model = HookedModel(tiny.bridge, "fresh")
    for length in (20, 100, 40, 150):
        (prompt,) = random_prompts(model, (length,))
        read = model.predict([prompt], [[1, 2]]).logprob[0]
        torch.testing.assert_close(read, plain_logprobs(model, prompt)[[1, 2]], atol=1e-4, rtol=0)


# --- blocks without attention ---------------------------------------------------------------


# --- what verification leaves behind ---------------------------------------------------------


def test_no_cache_and_no_mask_of_the_verification_is_kept() -> None:
    model = HookedModel(tiny_bridge("llama"), "fresh")
    model.predict(random_prompts(model, (64,)), [[1]])
    for call in model._engine.blocks.calls:
        assert {"past_key_values", "attention_mask", "position_embeddings"} <= set(call.arguments)
        kept = [v for v in call.arguments.values() if isinstance(v, torch.Tensor)]
        kept += [t for v in call.arguments.values() if isinstance(v, tuple) for t in v]
        # Two tables of 64 positions and 8 numbers each.
        assert [tuple(t.shape) for t in kept] == [(1, 64, 8)] * 2
        objects = [v for v in call.arguments.values() if not isinstance(v, tuple)]
        assert all(type(v) in (object, bool) for v in objects)
