"""TransformerLens's hooks in every family: each edit does what plain Transformers would do."""

import re
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Any

import pytest
import torch
from family_reference import reference_logprobs, sites
from family_table import README, table, written
from plain import prompt_of
from tiny_models import D_VOCAB, EVERY_FAMILY, bridged, random_model
from torch import Tensor
from transformers import PreTrainedModel

from icl_mech import TaskVector
from icl_mech.errors import InputError, ModelError
from icl_mech.model import SITES, Edit, HookedModel
from icl_mech.model.choosing import choose_engine
from icl_mech.model.edits import HOOKS

TOLERANCE = 1e-4
#: TransformerLens makes no bridge of these: what it says.
UNBRIDGED = {
    # It takes a new-style Falcon to have one key and value head where `multi_query` is set (as in
    # Falcon 40B and 11B), and cuts queries, keys and values as if they were not in groups.
    "falcon_new": "split_with_sizes expects split_sizes to sum exactly",
}
#: Hooks that are not where the site's name says, so that the site is refused.
MISPLACED = {
    # The hook is before the block multiplies by `attention_out_multiplier`.
    ("falcon_h1", "attn_out"),
    # `ln2` is the norm after the MLP, so that this hook sees the stream after both.
    ("opt_350m", "resid_mid"),
}
#: These run on the plain engine: why the shared one does not.
NOT_SHARED = {
    "falcon": "wraps Falcon's blocks",
    "falcon_alibi": "wraps Falcon's blocks",
    "bloom": "'alibi', which depends on the tokens",
    "mpt": "'position_bias', which depends on the tokens",
    "opt_350m": "norms come after attention and MLP",
    "llama4": "sees chunks of a prompt",
    "mamba": "block 0 has no attention",
    "mamba2": "block 0 has no attention",
    "jamba": "block 0 has no attention",
    "qwen3_next": "block 0 has no attention",
    "falcon_h1": "state-space mixer .Mamba. beside attention",
}
BRIDGED = [family for family in EVERY_FAMILY if family not in UNBRIDGED]
TOKENS = torch.randint(D_VOCAB - 1, (2, 20), generator=torch.Generator().manual_seed(1))
TOKENS[:, 0] = D_VOCAB - 1  # the first is the end of text, which is the padding token too
PROMPT = TOKENS[0, :14].tolist()


@cache
def plain(family: str) -> PreTrainedModel:
    """The family's model, never in a bridge."""
    return random_model(family)


@cache
def bridge(family: str) -> Any:
    """A bridge round the same model."""
    return bridged(random_model(family), f"tiny-{family}")


@cache
def model(family: str, engine: str = "auto") -> HookedModel:
    """The same model on an engine."""
    chosen, reason = choose_engine(bridge(family), engine)
    return HookedModel(bridge(family), family, engine=chosen, engine_reason=reason)


def edits_of(family: str, layer: int) -> list[Edit]:
    """One edit of each mode at every site of a block, at a token that the last one sees."""
    c = bridge(family).cfg
    at = len(PROMPT) - (1 if layer == c.n_layers - 1 else 3)
    generator = torch.Generator().manual_seed(layer)
    edits: list[Edit] = []
    for site in sites(plain(family), layer):
        head, d = (1, c.d_head) if site == "z" else (None, c.d_model)
        for mode in ("replace", "add"):
            value = torch.randn(d, generator=generator)
            edits.append(Edit(layer, value, site, at, mode, scale=2.0, head=head))
    return edits


def middle(family: str) -> list[int]:
    """Two blocks in the middle: one of each kind where a family mixes two."""
    half = bridge(family).cfg.n_layers // 2
    return [half - 1, half]


@pytest.mark.parametrize("family", UNBRIDGED)
def test_families_without_a_bridge(family: str) -> None:
    with pytest.raises(RuntimeError, match=UNBRIDGED[family]):
        bridge(family)


def skip_what_transformer_lens_computes_otherwise(family: str) -> None:
    if family == "cohere" and version("transformer-lens").startswith("3."):
        pytest.skip("TransformerLens 3 computes Cohere otherwise; load_model refuses it there")


@pytest.mark.parametrize("family", BRIDGED)
def test_a_bridge_computes_what_the_model_does(family: str) -> None:
    skip_what_transformer_lens_computes_otherwise(family)
    ours = bridge(family)
    with torch.no_grad():
        both = [m(TOKENS) for m in (ours, plain(family))]
    logprobs = [getattr(out, "logits", out).log_softmax(dim=-1) for out in both]
    torch.testing.assert_close(*logprobs, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", BRIDGED)
def test_a_block_has_the_hooks_of_its_sites(family: str) -> None:
    for layer in range(bridge(family).cfg.n_layers):
        hooks = {
            site for site, name in HOOKS.items() if name.format(layer) in bridge(family).hook_dict
        }
        misplaced = {site for misplaced, site in MISPLACED if misplaced == family}
        assert hooks == set(sites(plain(family), layer)) | misplaced


@pytest.mark.parametrize("family", BRIDGED)
def test_a_task_vector_in_every_family(family: str) -> None:
    """Inside `apply`, as one hook of TransformerLens, on the engine, and in plain Transformers."""
    skip_what_transformer_lens_computes_otherwise(family)
    ours = model(family)
    layer, at, ids = ours.n_layers // 2, len(PROMPT) - 1, torch.tensor([PROMPT])
    values = torch.randn(ours.n_layers, ours.d_model, generator=torch.Generator().manual_seed(0))
    said = {"weights_sha256": ours.weight_hash}
    made = TaskVector("v", values, tuple(range(ours.n_layers)), layer, scale=0.7, provenance=said)
    for mode in ("replace", "add"):
        tv = made.written(mode=mode)

        def write(stream: Tensor, hook: Any, mode: str = mode) -> Tensor:
            stream = stream.clone()
            stream[:, -1] = values[layer] * 0.7 + (stream[:, -1] if mode == "add" else 0)
            return stream

        hooks = [(f"blocks.{layer}.hook_resid_post", write)]
        with torch.no_grad():
            expected = ours.bridge.run_with_hooks(ids, fwd_hooks=hooks)[0, -1].log_softmax(dim=-1)
            with tv.apply(ours):
                applied = ours.bridge(ids)[0, -1].log_softmax(dim=-1)
        assert torch.equal(applied, expected)
        reference = reference_logprobs(plain(family), PROMPT, tv.edit(at=at))
        torch.testing.assert_close(applied, reference, atol=TOLERANCE, rtol=0)
        every = [list(range(D_VOCAB))]
        engine = ours.evaluate([prompt_of(PROMPT)], [tv], every).logprob[0, 0]
        torch.testing.assert_close(engine, expected, atol=TOLERANCE, rtol=0)


# --- both engines ---------------------------------------------------------------------------

#: Every family on the plain engine, and those that the shared one runs on it.
ENGINES = [
    pytest.param(family, engine, marks=[] if family in NOT_SHARED else pytest.mark.slow)
    for family in BRIDGED
    for engine in ("shared", "plain")
    if engine == "plain" or family not in NOT_SHARED
]


@pytest.mark.parametrize("family", BRIDGED)
def test_the_engine_that_runs_a_family(family: str) -> None:
    chosen = model(family)
    assert chosen.engine == ("plain" if family in NOT_SHARED else "shared")
    if family in NOT_SHARED:
        assert re.search(NOT_SHARED[family], chosen.engine_reason)
        with pytest.raises(ModelError, match=f"{NOT_SHARED[family]}.*engine='plain' runs it"):
            choose_engine(bridge(family), "shared")


PROMPTS = [PROMPT, PROMPT[:11]]
ANSWERS = [[1, 200], [3, 4]]


@cache
def edits(family: str) -> list[Edit]:
    """Every site of two blocks, counted from the prompts' ends."""
    return [
        replace(edit, position=edit.position - len(PROMPT))
        for layer in middle(family)
        for edit in edits_of(family, layer)
        if (family, edit.site) not in MISPLACED
    ]


@cache
def references(family: str) -> Tensor:
    """Log probabilities of the answers by plain Transformers, `[prompt, edit, answer]`."""
    found = [
        [reference_logprobs(plain(family), prompt, edit)[of] for edit in (None, *edits(family))]
        for prompt, of in zip(PROMPTS, ANSWERS, strict=True)
    ]
    return torch.stack([torch.stack(of_prompt) for of_prompt in found])


@pytest.mark.parametrize(("family", "engine"), ENGINES)
def test_edits_of_an_engine_equal_plain_transformers(family: str, engine: str) -> None:
    """Prompts of two lengths in one batch, every edit of both beside the prompts as they are."""
    prompts = [prompt_of(p) for p in PROMPTS]
    found = model(family, engine).evaluate(prompts, [None, *edits(family)], ANSWERS).logprob
    torch.testing.assert_close(found, references(family), atol=TOLERANCE, rtol=0)
    acted = (references(family)[:, 1:] - references(family)[:, :1]).abs().amax(dim=(0, 2))
    assert (acted > 10 * TOLERANCE).all()  # no edit did nothing


@pytest.mark.parametrize(("family", "engine"), ENGINES)
def test_gradients_of_edits_equal_autograd_of_the_whole_model(family: str, engine: str) -> None:
    """Several sites of two blocks, replaced and added; then other values, one of them per prompt.

    Weights of state-space models act on the whole prompt, so these run it whole.
    """
    skip_what_transformer_lens_computes_otherwise(family)
    chosen, answers = edits(family)[1::3], [of[0] for of in ANSWERS]
    ready = model(family, engine).answer_gradients([prompt_of(p) for p in PROMPTS], chosen, answers)
    for values in (None, [edit.value.expand(2, -1) + 0.5 for edit in chosen]):
        found = ready.at(values)
        for e, edit in enumerate(chosen):
            for p, prompt in enumerate(PROMPTS):
                value = edit.value if values is None else values[e][p]
                leaf = value.clone().requires_grad_()
                written = replace(edit, value=leaf, position=edit.position + len(prompt))
                expected = reference_logprobs(plain(family), prompt, written)[answers[p]]
                (gradient,) = torch.autograd.grad(expected, leaf)
                assert gradient.norm() > 1e-4
                torch.testing.assert_close(found.logprob[p, e], expected, atol=TOLERANCE, rtol=0)
                off = (found.gradients[e][p] - gradient).norm() / gradient.norm()
                assert off < 1e-3, (edit, p)


@pytest.mark.parametrize("family", NOT_SHARED)
def test_what_the_plain_engine_writes_and_scores(family: str) -> None:
    """Greedy text, and the probability of whole answers, with an edit in place."""
    ours, prompts = model(family, "plain"), PROMPTS
    edit = Edit(1, torch.full((ours.d_model,), 0.5), position=-3)
    placed = [prompt_of(p) for p in prompts]
    texts = ours.generate(placed, [None, edit], 3, stop="no such text")
    continuations = [[[5, 6, 7], [8]], [[9, 10]]]
    scores = ours.sequence_logprob(placed, continuations, [None, edit])
    for p, prompt in enumerate(prompts):
        for e, change in enumerate((None, replace(edit, position=len(prompt) - 3))):
            said = _greedy(family, prompt, None if e == 0 else change, 3)
            assert texts[p][e].tokens == tuple(said)
            for c, tokens in enumerate(continuations[p]):
                total = sum(
                    float(_logprobs(family, [*prompt, *tokens[:i]], e and change)[token])
                    for i, token in enumerate(tokens)
                )
                assert abs(float(scores[p, e, c]) - total) < 1e-3
    assert scores[1, :, 1].isnan().all()


def _logprobs(family: str, tokens: list[int], edit: Edit | int | None) -> Tensor:
    return reference_logprobs(plain(family), tokens, edit if isinstance(edit, Edit) else None)


def _greedy(family: str, prompt: list[int], edit: Edit | None, n: int) -> list[int]:
    """The most probable tokens, up to the end of the text."""
    tokens = list(prompt)
    for _ in range(n):
        tokens.append(int(_logprobs(family, tokens, edit).argmax()))
        if tokens[-1] == D_VOCAB - 1:
            return tokens[len(prompt) : -1]
    return tokens[len(prompt) :]


@pytest.mark.slow
@pytest.mark.parametrize("family", [f for f in BRIDGED if f not in NOT_SHARED])
def test_engines_read_the_same(family: str) -> None:
    """Captures, residual streams, attention, gradients of heads, texts and their scores."""
    prompts = [prompt_of(p) for p in (PROMPT, PROMPT[:11], PROMPT[:5])]
    one, other = (model(family, engine) for engine in ("shared", "plain"))
    for site in SITES:
        if all(site in sites(plain(family), layer) for layer in range(one.n_layers)):
            both = [m.capture(prompts, [0, -2], site) for m in (one, other)]
            torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)
    groups = [[prompt_of([*PROMPT[:8], *tail]) for tail in ([1, 2], [3])] for _ in range(2)]
    both = [m.final_residuals(groups) for m in (one, other)]
    torch.testing.assert_close(*both, atol=1e-4, rtol=1e-4)
    for ours, theirs in zip(*(m.heads.attention(prompts) for m in (one, other)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    edit = Edit(1, torch.full((one.d_model,), 0.5), position=-2)
    said, also = (m.generate(prompts, [None, edit], 3, "no such text") for m in (one, other))
    assert said == also
    rows = [[[5, 6, 7], [8]], [[9, 10]], [[2]]]
    both = [m.sequence_logprob(prompts, rows, [None, edit]) for m in (one, other)]
    torch.testing.assert_close(*both, atol=1e-4, rtol=0, equal_nan=True)
    both = [m.heads.gradients(prompts, [1, 2, 3]) for m in (one, other)]
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)


def test_direct_effects_need_a_norm_at_the_end() -> None:
    with pytest.raises(ModelError, match="OPTForCausalLM has no norm after its last block"):
        model("opt_350m").heads.direct_effects([prompt_of(PROMPT)], [1], [[2]])


@pytest.mark.parametrize("family", BRIDGED)
def test_sites_that_a_family_lacks_are_refused_by_name(family: str) -> None:
    ours, prompt = model(family), prompt_of(PROMPT)
    for site in SITES:
        there = [
            layer
            for layer in range(ours.n_layers)
            if site in sites(plain(family), layer) and (family, site) not in MISPLACED
        ]
        if len(there) < ours.n_layers:
            with pytest.raises(InputError, match=f"{family} has .*site '{site}'.*resid_post"):
                ours.capture([prompt], [-1], site)
        for layer in set(range(ours.n_layers)) - set(there):
            width = ours.d_head if site == "z" else ours.d_model
            edit = Edit(layer, torch.zeros(width), site, head=0 if site == "z" else None)
            with pytest.raises(InputError, match=f"site '{site}'"):
                ours.evaluate([prompt], [edit], [[1]])


@pytest.mark.slow
def test_the_table_of_families_is_what_they_do_now() -> None:
    """`make families` writes it."""
    assert written(README.read_text(encoding="utf-8")) == table()
