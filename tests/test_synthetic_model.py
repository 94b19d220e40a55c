"""The transformer is GPT-2, its hooks are TransformerLens's, and they cost nothing."""

import pytest
import torch
from transformer_lens import ActivationCache, patching
from transformers import GPT2Config, GPT2Model

from icl_mech.errors import InputError
from icl_mech.synthetic.data import Batch, draw_batch, make_mixture
from icl_mech.synthetic.model import ModelConfig, RegressionTransformer

MIXTURE = make_mixture(4, 2, 2, n_examples=3)


def model() -> RegressionTransformer:
    """Random, with norms that are not all ones and biases that are not all zero."""
    made = RegressionTransformer(ModelConfig(3, 2, 16, init_std=0.3), 4, 3, seed=1)
    generator = torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.3, generator=generator)
    return made.eval().requires_grad_(False)


def batch() -> Batch:
    return draw_batch(MIXTURE, 5, seed=0)


def gpt2(ours: RegressionTransformer) -> GPT2Model:
    """Transformers' GPT-2 with the same weights."""
    c = ours.config
    theirs = GPT2Model(
        GPT2Config(
            vocab_size=1, n_positions=ours.n_positions, n_embd=c.d_model, n_layer=c.n_layers,
            n_head=c.n_heads, bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    state = {"wte.weight": theirs.wte.weight, "wpe.weight": ours.position}
    for name, weight in ours.state_dict().items():
        if name.startswith("blocks."):
            key = name.replace("blocks.", "h.")
            for here, there in (
                ("ln1.norm", "ln_1"), ("ln2.norm", "ln_2"), ("attn.qkv", "attn.c_attn"),
                ("attn.out", "attn.c_proj"), ("mlp.inner", "mlp.c_fc"), ("mlp.out", "mlp.c_proj"),
            ):  # fmt: skip
                key = key.replace(here, there)
            state[key] = weight.T if weight.dim() == 2 else weight  # Conv1D keeps the transpose
    state |= {f"ln_f.{kind}": getattr(ours.ln_final.norm, kind) for kind in ("weight", "bias")}
    theirs.load_state_dict(state)
    return theirs.requires_grad_(False)


def test_the_blocks_are_gpt2s() -> None:
    ours, drawn = model(), batch()
    tokens = ours.tokens(drawn.xs, drawn.ys)
    theirs = gpt2(ours)(inputs_embeds=ours.read_in(tokens), output_hidden_states=True)
    out, cache = ours.run_with_cache(tokens)
    torch.testing.assert_close(out, ours.read_out(theirs.last_hidden_state)[..., 0])
    for layer in range(2):  # of the last layer, Transformers gives the normed stream
        torch.testing.assert_close(
            cache[f"blocks.{layer}.hook_resid_post"], theirs.hidden_states[layer + 1]
        )


def test_initial_weights_are_gpt2s() -> None:
    made = RegressionTransformer(ModelConfig(4, 4, 64), 8, 8, seed=3)
    assert made.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert made.blocks[0].mlp.out.weight.std().item() == pytest.approx(0.02 / 8**0.5, rel=0.05)
    assert made.blocks[0].ln1.norm.weight.eq(1).all()
    assert made.blocks[0].attn.qkv.bias.eq(0).all()
    again = RegressionTransformer(ModelConfig(4, 4, 64), 8, 8, seed=3)
    other = RegressionTransformer(ModelConfig(4, 4, 64), 8, 8, seed=4)
    assert torch.equal(made.position, again.position)
    assert not torch.equal(made.position, other.position)


def test_the_papers_model_has_its_number_of_parameters() -> None:
    """9.5 million, says the paper."""
    paper = RegressionTransformer(ModelConfig(), 16, 20)
    assert sum(p.numel() for p in paper.parameters()) == pytest.approx(9.5e6, rel=0.01)


def test_tokens_alternate() -> None:
    ours, drawn = model(), batch()
    tokens = ours.tokens(drawn.xs, drawn.ys)
    assert tokens.shape == (5, 7, 5)
    assert torch.equal(tokens[:, ::2, :4], drawn.xs)
    assert torch.equal(tokens[:, 1::2, 4], drawn.ys[:, :3])
    assert tokens[:, ::2, 4].eq(0).all()
    assert tokens[:, 1::2, :4].eq(0).all()


def test_a_prediction_sees_the_pairs_before_it_and_nothing_else() -> None:
    ours, drawn = model(), batch()
    before = ours.predict(drawn.xs, drawn.ys)
    assert before.shape == (5, 4)
    ys = drawn.ys.clone()
    ys[:, 2:] += 1
    after = ours.predict(drawn.xs, ys)
    torch.testing.assert_close(after[:, :3], before[:, :3])
    assert not torch.isclose(after[:, 3], before[:, 3]).any()
    # Fewer pairs than the model has room for.
    torch.testing.assert_close(ours.predict(drawn.xs[:, :2], ys[:, :2]), before[:, :2])


def test_predictions_do_not_depend_on_who_looks() -> None:
    ours, drawn = model(), batch()
    tokens = ours.tokens(drawn.xs, drawn.ys)
    plain = ours(tokens)
    looked, cache = ours.run_with_cache(tokens)
    torch.testing.assert_close(looked, plain)
    assert set(cache) == set(ours.hook_dict)
    some, _ = ours.run_with_cache(tokens, names_filter="blocks.1.hook_resid_post")
    assert torch.equal(some, plain)


def test_what_the_hooks_hold() -> None:
    ours, drawn = model(), batch()
    _, cache = ours.run_with_cache(ours.tokens(drawn.xs, drawn.ys))
    at = "blocks.1."
    assert cache[f"{at}attn.hook_z"].shape == (5, 7, 2, 8)
    pattern = cache[f"{at}attn.hook_pattern"]
    assert pattern.shape == (5, 2, 7, 7)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(5, 2, 7))
    assert pattern.triu(1).eq(0).all()
    v = cache[f"{at}attn.hook_v"]
    z = torch.einsum("shqk,skhd->sqhd", pattern, v)
    torch.testing.assert_close(cache[f"{at}attn.hook_z"], z)
    # Heads through W_O, and the bias once, are what attention writes.
    attn = ours.blocks[1].attn
    written = torch.einsum("sqhd,hde->sqe", z, attn.W_O) + attn.b_O
    torch.testing.assert_close(cache[f"{at}hook_attn_out"], written)
    stream = cache[f"{at}hook_resid_pre"] + written + cache[f"{at}hook_mlp_out"]
    torch.testing.assert_close(cache[f"{at}hook_resid_post"], stream)
    torch.testing.assert_close(
        cache["blocks.0.hook_resid_pre"], cache["hook_embed"] + cache["hook_pos_embed"]
    )


def test_editing_the_last_stream_reproduces_another_sequences_prediction() -> None:
    ours, drawn = model(), batch()
    tokens = ours.tokens(drawn.xs, drawn.ys)
    plain = ours(tokens)
    out, cache = ours.run_with_cache(tokens)
    other = cache["blocks.2.hook_resid_post"].flip(0)
    swapped = ours.run_with_hooks(
        tokens, fwd_hooks=[("blocks.2.hook_resid_post", lambda resid, hook: other)]
    )
    torch.testing.assert_close(swapped, out.flip(0))
    assert torch.equal(ours(tokens), plain)  # no hook stays


def test_transformer_lens_patching_and_cache_work_on_it() -> None:
    """Its loop gives what two hooks by hand give; its cache decomposes the stream."""
    import pandas as pd

    ours, drawn = model(), batch()
    tokens = ours.tokens(drawn.xs, drawn.ys)
    clean, cache = ours.run_with_cache(tokens.flip(0))
    cells = pd.DataFrame({"layer": [0, 1, 2], "pos": [1, 5, 6]})
    found = patching.generic_activation_patch(
        ours, tokens, ActivationCache(cache, ours), lambda out: out[:, -1].mean(),
        patching.layer_pos_patch_setter, "resid_post", index_df=cells,
    )  # fmt: skip
    for cell, (layer, pos) in enumerate(cells.values):
        site = f"blocks.{layer}.hook_resid_post"

        def write(resid, hook, site=site, pos=pos):
            resid[:, pos] = cache[site][:, pos]
            return resid

        by_hand = ours.run_with_hooks(tokens, fwd_hooks=[(site, write)])[:, -1].mean()
        assert found[cell].item() == pytest.approx(by_hand.item(), abs=1e-6)
    assert found[2].item() == pytest.approx(clean[:, -1].mean().item(), abs=1e-5)
    parts = ActivationCache(cache, ours).decompose_resid(layer=3, mode="all")
    torch.testing.assert_close(parts.sum(0), cache["blocks.2.hook_resid_post"])


def test_mistakes_are_refused() -> None:
    with pytest.raises(InputError, match="d_model is 16 with 3 heads"):
        ModelConfig(1, 3, 16)
    with pytest.raises(InputError, match="n_layers is 0"):
        ModelConfig(0, 1, 4)
    with pytest.raises(InputError, match="init_std is 0"):
        ModelConfig(init_std=0.0)
    with pytest.raises(InputError, match="9 tokens; expected at most 7 .3 examples and a query."):
        model()(torch.zeros(1, 9, 5))


def test_the_callers_random_state_is_left_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    RegressionTransformer(ModelConfig(2, 2, 16), 4, 3, seed=1)
    assert torch.equal(torch.rand(3), expected)
