"""Reading the vocabulary slice by slice equals reading it whole; and a model worked by hand."""

import math

import pytest
import torch
from plain import prompt_of, random_prompts
from tiny_models import tiny_bridge

from icl_mech.model import Edit, HookedModel, readout


@pytest.mark.parametrize("slice_bytes", [1, 5000, 2**30])
def test_slices_equal_the_whole(
    tiny: HookedModel, slice_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(readout.SLICE_BYTES, "cpu", slice_bytes)
    prompts = random_prompts(tiny, (6, 9, 12))
    resid = tiny.final_residuals([[p] for p in prompts])[:, 0, -1]
    ours = tiny.read(resid, [[0, 7], [200], [256, 1]])
    for i, (prompt, ids) in enumerate(zip(prompts, ([0, 7], [200], [256, 1]), strict=True)):
        with torch.inference_mode():
            logprobs = tiny.bridge(torch.tensor([prompt.tokens]))[0, -1].log_softmax(-1)
        assert ours.top[i] == logprobs.argmax()
        for j, token in enumerate(ids):
            assert abs(ours.logprob[i, j] - logprobs[token]) < 1e-4
            assert ours.rank[i, j] == (logprobs > logprobs[token]).sum()
    assert torch.isnan(ours.logprob[1, 1])
    assert ours.rank[1, 1] == -1


def test_probabilities_of_all_tokens_sum_to_one(tiny: HookedModel) -> None:
    resid = torch.randn(2, tiny.d_model)
    d_vocab = tiny.bridge.cfg.d_vocab
    ours = tiny.read(resid, [list(range(d_vocab))] * 2)
    torch.testing.assert_close(ours.logprob.exp().sum(-1), torch.ones(2), atol=1e-4, rtol=0)
    assert sorted(ours.rank[0].tolist()) == list(range(d_vocab))
    assert ours.rank[0, ours.top[0]] == 0


def test_a_model_worked_by_hand() -> None:
    """Blocks that add nothing; unembedding rows (1,0,...), (0,1,...), (1,1,...), zeros beyond."""
    bridge = tiny_bridge("llama")
    with torch.no_grad():
        for block in bridge.blocks:
            block.attn.o.weight.zero_()
            block.mlp.out.weight.zero_()
        bridge.ln_final.weight.fill_(1.0)
        w_u = bridge.unembed.original_component.weight
        w_u.zero_()
        w_u[0, 0] = w_u[1, 1] = w_u[2, 0] = w_u[2, 1] = 1.0
    model = HookedModel(bridge, "by hand")
    value = torch.zeros(32)
    value[:2] = torch.tensor([3.0, 4.0])
    # RMS norm: sqrt((9 + 16) / 32) = 5 / sqrt(32), so the stream becomes sqrt(32) * (.6, .8, 0...)
    a, b = 0.6 * math.sqrt(32), 0.8 * math.sqrt(32)
    total = math.log(math.exp(a) + math.exp(b) + math.exp(a + b) + 254)
    prompt = prompt_of([5, 6, 7])
    edits = [Edit(layer, value, "resid_post") for layer in range(4)]
    edits += [Edit(0, value * 2, "resid_pre", scale=0.5)]
    ours = model.evaluate([prompt], edits, [[0, 1, 2]])
    expected = torch.tensor([a - total, b - total, a + b - total])
    for i in range(len(edits)):
        torch.testing.assert_close(ours.logprob[0, i], expected, atol=1e-4, rtol=0)
        assert ours.top[0, i] == 2
        assert ours.rank[0, i].tolist() == [2, 1, 0]
