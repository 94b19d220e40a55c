"""Attention knockouts: equal to plain Transformers with a masked attention, in every family."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from family_reference import block_of, places, reference_logprobs
from plain import prompt_of
from test_every_family import (
    BRIDGED,
    NOT_SHARED,
    PROMPT,
    TOLERANCE,
    bridge,
    model,
    plain,
    skip_what_transformer_lens_computes_otherwise,
)
from tiny_models import D_VOCAB
from torch import Tensor

from icl_mech.errors import InputError
from icl_mech.model import Edit, HookedModel, Knockout
from icl_mech.prompts import Prompt

ATTENDING = [f for f in BRIDGED if f not in ("mamba", "mamba2", "jamba", "qwen3_next")]
ENGINES = [
    pytest.param(family, engine, marks=[] if family in NOT_SHARED else pytest.mark.slow)
    if engine == "plain"
    else (family, engine)
    for family in ATTENDING
    for engine in ("shared", "plain")
    if engine == "plain" or family not in NOT_SHARED
]
#: A long prompt first, so that a batch has prefixes of two widths.
PROMPTS = [PROMPT, PROMPT[:11]]
ANSWERS = [[1, 200], [3, 4]]
HIDDEN, AT = (2, 5, 6), (-3, -2, -1)


def cuts(n_layers: int) -> list[Knockout]:
    """From every block on; in one block, in some heads, with keys among the running tokens."""
    half = n_layers // 2
    return [
        *(Knockout(range(layer, n_layers), HIDDEN) for layer in (0, half)),
        Knockout(half, HIDDEN, AT),
        Knockout((0, half), HIDDEN, AT, heads=(1,)),
        Knockout(range(n_layers), (1, -2), (-1,), heads=(0, 2)),
    ]


def reference(
    family: str, tokens: list[int], knockout: Knockout, edit: Edit | None = None
) -> Tensor:
    """The same by plain Transformers: keys hidden in the mask that each block is given."""
    of = plain(family)
    n, n_heads = len(tokens), of.config.num_attention_heads
    handles = []
    for layer in knockout.layers:  # type: ignore[union-attr]
        block = block_of(of, layer)
        hide = partial(hide_keys, knockout=knockout, n=n, n_heads=n_heads)
        handles.append(block.register_forward_pre_hook(hide, with_kwargs=True))
    try:
        return reference_logprobs(of, tokens, edit)
    finally:
        for handle in handles:
            handle.remove()


def hide_keys(
    block: Any, args: tuple, kwargs: dict[str, Any], *, knockout: Knockout, n: int, n_heads: int
) -> Any:
    at = list(inspect.signature(block.forward).parameters).index("attention_mask")
    mask = kwargs["attention_mask"] if "attention_mask" in kwargs else args[at]
    mask = mask.expand(1, n_heads, n, -1).clone()
    # MPT's masks are true where they hide.
    hides: Any = type(block).__name__ == "MptBlock"
    hides = hides if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    for head in knockout.heads or range(n_heads):
        for query in knockout.at:
            for key in knockout.hidden:
                mask[0, head, query, key % n] = hides
    if "attention_mask" in kwargs:
        return args, {**kwargs, "attention_mask": mask}
    return (*args[:at], mask, *args[at + 1 :]), kwargs


@pytest.mark.parametrize(("family", "engine"), ENGINES)
def test_knockouts_equal_plain_transformers(family: str, engine: str) -> None:
    """Prompts of two lengths in one batch; alone, and with an edit beside each."""
    skip_what_transformer_lens_computes_otherwise(family)
    ours = model(family, engine)
    chosen = cuts(ours.n_layers)
    value = torch.randn(ours.d_model, generator=torch.Generator().manual_seed(0))
    for edit in (None, Edit(0, value, "resid_post", -2, "add")):
        edits = [cut if edit is None else [cut, edit] for cut in chosen]
        found = ours.evaluate([prompt_of(p) for p in PROMPTS], edits, ANSWERS).logprob
        acted: dict[int, float] = dict.fromkeys(range(len(chosen)), 0.0)
        for p, (prompt, answers) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
            here = None
            if edit is not None:
                here = Edit(0, value, "resid_post", len(prompt) - 2, "add")
            clean = reference_logprobs(plain(family), prompt, here)[answers]
            for c, cut in enumerate(chosen):
                expected = reference(family, prompt, cut, here)[answers]
                torch.testing.assert_close(found[p, c], expected, atol=TOLERANCE, rtol=0)
                acted[c] = max(acted[c], float((expected - clean).abs().max()))
        if family != "llama4":  # whose chunks hide these tokens from the last anyway
            assert min(acted.values()) > TOLERANCE  # no knockout did nothing


@pytest.mark.parametrize("family", ["jamba", "qwen3_next"])
def test_attention_of_hybrids_can_be_cut(family: str) -> None:
    """In the blocks that have attention."""
    ours = model(family, "plain")
    there = [i for i, block in enumerate(ours.bridge.blocks) if hasattr(block, "attn")]
    cut = Knockout(there, HIDDEN, AT)
    found = ours.evaluate([prompt_of(p) for p in PROMPTS], [cut], ANSWERS).logprob[:, 0]
    for p, (prompt, answers) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        expected = reference(family, prompt, cut)[answers]
        torch.testing.assert_close(found[p], expected, atol=TOLERANCE, rtol=0)
        clean = reference_logprobs(plain(family), prompt)[answers]
        assert float((expected - clean).abs().max()) > TOLERANCE


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2", "gpt_oss"])
def test_generated_tokens_see_all_and_gradients_keep_the_knockout(family: str) -> None:
    if family not in ATTENDING:
        pytest.skip(f"no tiny {family}")
    shared, whole = model(family, "shared"), model(family, "plain")
    prompts = [prompt_of(p) for p in PROMPTS]
    edit = Edit(1, torch.full((shared.d_model,), 0.5), position=-2, mode="add")
    edits = [*cuts(shared.n_layers), [edit, cuts(shared.n_layers)[2]]]
    said, also = (m.generate(prompts, edits, 3, "no such text") for m in (shared, whole))
    assert said == also
    rows = [[[5, 6, 7], [8]], [[9, 10]]]
    both = [m.sequence_logprob(prompts, rows, edits) for m in (shared, whole)]
    torch.testing.assert_close(*both, atol=TOLERANCE, rtol=0, equal_nan=True)
    ready = [m.answer_gradients(prompts, edits[-1:], [1, 2]).at() for m in (shared, whole)]
    torch.testing.assert_close(ready[0].logprob, ready[1].logprob, atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(ready[0].gradients[0], ready[1].gradients[0], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("lengths", [(14, 11, 9, 13), (9, 14, 10, 12)])
def test_engines_agree_on_batches_of_many_lengths(lengths: tuple[int, ...]) -> None:
    """Own tails of several tokens, whose keys stand behind prefixes of several widths."""
    prompts = [prompt_of(PROMPT[:n]) for n in lengths]
    found = []
    for engine in ("shared", "plain"):
        ours = model("llama", engine)
        half = ours.n_layers // 2
        tail = Knockout(range(half, ours.n_layers), (3, -4), (-3, -2, -1))
        mixed = Edit(0, torch.ones(ours.d_model), position=-5, mode="add")
        every = [list(range(D_VOCAB))] * len(prompts)
        found.append(ours.evaluate(prompts, [tail, [mixed, tail], None, mixed], every).logprob)
    torch.testing.assert_close(*found, atol=TOLERANCE, rtol=0)


def test_a_token_that_sees_itself_alone_is_as_in_a_prompt_of_its_own() -> None:
    """Rotary positions are relative, so a token that attends to nothing else has no position."""
    ours, every = model("llama"), [list(range(D_VOCAB))]
    alone = Knockout(range(ours.n_layers), range(len(PROMPT) - 1))
    cut = ours.evaluate([prompt_of(PROMPT)], [alone], every).logprob[0, 0]
    own = reference_logprobs(plain("llama"), PROMPT[-1:])
    torch.testing.assert_close(cut, own, atol=TOLERANCE, rtol=0)


# --- roles, and bad input -------------------------------------------------------------------------


def ask(of: HookedModel, knockout: Knockout, prompt: Prompt | None = None) -> Callable[[], Any]:
    return lambda: of.evaluate([prompt or prompt_of(PROMPT)], [knockout], [[1]])


def test_a_role_stands_for_all_its_tokens() -> None:
    ours = model("llama")
    roles = ("sink", "", "demo_0_y", "demo_0_y", "", "query", "query", "final_arrow")
    prompt = Prompt("", tuple(PROMPT[:8]), roles)
    assert prompt.positions("demo_0_y") == (2, 3)
    assert prompt.positions(-1) == (7,)
    by_role = Knockout(1, ("demo_0_y",), ("query", "final_arrow"))
    by_index = Knockout(1, (2, 3), (5, 6, 7))
    found = ours.evaluate([prompt], [by_role, by_index], [[1]]).logprob
    assert torch.equal(found[:, 0], found[:, 1])


@pytest.mark.parametrize(
    ("knockout", "says"),
    [
        (Knockout(0, (3, -1)), "token 13 would not see itself.*expected other tokens"),
        (Knockout(0, (12,), (3,)), "no token sees what comes after it"),
        (Knockout(99, (3,)), "layer 99 out of range"),
        (Knockout(0, (3,), heads=(77,)), "head 77 out of range"),
        (Knockout(0, (99,)), "token 99 out of range"),
        (Knockout(0, ("demo_9_y",)), "no role 'demo_9_y'"),
    ],
)
def test_knockouts_that_cannot_be(knockout: Knockout, says: str) -> None:
    with pytest.raises(InputError, match=says):
        ask(model("llama"), knockout)()


def test_empty_and_wrong_arguments() -> None:
    for given, says in (
        (((), (3,)), "layers is empty"),
        ((0, ()), "hidden is empty"),
        ((0, (3,), ()), "at is empty"),
        ((0, (3,), (-1,), ()), "heads is empty"),
    ):
        with pytest.raises(InputError, match=re.escape(says)):
            Knockout(*given)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", ["mamba", "jamba"])
def test_blocks_without_attention_have_none_to_cut(family: str) -> None:
    with pytest.raises(InputError, match=f"{family} has no attention in block 0"):
        ask(model(family), Knockout(0, (3,)))()
    assert bridge(family).blocks is not None
    assert places(plain(family)).blocks
