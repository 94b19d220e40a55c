"""What heads write, against hooks of the plain forward, for every family."""

import pytest
import torch
from plain import plain_logprobs, prompt_of, random_prompts
from tiny_models import tiny_bridge

from icl_mech.errors import InputError, ModelError
from icl_mech.model import Edit, HookedModel

LENGTHS = (9, 12, 5, 9)


def caches(model: HookedModel, prompts: list) -> list:
    return [model.bridge.run_with_cache(torch.tensor([p.tokens]))[1] for p in prompts]


def test_heads_and_bias_sum_to_the_attention_output(tiny: HookedModel) -> None:
    for prompt in random_prompts(tiny, LENGTHS):
        heads, bias = tiny.heads.mean_outputs([prompt], -2)
        assert heads.shape == (tiny.n_layers, tiny.n_heads, tiny.d_model)
        attn_out = tiny.capture([prompt], [-2], "attn_out")[0, 0]
        torch.testing.assert_close(heads.sum(dim=1) + bias, attn_out, atol=1e-5, rtol=1e-4)


def test_mean_heads_are_means_over_prompts(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, LENGTHS)
    together, _ = tiny.heads.mean_outputs(prompts, -1)
    alone = torch.stack([tiny.heads.mean_outputs([p], -1)[0] for p in prompts])
    torch.testing.assert_close(together, alone.mean(dim=0), atol=1e-5, rtol=1e-4)


def test_direct_effects_add_up_to_the_logit_difference(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, LENGTHS)
    answers, rivals = [1, 2, 3, 4], [[5], [6, 7], [8, 9, 10], [1]]
    effects = tiny.heads.direct_effects(prompts, answers, rivals)
    parts = effects.heads.sum((1, 2)) + effects.mlps.sum(1) + effects.rest
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            logits = tiny.bridge(torch.tensor([prompt.tokens]))[0, -1]
        cap = tiny.bridge.cfg.output_logits_soft_cap
        if cap > 0:  # what is decomposed comes before the cap
            logits = cap * torch.atanh(logits / cap)
        expected = logits[answers[i]] - logits[rivals[i]].mean()
        assert abs(float(parts[i] - expected)) < 1e-3
        assert abs(float(effects.total[i] - expected)) < 1e-3


@pytest.mark.parametrize(("family", "factor"), [("cohere", 1 / 16), ("granite_logits", 1 / 8)])
def test_a_scale_of_the_logits_counts(family: str, factor: float) -> None:
    model = HookedModel(tiny_bridge(family), f"tiny-{family}")
    prompts = random_prompts(model, LENGTHS)
    answers, rivals = [1, 2, 3, 4], [[5], [6, 7], [8, 9, 10], [1]]
    effects = model.heads.direct_effects(prompts, answers, rivals)
    parts = effects.heads.sum((1, 2)) + effects.mlps.sum(1) + effects.rest
    w_u = model.bridge.unembed.W_U
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            logits, cache = model.bridge.run_with_cache(torch.tensor([prompt.tokens]))
            last = cache[f"blocks.{model.n_layers - 1}.hook_resid_post"][:, -1:]
            read = model.bridge.ln_final(last)[0, 0] @ w_u
        expected = logits[0, -1, answers[i]] - logits[0, -1, rivals[i]].mean()
        assert abs(float(effects.total[i] - expected)) < 1e-5
        assert abs(float(parts[i] - expected)) < 1e-4
        unscaled = float(read[answers[i]] - read[rivals[i]].mean())
        assert float(expected) == pytest.approx(unscaled * factor, abs=1e-4)


def test_logits_that_are_bent_otherwise_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    bridge = tiny_bridge("llama")
    model = HookedModel(bridge, "bent")
    prompts = random_prompts(model, (6,))
    model.predict(prompts, [[1]])  # verified
    monkeypatch.setattr(bridge.adapter, "apply_output_logits_transform", lambda x: x + x**2 / 50)
    with pytest.raises(ModelError, match="does more to its logits than scale them"):
        model.heads.direct_effects(prompts, [1], [[2]])


def test_each_head_writes_what_attention_writes_without_the_others(tiny: HookedModel) -> None:
    """One block, one head left on; the norm behind attention at the scale of the full run."""
    (prompt,) = random_prompts(tiny, (9,))
    tokens = torch.tensor([prompt.tokens])
    (cache,) = caches(tiny, [prompt])
    written, _ = tiny.heads.mean_outputs([prompt], -1)
    for layer in (0, tiny.n_layers - 1):
        block = tiny.bridge.blocks[layer]
        kept: list[torch.Tensor] = []
        for head in range(tiny.n_heads):

            def alone(z, hook, head=head):
                return z * (torch.arange(tiny.n_heads) == head)[:, None]

            def keep(out, hook, kept=kept):
                kept.append(out[0, -1].clone())

            with torch.no_grad():
                tiny.bridge.run_with_hooks(
                    tokens,
                    fwd_hooks=[
                        (f"blocks.{layer}.attn.hook_z", alone),
                        (f"blocks.{layer}.attn.o.hook_out", keep),
                    ],
                )
            expected = kept[-1] - (0 if block.attn.b_O is None else block.attn.b_O)
            if hasattr(block, "ln1_post"):
                scale = cache[f"blocks.{layer}.ln1_post.hook_scale"][0, -1]
                expected = expected * (1 + block.ln1_post.weight) / scale
            torch.testing.assert_close(written[layer, head], expected, atol=1e-5, rtol=1e-4)


def test_a_last_head_s_direct_effect_by_hand() -> None:
    """GPT-NeoX: nothing reads the last attention but the final norm."""
    model = HookedModel(tiny_bridge("gpt_neox"), "tiny-neox")
    (prompt,) = random_prompts(model, (9,))
    effects = model.heads.direct_effects([prompt], [3], [[7, 9]])
    last, head = model.n_layers - 1, 1
    written = model.heads.mean_outputs([prompt], -1)[0][last, head]
    with torch.no_grad():
        final = caches(model, [prompt])[0][f"blocks.{last}.hook_resid_post"][0, -1]
        scale = (final.var(unbiased=False) + model.bridge.cfg.eps).sqrt()
        moved = (written - written.mean()) / scale * model.bridge.ln_final.weight
        w_u = model.bridge.unembed.W_U
        expected = moved @ (w_u[:, 3] - w_u[:, [7, 9]].mean(dim=1))
    assert abs(float(effects.heads[0, last, head] - expected)) < 1e-5


def test_attention_is_the_last_row_of_the_pattern(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, LENGTHS)
    for attention, cache, prompt in zip(
        tiny.heads.attention(prompts), caches(tiny, prompts), prompts, strict=True
    ):
        assert attention.shape == (tiny.n_layers, tiny.n_heads, len(prompt))
        for layer in range(tiny.n_layers):
            expected = cache[f"blocks.{layer}.attn.hook_pattern"][0, :, -1]
            torch.testing.assert_close(attention[layer], expected, atol=1e-5, rtol=0)


def test_gradients_are_the_slope_of_small_edits(tiny: HookedModel) -> None:
    """Central differences in the answer's probability, head by head."""
    prompts = random_prompts(tiny, (7, 10))
    answers = [3, 4]
    z, gradient = tiny.heads.gradients(prompts, answers)
    torch.testing.assert_close(z, tiny.capture(prompts, [-1], "z")[:, 0], atol=1e-5, rtol=1e-4)
    generator = torch.Generator().manual_seed(0)
    for layer in range(tiny.n_layers):
        for head in (0, tiny.n_heads - 1):
            step = torch.randn(tiny.d_head, generator=generator)
            step *= 0.05 * z[0, layer, head].norm() / step.norm()
            p = []
            for sign in (-1.0, 1.0):
                edit = Edit(layer, step, "z", -1, "add", scale=sign, head=head)
                p.append(plain_logprobs(tiny, prompts[0], edit)[answers[0]].exp())
            slope = float(p[1] - p[0]) / 2
            predicted = float(gradient[0, layer, head] @ step)
            assert abs(slope - predicted) < 0.05 * abs(slope) + 2e-6


def test_parameters_keep_no_gradients(tiny_llama: HookedModel) -> None:
    tiny_llama.heads.gradients(random_prompts(tiny_llama, (6,)), [1])
    assert all(p.grad is None for p in tiny_llama.bridge.original_model.parameters())
    with torch.inference_mode():
        tiny_llama.heads.gradients(random_prompts(tiny_llama, (6,)), [1])


def test_quantised_weights_have_no_gradients() -> None:
    bridge = tiny_bridge("llama")
    model = HookedModel(bridge, "quantised")
    bridge.original_model.is_quantized = True
    with pytest.raises(InputError, match="weights are quantised"):
        model.heads.gradients([prompt_of([1, 2, 3])], [1])


def test_blocks_that_scale_what_they_add_are_refused() -> None:
    bridge = tiny_bridge("llama")
    model = HookedModel(bridge, "scaled")
    (prompt,) = random_prompts(model, (6,))
    bridge.blocks[1].hook_out.add_hook(lambda out, hook: out * 1.5)
    with pytest.raises(ModelError, match="miss the logit difference"):
        model.heads.direct_effects([prompt], [1], [[2]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "gpt_neox"])
def test_other_precisions(family: str, dtype: torch.dtype) -> None:
    """Sums are done in float32 at least; their tolerance is that of the model's own numbers."""
    model = HookedModel(tiny_bridge(family, dtype), "precise")
    prompts = random_prompts(model, LENGTHS)
    effects = model.heads.direct_effects(prompts, [1, 2, 3, 4], [[5], [6], [7, 8], [9]])
    assert effects.heads.dtype == torch.promote_types(dtype, torch.float32)
    plain = HookedModel(tiny_bridge(family), "plain")
    reference = plain.heads.direct_effects(prompts, [1, 2, 3, 4], [[5], [6], [7, 8], [9]])
    tolerance = 0.3 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(
        effects.heads.float(), reference.heads, atol=tolerance, rtol=tolerance
    )
    z, gradient = model.heads.gradients(prompts, [1, 2, 3, 4])
    assert z.dtype == gradient.dtype == effects.heads.dtype
    heads, _ = model.heads.mean_outputs(prompts, -1)
    assert heads.dtype == effects.heads.dtype


def test_norms_without_parameters() -> None:
    model = HookedModel(tiny_bridge("olmo"), "tiny-olmo")
    prompts = random_prompts(model, LENGTHS)
    effects = model.heads.direct_effects(prompts, [1, 2, 3, 4], [[5]] * 4)
    parts = effects.heads.sum((1, 2)) + effects.mlps.sum(1) + effects.rest
    torch.testing.assert_close(parts, effects.total, atol=1e-4, rtol=1e-4)


def test_attention_that_is_scaled_is_refused() -> None:
    model = HookedModel(tiny_bridge("granite"), "tiny-granite")
    with pytest.raises(ModelError, match="heads of block 0 miss its attention output"):
        model.heads.mean_outputs(random_prompts(model, (6,)), -1)


def test_a_frozen_model_has_gradients_too() -> None:
    bridge = tiny_bridge("llama")
    model = HookedModel(bridge, "frozen")
    prompts = random_prompts(model, (6,))
    _, expected = model.heads.gradients(prompts, [1])
    bridge.original_model.requires_grad_(False)
    _, gradient = model.heads.gradients(prompts, [1])
    torch.testing.assert_close(gradient, expected)
    assert not any(p.requires_grad for p in bridge.original_model.parameters())


def test_ids_that_the_vocabulary_lacks(tiny_llama: HookedModel) -> None:
    (prompt,) = random_prompts(tiny_llama, (5,))
    heads = tiny_llama.heads
    for answer, rival, what in ((-1, 3, "answers"), (257, 3, "answers"), (3, -2, "rivals")):
        for ask in (heads.direct_effects, heads.gradients):
            with pytest.raises(InputError, match=f"{what} holds token .*; expected 0 to 256"):
                ask([prompt], [answer], [[rival]])


@pytest.mark.parametrize(
    ("answers", "rivals"), [([1, 2], [[5]]), ([1], [[5], [6]]), ([1, 2], [[5], []])]
)
def test_answers_and_rivals_that_do_not_match(
    tiny_llama: HookedModel, answers: list, rivals: list
) -> None:
    with pytest.raises(InputError, match="expected one of each per prompt"):
        tiny_llama.heads.direct_effects(random_prompts(tiny_llama, (5, 6)), answers, rivals)
