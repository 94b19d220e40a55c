"""Models so simple that one can work out what must come out."""

import math

import pytest
import torch
from plain import prompt_of, random_prompts
from tiny_models import byte_tokenizer, config
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from icl_mech.model import Edit, HookedModel


def linear(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same model without norms and MLPs, whose heads look everywhere alike: all linear."""
    for module in model.modules():
        if "RMSNorm" in type(module).__name__:
            module.forward = lambda hidden: hidden
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    model.config.architectures = ["LlamaForCausalLM"]
    return model.eval()


def hooked(model: LlamaForCausalLM) -> HookedModel:
    bridge = TransformerBridge.boot_transformers(
        "by hand", hf_model=model, tokenizer=byte_tokenizer(), device="cpu", dtype=torch.float32
    )
    return HookedModel(bridge, "by hand")


@pytest.fixture(scope="module")
def micro() -> HookedModel:
    """One block, four words. Embedding and unembedding are the identity; head 0 copies the first
    two dimensions of what it sees, head 1 the last two; both see all tokens alike. So the logits
    are the last token's one-hot vector plus the mean of all tokens' one-hot vectors.
    """
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=4,
            hidden_size=4,
            intermediate_size=4,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=64,
            tie_word_embeddings=False,
            attn_implementation="eager",
            pad_token_id=None,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    attention = model.model.layers[0].self_attn
    with torch.no_grad():
        for weight in (
            model.model.embed_tokens.weight,
            model.lm_head.weight,
            attention.v_proj.weight,
            attention.o_proj.weight,
        ):
            weight.copy_(torch.eye(4))
    return hooked(linear(model))


def logprob(logits: list[float], token: int) -> float:
    return logits[token] - math.log(sum(map(math.exp, logits)))


def test_the_model_as_it_is(micro: HookedModel) -> None:
    prompt = prompt_of([0, 1, 2])
    # Adding nothing: logits (1/3, 1/3, 1 + 1/3, 0).
    nothing = Edit(0, torch.zeros(4), mode="add")
    readout = micro.evaluate([prompt], [nothing], [[2, 3]])
    logits = [1 / 3, 1 / 3, 4 / 3, 0.0]
    assert readout.top[0, 0] == 2
    assert readout.rank[0, 0].tolist() == [0, 3]
    assert readout.logprob[0, 0].tolist() == pytest.approx([logprob(logits, t) for t in (2, 3)])


@pytest.mark.parametrize(
    ("edits", "logits"),
    [
        # Head 0 writes dimensions 0 and 1: its (1/3, 1/3) becomes (3, 0).
        ([Edit(0, torch.tensor([3.0, 0]), "z", -1, head=0)], [3, 0, 4 / 3, 0]),
        # Head 1 writes dimensions 2 and 3: its (1/3, 0) becomes (0, 5).
        ([Edit(0, torch.tensor([0, 5.0]), "z", -1, head=1)], [1 / 3, 1 / 3, 1, 5]),
        # Both heads off: the last token's own vector.
        (
            [Edit(0, torch.zeros(2), "z", -1, head=0), Edit(0, torch.zeros(2), "z", -1, head=1)],
            [0, 0, 1, 0],
        ),
        # Token 1 in the middle becomes token 3 before the block: a third of its vector moves.
        ([Edit(0, torch.eye(4)[3], "resid_pre", 1)], [1 / 3, 0, 4 / 3, 1 / 3]),
        # The last token becomes token 0: its own vector moves, and its third of the mean.
        ([Edit(0, torch.eye(4)[0], "resid_pre", -1)], [1 + 2 / 3, 1 / 3, 0, 0]),
        # Added between attention and MLP (which does nothing), with a scale.
        (
            [Edit(0, torch.eye(4)[3], "resid_mid", -1, "add", scale=2.0)],
            [1 / 3, 1 / 3, 4 / 3, 2],
        ),
        # Two edits at different tokens: the first adds a third of token 3, the second replaces.
        (
            [
                Edit(0, torch.eye(4)[3], "resid_pre", 1),
                Edit(0, torch.tensor([1.0, 0, 0, 0]), "attn_out", -1),
            ],
            [1, 0, 1, 0],
        ),
    ],
)
def test_edits_by_hand(micro: HookedModel, edits: list[Edit], logits: list[float]) -> None:
    readout = micro.evaluate([prompt_of([0, 1, 2])], [edits], [[0, 1, 2, 3]])
    expected = [logprob(logits, token) for token in range(4)]
    assert readout.logprob[0, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_what_heads_write_by_hand(micro: HookedModel) -> None:
    prompts = [prompt_of([0, 1, 2]), prompt_of([3, 3])]
    heads, bias = micro.heads.mean_outputs(prompts, -1)
    expected = torch.tensor([[[1 / 6, 1 / 6, 0, 0], [0, 0, 1 / 6, 1 / 2]]])
    torch.testing.assert_close(heads, expected)
    assert not bias.any()
    attention = micro.heads.attention(prompts)
    torch.testing.assert_close(attention[0], torch.full((1, 2, 3), 1 / 3))
    torch.testing.assert_close(attention[1], torch.full((1, 2, 2), 1 / 2))


def test_attribution_patching_is_exact_on_a_linear_model() -> None:
    """Two blocks or more: a head's output reaches the logits through later heads, too."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        random = AutoModelForCausalLM.from_config(config("llama"), attn_implementation="eager")
    model = hooked(linear(random))
    prompts = random_prompts(model, (6, 9))
    answers, rivals = [3, 4], [[5], [6]]
    z, gradient = model.heads.gradients(prompts, answers, rivals)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(model.n_layers, model.n_heads, model.d_head, generator=generator)
    estimate = ((values - z) * gradient).sum(dim=-1)
    edits = [
        Edit(layer, values[layer, head], "z", -1, head=head)
        for layer in range(model.n_layers)
        for head in range(model.n_heads)
    ]
    nothing = Edit(0, torch.zeros(model.d_model), mode="add")
    targets = [[a, *r] for a, r in zip(answers, rivals, strict=True)]
    logprob = model.evaluate(prompts, [nothing, *edits], targets).logprob
    difference = logprob[..., 0] - logprob[..., 1]
    exact = (difference[:, 1:] - difference[:, :1]).reshape(estimate.shape)
    assert exact.abs().max() > 0.1
    torch.testing.assert_close(estimate, exact, atol=1e-5, rtol=1e-4)
