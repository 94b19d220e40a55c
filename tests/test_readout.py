"""Reading the vocabulary slice by slice equals reading it whole; and a model worked by hand."""

import math
from typing import Any

import pytest
import torch
from plain import prompt_of, random_prompts
from tiny_models import tiny_bridge

from icl_mech.errors import InputError, NotFiniteError
from icl_mech.lens import logit_lens
from icl_mech.model import Edit, HookedModel, chunked_logits
from icl_mech.model.chunked_logits import Peaks
from icl_mech.model.network import Unembedding
from icl_mech.model.readout import _Mass, read
from icl_mech.patch import layer_scan


@pytest.mark.parametrize("chunk_bytes", [1, 5000, 2**30])
def test_slices_equal_the_whole(
    tiny: HookedModel, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chunked_logits.CHUNK_BYTES, "cpu", chunk_bytes)
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


def read_logits(
    logits: torch.Tensor, bias: torch.Tensor, cap: float, resid: torch.Tensor, *args: Any
) -> Any:
    """What `read` makes of given logits: rows of an unembedding that reads rows of the identity."""
    transform = (lambda x: cap * torch.tanh(x / cap)) if cap else (lambda x: x)
    made = Unembedding(lambda x: x, logits, bias, transform, logits.device)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Unembedding, "of", lambda _: made)
        return read(None, resid, *args)


@pytest.mark.parametrize("d_vocab", [1, 5, 64, 130, 1000])
@pytest.mark.parametrize("chunk_bytes", [1, 9000, 2**30])
@pytest.mark.parametrize("cap", [0.0, 5.0])
def test_all_that_is_read_equals_whole_rows(
    d_vocab: int, chunk_bytes: int, cap: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few different logits, so that most tie; some far below; tokens that cannot come at all."""
    monkeypatch.setitem(chunked_logits.CHUNK_BYTES, "cpu", chunk_bytes)
    rng, n = torch.Generator().manual_seed(d_vocab), 12
    logits = torch.randint(-4, 4, (n, d_vocab), generator=rng).float()
    logits[:3] *= 60
    logits[3] = torch.randn(d_vocab, generator=rng)
    bias = torch.zeros(d_vocab)
    if not cap:  # a whole chunk of them, the first
        bias[: d_vocab // 3] = -torch.inf
    rows = logits + bias
    rows = cap * torch.tanh(rows / cap) if cap else rows
    targets = torch.randint(d_vocab // 3, d_vocab, (n, 2), generator=rng)
    for k in {1, min(7, d_vocab), d_vocab}:
        found = read_logits(logits, bias, cap, torch.eye(n), targets, k, 1.0, True)
        order = rows.sort(dim=1, descending=True, stable=True)
        assert torch.equal(found.top, order.indices[:, 0])
        assert torch.equal(found.rank, order.indices.argsort(dim=1).gather(1, targets))
        assert torch.equal(found.tied, (rows == order.values[:, :1]).sum(dim=1) > 1)
        logprobs = rows.double().log_softmax(dim=1)
        expected = logprobs.gather(1, targets)
        torch.testing.assert_close(found.logprob.double(), expected, atol=1e-4, rtol=1e-6)
        expected = logprobs.gather(1, order.indices[:, :k])
        torch.testing.assert_close(found.best_logprob.double(), expected, atol=1e-4, rtol=1e-6)
        torch.testing.assert_close(logprobs.gather(1, found.best), expected)
        assert torch.equal(found.best[:, 0], found.top)
        entropy = torch.special.entr(logprobs.exp()).sum(dim=1)
        torch.testing.assert_close(found.entropy.double(), entropy, atol=1e-4, rtol=0)


@pytest.mark.parametrize("chunk_bytes", [1, 2**30])
@pytest.mark.parametrize("wrong", [torch.nan, torch.inf])
def test_one_logit_that_is_no_number(
    wrong: float, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chunked_logits.CHUNK_BYTES, "cpu", chunk_bytes)
    for token in (0, 70, 129):
        bias = torch.zeros(130)
        bias[token] = wrong
        targets = torch.tensor([[-1], [5]])
        with pytest.raises(NotFiniteError, match="logits that are not finite"):
            read_logits(torch.zeros(2, 130), bias, 0.0, torch.eye(2), targets, 3)


@pytest.mark.parametrize("chunk_bytes", [1, 5000, 2**30])
@pytest.mark.parametrize("k", [1, 7, 100])
def test_best_tokens_equal_those_of_whole_rows(
    tiny: HookedModel, chunk_bytes: int, k: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chunked_logits.CHUNK_BYTES, "cpu", chunk_bytes)
    prompts = random_prompts(tiny, (6, 9, 12))
    resid = tiny.final_residuals([[p] for p in prompts])[:, 0, -1]
    ours = tiny.read(resid, [[0]] * 3, k)
    assert ours.best is not None
    assert ours.best_logprob is not None
    for i, prompt in enumerate(prompts):
        with torch.inference_mode():
            logprobs = tiny.bridge(torch.tensor([prompt.tokens]))[0, -1].log_softmax(-1)
        expected = logprobs.topk(k)
        torch.testing.assert_close(ours.best_logprob[i], expected.values, atol=1e-4, rtol=0)
        # The same tokens in the same order, unless two are as good as equal.
        torch.testing.assert_close(logprobs[ours.best[i]], expected.values, atol=1e-4, rtol=0)
        assert len(set(ours.best[i].tolist())) == k
        assert ours.best[i, 0] == ours.top[i]
    plain = tiny.read(resid, [[0]] * 3)
    assert plain.best is None
    assert plain.best_logprob is None
    assert torch.equal(plain.logprob, ours.logprob)
    assert torch.equal(plain.rank, ours.rank)


@pytest.mark.parametrize("chunk_bytes", [1, 5000, 2**30])
def test_entropy_equals_that_of_whole_rows(
    tiny: HookedModel, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(chunked_logits.CHUNK_BYTES, "cpu", chunk_bytes)
    (prompt,) = random_prompts(tiny, (9,))
    stream = tiny.residual_stream([prompt], list(range(9)))[0, :, -1]
    with torch.inference_mode():
        p = tiny.bridge(torch.tensor([prompt.tokens]))[0].double().softmax(dim=-1)
    expected = -(p * p.log()).sum(dim=-1)
    ours = tiny.read(stream, [[-1]] * 9, entropy=True)
    assert ours.entropy is not None
    torch.testing.assert_close(ours.entropy.double(), expected, atol=1e-4, rtol=0)
    assert tiny.read(stream, [[-1]] * 9).entropy is None


def test_entropy_of_nothing_known_and_of_certainty(tiny_llama: HookedModel) -> None:
    """All logits equal; and a logit so far above the rest that their exponentials are no floats."""
    d_vocab = len(tiny_llama.vocabulary)
    even = tiny_llama.read(torch.zeros(1, tiny_llama.d_model), [[0]], entropy=True).entropy
    assert even is not None
    assert even.item() == pytest.approx(math.log(d_vocab), abs=1e-4)
    mass = _Mass.empty(torch.zeros(1), entropy=True)
    before = torch.tensor([-torch.inf])
    for part in (torch.zeros(1, 4), torch.full((1, 4), 1e4), torch.tensor([[3e4, 0.0]])):
        best = torch.maximum(before, part.amax(dim=1))
        mass.see(part, before, best, torch.empty(1, 4))
        before = best
    assert mass.total.item() == 1
    entropy = mass.entropy()
    assert entropy is not None
    assert entropy.item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("chunk_bytes", [1, 2**30])
def test_tokens_that_tie(chunk_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision every tenth row has two best tokens; one stands first everywhere."""
    monkeypatch.setitem(chunked_logits.CHUNK_BYTES, "cpu", chunk_bytes)
    bridge = tiny_bridge("llama", torch.bfloat16)
    model = HookedModel(bridge, "half")
    resid = torch.randn(400, model.d_model, generator=torch.Generator().manual_seed(0))
    for k in (1, 5):
        ours = model.read(resid, [[0]] * 400, k)
        assert torch.equal(ours.best[:, 0], ours.top)
        assert torch.equal(ours.top, model.read(resid, [[0]] * 400).top)
        assert all(len(set(row)) == k for row in ours.best.tolist())
        # As probable as their places say. (One by one logits are rounded as a row's are not.)
        again = model.read(resid, ours.best.tolist())
        torch.testing.assert_close(again.logprob, ours.best_logprob, atol=0.05, rtol=0)
    with torch.no_grad():
        bridge.unembed.original_component.weight.zero_()  # all tokens tie
    ours = model.read(resid, [[0]] * 400, 5)
    assert torch.equal(ours.best[:, 0], ours.top)
    assert all(len(set(row)) == 5 for row in ours.best.tolist())


@pytest.mark.parametrize("chunk_bytes", [1, 3000, 2**30])
def test_ranks_are_places_in_a_stable_order(
    chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Equal tokens stand in the order of their ids: in half precision, against whole rows."""
    monkeypatch.setitem(chunked_logits.CHUNK_BYTES, "cpu", chunk_bytes)
    bridge = tiny_bridge("llama", torch.bfloat16)
    model = HookedModel(bridge, "half")
    resid = torch.randn(600, model.d_model, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        hidden = bridge.ln_final(resid.to(torch.bfloat16)[None])[0]
        logits = (hidden @ bridge.unembed.W_U).float()
    order = logits.sort(dim=1, descending=True, stable=True).indices
    places = order.argsort(dim=1)
    targets = torch.stack([torch.arange(600) * 7 % 257, order[:, 0], order[:, 1]], dim=1)
    ours = model.read(resid, targets.tolist())
    assert torch.equal(ours.top, order[:, 0])
    assert torch.equal(ours.rank, places.gather(1, targets))
    assert torch.equal((ours.rank == 0).any(dim=1), ours.hit)
    two = logits.topk(2).values
    assert torch.equal(ours.tied, two[:, 0] == two[:, 1])
    assert 0 < int(ours.tied.sum()) < 60
    assert model.provenance()["readouts"] == {"n": 600, "tied": int(ours.tied.sum())}


@pytest.mark.parametrize(("n_logits", "share"), [(640, 0.002), (640, 0.5), (257, 0.3), (640, 0.0)])
def test_logits_above_a_bar_are_counted_by_blocks_and_as_a_whole(
    n_logits: int, share: float
) -> None:
    part = torch.randn(7, n_logits, generator=torch.Generator().manual_seed(0))
    bar = part.quantile(1 - share, dim=1)
    bar[0] = part[0].max()  # equal is not above
    found = Peaks.of(part, 0).n_above(bar, torch.empty(7, 1024))
    assert found.tolist() == (part > bar[:, None]).sum(dim=1).tolist()


def test_a_model_of_zeros_says_one_thing_to_the_lens_and_to_the_scan() -> None:
    bridge = tiny_bridge("llama")
    with torch.no_grad():
        bridge.unembed.original_component.weight.zero_()
    model = HookedModel(bridge, "zeros")
    settings = {"n_prompts": 4, "n_shots": 2, "progress": False}
    lens = logit_lens(model, "to_upper", **settings)
    scan = layer_scan(model, "to_upper", **settings)
    assert lens.curve("to_upper", value="rank1")[-1].value == 0
    assert scan.reference("to_upper", "regular").value == 0
    for result in (lens, scan):
        readouts = result.provenance["readouts"]
        assert readouts["tied"] == readouts["n"] > 0
        assert result.caveats()[0].startswith("ties: in 100% of")
    plain = logit_lens(HookedModel(tiny_bridge("llama"), "plain"), "to_upper", **settings)
    assert plain.provenance["readouts"]["tied"] == 0
    assert not any("ties" in caveat for caveat in plain.caveats())


def test_best_tokens_follow_their_rows(tiny_llama: HookedModel) -> None:
    resid = torch.randn(6, tiny_llama.d_model, generator=torch.Generator().manual_seed(0))
    ours = tiny_llama.read(resid, [[0]] * 6, 3)
    grid = ours.reshape(2, 3)
    assert torch.equal(grid.best[1, 2], ours.best[5])
    assert torch.equal(grid.take(torch.tensor([2, 0]), dim=1).best[0, 0], ours.best[2])
    again = type(ours).cat([ours.take(torch.tensor([0, 1])), ours.take(torch.tensor([2, 3, 4, 5]))])
    assert torch.equal(again.best, ours.best)
    assert torch.equal(again.best_logprob, ours.best_logprob)


@pytest.mark.parametrize("k", [-1, 300])
def test_best_tokens_that_are_not_there(tiny_llama: HookedModel, k: int) -> None:
    with pytest.raises(InputError, match=rf"n_best is {k}; expected 0 to 257, the vocabulary"):
        tiny_llama.read(torch.zeros(1, tiny_llama.d_model), [[0]], k)


@pytest.mark.parametrize("chunk_bytes", [1, 2**30])
def test_top_tokens_of_mean_log_probabilities(
    tiny: HookedModel, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The soft cap of Gemma 2 makes this another thing than the logits of a mean."""
    monkeypatch.setitem(chunked_logits.CHUNK_BYTES, "cpu", chunk_bytes)
    vectors = torch.randn(3, 4, tiny.d_model, generator=torch.Generator().manual_seed(0)) * 3
    d_vocab = tiny.bridge.cfg.d_vocab
    every = tiny.read(vectors.flatten(0, 1), [list(range(d_vocab))] * 12).logprob
    means = every.view(3, 4, d_vocab).mean(1)
    ours = tiny.vocabulary.top_tokens(vectors, 5)
    torch.testing.assert_close(ours.logprob, means.topk(5).values, atol=1e-4, rtol=0)
    torch.testing.assert_close(means.gather(1, ours.ids), ours.logprob, atol=1e-4, rtol=0)
    allowed = torch.zeros(d_vocab, dtype=torch.bool)
    allowed[100:140] = True
    few = tiny.vocabulary.top_tokens(vectors, 5, allowed)
    assert bool(((few.ids >= 100) & (few.ids < 140)).all())
    # Left out of the list, not of the probabilities.
    torch.testing.assert_close(few.logprob, means[:, 100:140].topk(5).values, atol=1e-4, rtol=0)
    with pytest.raises(InputError, match="40 tokens pass the filter; expected at least 41"):
        tiny.vocabulary.top_tokens(vectors, 41, allowed)


def test_words_are_letters_only(tiny_llama: HookedModel) -> None:
    words = tiny_llama.vocabulary.words()
    texts = [tiny_llama.to_string(i) for i in words.nonzero()[:, 0].tolist()]
    assert {"a", "Z"} <= set(texts)
    assert all(text.isalpha() for text in texts)
    assert len(words) == len(tiny_llama.vocabulary)


def test_residual_stream_is_what_enters_and_leaves_every_block(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, (6, 9, 12))
    ours = tiny.residual_stream(prompts, [2, -1])
    assert ours.shape == (3, 2, tiny.n_layers + 1, tiny.d_model)
    for i, prompt in enumerate(prompts):
        with torch.inference_mode():
            _, cache = tiny.bridge.run_with_cache(torch.tensor([prompt.tokens]))
        for j, at in enumerate((2, len(prompt) - 1)):
            stages = [cache["blocks.0.hook_resid_pre"][0, at]]
            stages += [cache[f"blocks.{x}.hook_resid_post"][0, at] for x in range(tiny.n_layers)]
            torch.testing.assert_close(ours[i, j], torch.stack(stages), atol=1e-4, rtol=1e-4)


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
