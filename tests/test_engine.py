"""The engine against the plain way, for every family: the identities that everything rests on."""

import numpy as np
import pytest
import torch
from plain import assert_same, plain_logprobs, prompt_of, random_prompts
from tiny_models import tiny_bridge

from icl_mech.errors import InputError, ModelError, NotFiniteError
from icl_mech.model import SITES, Edit, HookedModel
from icl_mech.model.batching import MemoryWarning, runs
from icl_mech.model.edits import ORDER
from icl_mech.prompts import Prompt

LENGTHS = (9, 12, 5, 9)


def sites_of(model: HookedModel) -> list[str]:
    parallel = "blocks.0.hook_resid_mid" not in model.bridge.hook_dict
    return [s for s in SITES if not (parallel and s == "resid_mid")]


def some_edits(model: HookedModel, position: int, n_prompts: int) -> list[Edit]:
    """Every site, at the first, a middle and the last block, replaced and added."""
    generator = torch.Generator().manual_seed(1)
    edits = []
    for site in sites_of(model):
        for layer in (0, 2, model.n_layers - 1):
            for mode in ("replace", "add"):
                width = model.d_head if site == "z" else model.d_model
                shape = (n_prompts, width) if layer == 2 else (width,)
                value = torch.randn(shape, generator=generator)
                head = 1 if site == "z" else None
                edits.append(Edit(layer, value, site, position, mode, scale=1.5, head=head))
    return edits


@pytest.mark.parametrize("position", [-1, -4, 0])
def test_edits_equal_one_full_forward_each(tiny: HookedModel, position: int) -> None:
    prompts = random_prompts(tiny, LENGTHS)
    assert_same(tiny, prompts, some_edits(tiny, position, len(prompts)))


def test_edits_at_several_positions_in_one_call(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, LENGTHS)
    edits = [e for p in (-1, -3, 1) for e in some_edits(tiny, p, len(prompts))[::3]]
    assert_same(tiny, prompts, edits)


def test_edits_applied_together(tiny: HookedModel) -> None:
    """Any mix of sites, blocks and tokens in one branch, beside branches of one edit."""
    prompts = random_prompts(tiny, LENGTHS)
    singles = [e for p in (-1, -3) for e in some_edits(tiny, p, len(prompts))]
    generator = torch.Generator().manual_seed(2)
    together = []
    for size in (2, 3, 5, 8):
        for _ in range(4):
            chosen = torch.randperm(len(singles), generator=generator)[:size].tolist()
            # Hooks on one forward run in the order of the stream; so do ours.
            together.append(sorted((singles[i] for i in chosen), key=lambda e: ORDER.index(e.site)))
    assert_same(tiny, prompts, [*together, *singles[::5]])


def test_between_attention_and_mlp_is_the_residual_stream(tiny: HookedModel) -> None:
    """Adding there is adding to what attention adds; replacing leaves nothing from below."""
    if "resid_mid" not in sites_of(tiny):
        pytest.skip("attention and MLP run in parallel")
    (prompt,) = random_prompts(tiny, (7,))
    vector = torch.randn(tiny.d_model, generator=torch.Generator().manual_seed(0))
    for layer in range(tiny.n_layers):
        added = [Edit(layer, vector, site, -1, "add") for site in ("resid_mid", "attn_out")]
        replaced = [
            [Edit(layer, 3 * vector, "resid_pre", -1), Edit(layer, vector, "resid_mid", -1)],
            [Edit(layer, vector, "resid_mid", -1)],
        ]
        logprob = tiny.evaluate([prompt], [*added, *replaced], [[1]]).logprob[0, :, 0]
        torch.testing.assert_close(logprob[0], logprob[1], atol=1e-4, rtol=0)
        torch.testing.assert_close(logprob[2], logprob[3], atol=1e-4, rtol=0)


def test_a_branch_after_the_last_block(tiny: HookedModel) -> None:
    """What stood there is read only where it is not replaced as a whole."""
    prompts = random_prompts(tiny, LENGTHS)
    one = torch.ones(tiny.d_model)
    last = tiny.n_layers - 1
    assert_same(tiny, prompts, [[Edit(last, one), Edit(last, one, mode="add", scale=0.5)]])
    assert_same(tiny, prompts, [[Edit(last, one, position=-2), Edit(last, one, mode="add")]])


def test_no_edits_to_apply_together(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="empty sequence of edits"):
        tiny_llama.evaluate(random_prompts(tiny_llama, (6,)), [[]], [[1]])


def test_prompts_as_long_as_what_was_verified(tiny: HookedModel) -> None:
    """Tables of positions end at a multiple of 32; short and long suffixes share a batch."""
    fresh = HookedModel(tiny.bridge, "fresh")
    prompts = random_prompts(fresh, (32, 32, 20))
    at = (30, 3, 19)
    value = torch.ones(fresh.d_model)
    # One role, at another index in every prompt.
    named = [
        Prompt("", p.tokens, tuple("here" if i == a else "" for i in range(len(p))))
        for p, a in zip(prompts, at, strict=True)
    ]
    readout = fresh.evaluate(named, [Edit(1, value, position="here")], [[5]] * 3)
    for i, prompt in enumerate(prompts):
        expected = plain_logprobs(fresh, prompt, Edit(1, value, position=at[i]))
        assert abs(readout.logprob[i, 0, 0] - expected[5]) < 1e-4
    tails = random_prompts(fresh, (2, 2, 15, 1), seed=2)
    heads = random_prompts(fresh, (30, 12), seed=3)
    groups = [[prompt_of(heads[i // 2].tokens + t.tokens)] for i, t in enumerate(tails)]
    together = fresh.final_residuals(groups)
    for g, group in enumerate(groups):
        alone = fresh.final_residuals([group])[0]
        torch.testing.assert_close(together[g], alone, atol=1e-4, rtol=1e-4)


def test_batched_equals_one_by_one(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, (4, 17, 9, 30, 4))
    edits = some_edits(tiny, -2, 1)
    edits = [Edit(e.layer, e.value.reshape(-1), e.site, -2, e.mode, head=e.head) for e in edits]
    answers = [[3]] * len(prompts)
    together = tiny.evaluate(prompts, edits, answers)
    for i, prompt in enumerate(prompts):
        alone = tiny.evaluate([prompt], edits, [[3]])
        torch.testing.assert_close(together.logprob[i], alone.logprob[0], atol=1e-4, rtol=0)


def test_residuals_equal_run_with_cache(tiny: HookedModel) -> None:
    shared = random_prompts(tiny, (7, 11, 3))
    tails = random_prompts(tiny, (2, 5, 1, 3, 4, 2, 1, 1, 6), seed=1)
    groups = [
        [prompt_of(s.tokens + t.tokens) for t in tails[3 * i : 3 * i + 3]]
        for i, s in enumerate(shared)
    ]
    ours = tiny.final_residuals(groups)
    assert ours.shape == (3, 3, tiny.n_layers, tiny.d_model)
    for g, group in enumerate(groups):
        for b, prompt in enumerate(group):
            _, cache = tiny.bridge.run_with_cache(torch.tensor([prompt.tokens]))
            for layer in range(tiny.n_layers):
                expected = cache[f"blocks.{layer}.hook_resid_post"][0, -1]
                torch.testing.assert_close(ours[g, b, layer], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("site", SITES)
def test_capture_equals_run_with_cache(tiny: HookedModel, site: str) -> None:
    if site not in sites_of(tiny):
        pytest.skip("attention and MLP run in parallel")
    prompts = random_prompts(tiny, (6, 10))
    ours = tiny.capture(prompts, [0, -2], site)
    for p, prompt in enumerate(prompts):
        _, cache = tiny.bridge.run_with_cache(torch.tensor([prompt.tokens]))
        for r, role in enumerate((0, -2)):
            for layer in range(tiny.n_layers):
                name = "attn.hook_z" if site == "z" else f"hook_{site}"
                expected = cache[f"blocks.{layer}.{name}"][0, role]
                torch.testing.assert_close(ours[p, r, layer], expected, atol=1e-4, rtol=1e-4)


def test_patching_an_activation_with_itself_changes_nothing(tiny: HookedModel) -> None:
    prompts = random_prompts(tiny, LENGTHS)
    answers = [[1], [2], [3], [4]]
    clean = [float(plain_logprobs(tiny, p)[a[0]]) for p, a in zip(prompts, answers, strict=True)]
    for site in sites_of(tiny):
        own = tiny.capture(prompts, [-3], site)[:, 0]
        heads = range(tiny.n_heads) if site == "z" else [None]
        edits = [
            Edit(layer, own[:, layer] if head is None else own[:, layer, head], site, -3, head=head)
            for layer in range(tiny.n_layers)
            for head in heads
        ]
        readout = tiny.evaluate(prompts, edits, answers)
        expected = torch.tensor(clean)[:, None].expand(-1, len(edits))
        torch.testing.assert_close(readout.logprob[..., 0], expected, atol=1e-4, rtol=0)


def test_last_residual_of_another_prompt_brings_its_logits(tiny: HookedModel) -> None:
    source, target = random_prompts(tiny, (9, 14))
    resid = tiny.final_residuals([[source]])[0, 0, -1]
    readout = tiny.evaluate([target], [Edit(-1, resid)], [[5, 6]])
    expected = plain_logprobs(tiny, source)[[5, 6]]
    torch.testing.assert_close(readout.logprob[0, 0], expected, atol=1e-4, rtol=0)


def test_any_batch_size_gives_the_same(tiny_llama: HookedModel) -> None:
    prompts = random_prompts(tiny_llama, LENGTHS)
    edits = some_edits(tiny_llama, -2, len(prompts))
    answers = [[3]] * len(prompts)
    reference = tiny_llama.evaluate(prompts, edits, answers)
    for tokens in (1, 7, 40):
        small = HookedModel(tiny_llama.bridge, "small batches", batch_tokens=tokens)
        readout = small.evaluate(prompts, edits, answers)
        torch.testing.assert_close(readout.logprob, reference.logprob, atol=1e-4, rtol=0)
        assert torch.equal(readout.top, reference.top)


def test_out_of_memory_halves_the_batch_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = HookedModel(tiny_bridge("llama"), "tight", batch_tokens=64)
    prompts = random_prompts(model, LENGTHS)
    model.final_residuals([[p] for p in prompts])  # verification runs a prompt of its own length
    edit = Edit(1, torch.ones(model.d_model))
    expected = model.evaluate(prompts, [edit], [[3]] * 4)
    block = type(model._engine.blocks).block

    def tight(self: object, layer: int, hidden: torch.Tensor, *rest: object) -> torch.Tensor:
        if hidden.shape[:2].numel() > 16:
            raise RuntimeError("CUDA out of memory. Tried to allocate 1 GiB")
        return block(self, layer, hidden, *rest)

    monkeypatch.setattr(type(model._engine.blocks), "block", tight)
    with pytest.warns(MemoryWarning, match="out of memory: from now on, batches of"):
        readout = model.evaluate(prompts, [edit], [[3]] * 4)
    torch.testing.assert_close(readout.logprob, expected.logprob, atol=1e-4, rtol=0)
    assert model.provenance()["batch_tokens"] == 16
    assert model.provenance()["batch_halvings"] == 2


def test_runs_fill_up_to_the_limit() -> None:
    assert [(s.start, s.stop) for s in runs([3, 3, 4, 9], 10)] == [(0, 2), (2, 3), (3, 4)]
    assert [(s.start, s.stop) for s in runs([20], 10)] == [(0, 1)]
    assert list(runs([], 10)) == []


def test_double_precision_is_double_all_the_way() -> None:
    model = HookedModel(tiny_bridge("llama", torch.float64), "tiny double")
    prompts = random_prompts(model, (5, 8))
    edits = [Edit(1, torch.randn(model.d_model, dtype=torch.float64))]
    readout = model.evaluate(prompts, edits, [[1], [2]])
    assert readout.logprob.dtype == torch.float64
    with torch.inference_mode():
        resid = model.final_residuals([[p] for p in prompts])[:, 0, -1]
        logits = model.bridge(torch.tensor([prompts[0].tokens]))[0, -1].log_softmax(-1)
    ours = model.read(resid, [[1], [2]]).logprob
    # Transformers makes rotary tables in float32, whose last bit depends on the table's length.
    assert abs(ours[0, 0] - logits[1]) < 1e-6


@pytest.mark.parametrize("family", ["gemma3", "olmo", "olmo2"])
def test_half_precision_runs(family: str) -> None:
    model = HookedModel(tiny_bridge(family, torch.bfloat16), "tiny bf16")
    prompts = random_prompts(model, (5, 8))
    edits = [Edit(layer, torch.randn(model.d_model)) for layer in range(model.n_layers)]
    assert_same(model, prompts, edits, tolerance=0.3)


def test_no_gradients_are_kept(tiny_llama: HookedModel) -> None:
    prompts = random_prompts(tiny_llama, (5,))
    resid = tiny_llama.final_residuals([prompts])
    assert not resid.requires_grad
    assert not tiny_llama.capture(prompts, [-1]).requires_grad
    resid[0, 0, 0] += 1  # plain tensors, which a caller may go on working with
    (resid.requires_grad_() * 2).sum().backward()


def test_a_family_that_cannot_be_replayed_is_refused() -> None:
    model = HookedModel(tiny_bridge("bloom"), "tiny-bloom")  # its positions live in an ALiBi mask
    with pytest.raises(
        ModelError, match="Bloom.* block by block: its blocks take 'alibi'.*'plain'"
    ):
        model.evaluate(random_prompts(model, (6,)), [Edit(0, torch.ones(32))], [[1]])


def test_a_model_that_returns_nan_is_refused() -> None:
    bridge = tiny_bridge("llama")
    model = HookedModel(bridge, "broken")
    prompts = random_prompts(model, (6,))
    with torch.no_grad():
        bridge.blocks[2].mlp.out.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match="not finite numbers"):
        model.evaluate(prompts, [Edit(0, torch.ones(model.d_model))], [[1]])


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(9, torch.ones(32)), "layer 9 out of range: expected 0 to 3"),
        (Edit(0, torch.ones(8), "z", head=4), "head 4 out of range: expected 0 to 3"),
        (Edit(0, torch.ones(31)), "a value of 31 numbers at 'resid_post'; expected 32"),
        (Edit(0, torch.ones(3, 32)), "3 values for 1 prompts"),
        (
            Edit(2, torch.full((32,), torch.nan), "attn_out"),
            r"Edit\(attn_out, block 2, .* writes NaN or infinity; expected finite numbers",
        ),
        (Edit(0, torch.ones(32), scale=float("inf")), "writes NaN or infinity"),
    ],
)
def test_edits_that_do_not_fit(tiny_llama: HookedModel, edit: Edit, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_llama.evaluate(random_prompts(tiny_llama, (6,)), [edit], [[1]])


@pytest.mark.parametrize("number", [np.int64, np.uint8, torch.tensor])
def test_tokens_are_counted_by_any_whole_number(tiny_llama: HookedModel, number: type) -> None:
    prompts = random_prompts(tiny_llama, (6, 8))
    edit = Edit(2, torch.ones(tiny_llama.d_model), position=number(3))
    assert edit.position == 3
    assert type(edit.position) is int
    assert_same(tiny_llama, prompts, [edit])
    for capture in (tiny_llama.capture, tiny_llama.residual_stream):
        assert torch.equal(capture(prompts, [number(3)]), capture(prompts, [3]))
    ours = tiny_llama.heads.mean_outputs(prompts, number(3))[0]
    assert torch.equal(ours, tiny_llama.heads.mean_outputs(prompts, 3)[0])


@pytest.mark.parametrize("answers", [[], [[1]], [[1], [2], [3]]])
def test_as_many_answers_as_prompts(tiny_llama: HookedModel, answers: list[list[int]]) -> None:
    prompts = random_prompts(tiny_llama, (6, 8))
    one = torch.ones(tiny_llama.d_model)
    for ask in (
        lambda: tiny_llama.predict(prompts, answers),
        lambda: tiny_llama.evaluate(prompts, [Edit(0, one)], answers),
        lambda: tiny_llama.read(torch.stack([one, one]), answers),
    ):
        with pytest.raises(InputError, match=rf"{len(answers)} rows of answers for 2 prompts"):
            ask()
    with pytest.raises(InputError, match=rf"{len(answers)} answers and 2 sets of rivals for 2"):
        tiny_llama.heads.gradients(prompts, [1] * len(answers))


@pytest.mark.parametrize("token", [257, -2])
def test_answers_that_are_no_tokens(tiny_llama: HookedModel, token: int) -> None:
    with pytest.raises(InputError, match=rf"answer token {token}; expected 0 to 256"):
        tiny_llama.predict(random_prompts(tiny_llama, (6,)), [[1, token]])


def test_no_prompts(tiny_llama: HookedModel) -> None:
    for ask in (
        lambda: tiny_llama.capture([], [-1]),
        lambda: tiny_llama.residual_stream([], [-1]),
        lambda: tiny_llama.heads.attention([]),
    ):
        with pytest.raises(InputError, match="no prompts; expected at least one"):
            ask()


def test_a_text_that_ends_at_nothing(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="stop is empty; expected text that ends an answer"):
        tiny_llama.generate(random_prompts(tiny_llama, (6,)), stop="")


def test_training_mode_is_refused() -> None:
    """Its dropout: every run another, and none wrong enough to be noticed."""
    bridge = tiny_bridge("gpt2")
    model = HookedModel(bridge, "training")
    prompts = random_prompts(model, (6,))
    before = model.predict(prompts, [[1]]).logprob
    bridge.train()
    for ask in (
        lambda: model.predict(prompts, [[1]]),
        lambda: model.capture(prompts, [-1]),
        lambda: model.generate(prompts),
        lambda: model.heads.gradients(prompts, [1]),
    ):
        with pytest.raises(InputError, match="in training mode.*call .eval"):
            ask()
    bridge.eval()
    assert torch.equal(model.predict(prompts, [[1]]).logprob, before)


@pytest.mark.parametrize("broken", ["outputs", "gradients"])
def test_gradients_that_are_not_numbers(broken: str) -> None:
    bridge = tiny_bridge("llama")
    with torch.no_grad():
        (bridge.blocks[2].mlp.out if broken == "outputs" else bridge.unembed).weight[0] = torch.nan
    model = HookedModel(bridge, "broken")
    with pytest.raises(NotFiniteError, match="are not finite numbers"):
        model.heads.gradients(random_prompts(model, (6,)), [1])


def test_heads_belong_to_z() -> None:
    with pytest.raises(InputError, match="`head` belongs to site 'z'"):
        Edit(0, torch.ones(4), "attn_out", head=1)
    with pytest.raises(InputError, match="`head` belongs to site 'z'"):
        Edit(0, torch.ones(4), "z")


def test_a_site_that_the_family_lacks_is_named() -> None:
    model = HookedModel(tiny_bridge("gpt_neox"), "tiny-neox")
    with pytest.raises(InputError, match="no site 'resid_mid'.*Choose from: resid_pre, resid_post"):
        model.evaluate(random_prompts(model, (6,)), [Edit(0, torch.ones(32), "resid_mid")], [[1]])


def test_a_prompt_longer_than_the_model_reads(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="257 tokens; the model reads at most 256"):
        tiny_llama.final_residuals([random_prompts(tiny_llama, (257,))])


def test_prompts_that_share_nothing(tiny_llama: HookedModel) -> None:
    with pytest.raises(InputError, match="share no first token"):
        tiny_llama.final_residuals([[prompt_of([1, 2]), prompt_of([2, 2])]])
